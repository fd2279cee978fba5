import json

import pandas as pd
from rich.console import Console

from evaluation.comparison import Comparison, Row
from evaluation.metric import Metric


def share(name, value, low, high, n=100):
    return Metric(name, value, low, high, n, "all items", f"rule of {name}")


def row(name, smact, kind="model", n=100, density=0.2):
    metrics = [
        share("smact_smact14", smact, smact - 0.05, smact + 0.05, n),
        Metric("wasserstein_density", density, density - 0.05, density + 0.05, n, "valid", "W", "g/cm³"),
    ]
    return Row(name, kind, {m.name: m for m in metrics}, n, 0)


COMPARISON = Comparison(
    [
        row("A", 0.80, density=0.5),
        row("B", 0.72),
        row("C", 0.60, n=40),
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


def test_only_overlapping_models_share_the_first_place():
    smact, density = COMPARISON.columns()
    assert COMPARISON.leaders(smact) == ["A", "B"]
    assert COMPARISON.leaders(density) == ["B", "C"]  # low is better; baselines are not ranked


def test_full_marks_from_few_crystals_are_not_ranked_above_more():
    sure = share("smact_smact14", 1.0, 1.0, 1.0, 30)
    close = share("smact_smact14", 0.93, 0.90, 0.95, 1000)
    rows = [Row("few", "model", {sure.name: sure}, 30), Row("many", "model", {close.name: close}, 1000)]
    comparison = Comparison(rows, "reference")
    assert comparison.leaders(comparison.columns()[0]) == ["few", "many"]


def test_doubts_name_models_metric_and_size():
    doubts = COMPARISON.doubts()
    assert doubts[0].startswith("SMACT (smact14): cannot rank A and B at n = 40 to 100")
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
    assert lines.query("model == 'B' and name == 'smact_smact14'")["value"].item() == 0.72
    plain = json.loads((tmp_path / "comparison.json").read_text())
    assert plain["rows"][3]["error"] == "ValueError: torn"
    assert plain["rows"][0]["metrics"]["smact_smact14"]["high"] == 0.80 + 0.05
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(COMPARISON.table())
    assert "old paper" in console.export_text()


def test_cells_of_the_page_carry_their_provenance():
    html = COMPARISON.html()
    assert "rule of smact_smact14" in html
    assert html.count('class="number best"') == 4
