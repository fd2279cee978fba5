import io
import json
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from evaluation.metric import Metric
from evaluation.report.comparison import Comparison, Row


def share(name, value, low, high, n=100):
    return Metric(name, value, low, high, n, "all items", f"rule of {name}", error=(high - low) / 3.92)


def row(name, smact, kind="model", n=100, density=0.2):
    metrics = [
        share("smact_smact14", smact, smact - 0.05, smact + 0.05, n),
        share("wasserstein_density", density, density - 0.05, density + 0.05, n),
    ]
    return Row(name, kind, {m.name: m for m in metrics}, n, 0)


COMPARISON = Comparison(
    [
        row("A", 0.80, density=0.5),
        row("B", 0.74),
        row("C", 0.72, n=40),
        Row("broken", "model", {}, error="ValueError: torn"),
        row("resampled", 0.95, "baseline"),
        Row(
            "old paper",
            "published",
            {"smact_smact14": Metric("smact_smact14", 0.8325, None, None, 0, "x", "p")},
        ),
        Row("other task", "published", {"match_rate": Metric("match_rate", 0.5, None, None, 0, "x", "p")}),
    ],
    "reference",
)


def test_only_models_within_the_error_of_the_difference_share_the_first_place():
    """A at 80% and C at 72%, each ± 5: the intervals overlap, the difference is 2.2 of its errors."""
    smact, density = COMPARISON.columns()
    assert COMPARISON.leaders(smact) == ["A", "B"]
    assert COMPARISON.leaders(density) == ["B", "C"]  # low is better; baselines are not ranked


def test_full_marks_from_few_crystals_are_not_ranked_above_more():
    sure = share("smact_smact14", 1.0, 1.0, 1.0, 30)
    close = share("smact_smact14", 0.93, 0.90, 0.95, 1000)
    rows = [Row("few", "model", {sure.name: sure}, 30), Row("many", "model", {close.name: close}, 1000)]
    comparison = Comparison(rows, "reference")
    assert comparison.leaders(comparison.columns()[0]) == ["few", "many"]


def test_doubts_name_models_metric_size_and_how_many_more():
    doubts = COMPARISON.doubts()
    assert doubts[0].startswith("SMACT (smact14): cannot rank A and B at n = 40 to 100; all may be the best.")
    # (1.96 + 0.84)² 2 (0.05 / 1.96)² 100 / 0.06² = 284 samples, in two digits.
    assert doubts[0].endswith("Telling A from B takes about 290 samples of each, 190 more.")
    assert "equal figures" in doubts[1]
    assert any("differ in size (40 to 100" in sentence for sentence in doubts)


def test_published_rows_stand_apart_and_other_tasks_stay_out():
    text = COMPARISON.markdown()
    assert (
        text.index("| A |")
        < text.index("resampled")
        < text.index("published figures")
        < text.index("old paper")
    )
    assert "other task" not in text
    assert "| old paper |  | 83.25 |" in text
    assert "80.0 [75.0, 85.0]" in text
    assert "broken (ValueError: torn)" in text
    assert "rule of smact_smact14" in text


def test_files_and_terminal_hold_the_same_figures(tmp_path):
    COMPARISON.save(tmp_path)
    lines = pd.read_csv(tmp_path / "comparison.csv")
    assert lines.query("model == 'B' and name == 'smact_smact14'")["value"].item() == 0.74
    plain = json.loads((tmp_path / "comparison.json").read_text())
    assert plain["rows"][3]["error"] == "ValueError: torn"
    assert plain["rows"][0]["metrics"]["smact_smact14"]["high"] == 0.80 + 0.05
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(COMPARISON.table())
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 100
    assert any("SMACT" in line and "80.0" in line and "74.0" in line for line in lines)


@pytest.mark.parametrize("name", ["a|b", "two\nlines", "a<b>c", "\x1b[31mred", "*bold*"])
def test_a_name_stays_one_cell_of_the_table(name):
    text = replace(COMPARISON, rows=[replace(COMPARISON.rows[0], name=name)]).markdown()
    heading, _, _, line = text.splitlines()[2:6]
    assert line.replace("\\|", "").count("|") == heading.count("|")
    assert not set("\x1b\n") & set(line)
    assert "<b>" not in line.replace("\\<", "")


def test_cells_of_the_page_carry_their_provenance():
    html = COMPARISON.html()
    assert "rule of smact_smact14" in html
    assert html.count('class="number best"') == 4


def test_the_headline_protocol_has_all_its_columns_and_the_others_their_sun():
    names = [f"{key}_{p}" for p in ("wyformer", "strict") for key in ("stable", "sun", "ssun", "msun")]
    metrics = {name: share(name, 0.3, 0.2, 0.4) for name in names}
    rows = [Row("A", "model", metrics, 100)]
    headings = [c.heading for c in Comparison(rows, "reference").columns()]
    assert headings == ["stable ≤ 0.08", "S.U.N. ≤ 0.08", "S.S.U.N. ≤ 0.08", "M.S.U.N. ≤ 0.08", "S.U.N. < 0"]
    headings = [c.heading for c in Comparison(rows, "reference", protocol="strict").columns()]
    assert headings == ["stable < 0", "S.U.N. < 0", "S.S.U.N. < 0", "M.S.U.N. < 0", "S.U.N. ≤ 0.08"]
    with pytest.raises(ValueError, match="known are cdvae, wyformer"):
        Comparison(rows, "reference", protocol="mine").columns()
