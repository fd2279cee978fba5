import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from autoperi.data.reading import Failure, ReadResult, as_read_result
from evaluation import EvaluationSettings, Reference, evaluate, read_structures
from evaluation.facts.levels import LEVELS
from evaluation.metric import BootstrapSettings, mean_metric
from tests.evaluation.crystals import disguised, rocksalt, zoo

QUICK = EvaluationSettings(bootstrap=BootstrapSettings(resamples=20, resamples_distance=10))


@pytest.fixture(scope="module")
def report():
    crystals = [*zoo(), disguised(zoo()[0], 1), rocksalt("K", "Br", 6.6)]
    read = as_read_result(crystals)
    read = ReadResult(read.samples, (Failure("bad", "torn"), Failure("worse", "gone")), "eight crystals")
    return evaluate(read, Reference.from_structures(zoo()), settings=QUICK)


def test_shares_and_their_denominators(report):
    value = {name: metric.value for name, metric in report.metrics.items()}
    assert report.metrics["structural_validity"].n == 10
    assert value["structural_validity"] == pytest.approx(0.8)
    assert value["uniqueness"] == pytest.approx(7 / 8)
    assert value["novelty"] == pytest.approx(1 / 8)
    assert value["valid_unique_novel"] == pytest.approx(1 / 10)
    assert value["new_gene_share"] == 0
    levels = {level: value[f"novelty_{level}"] for level in LEVELS}
    assert levels == {"duplicate": 7 / 8, "substitution": 1 / 8, "known_gene": 0, "new_gene": 0}
    assert value["p1_share_loose"] == 0


def test_every_metric_says_what_it_is(report):
    for metric in report.metrics.values():
        assert metric.protocol
        assert metric.denominator
        assert metric.n > 0
        if metric.protocol.startswith("count of"):
            continue
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low <= metric.high


def test_rows_name_twins(report):
    rows = report.per_structure.set_index("id")
    assert rows.loc["6", "duplicate_of"] == "0"
    assert rows.loc["6", "reference_twin"] == 0
    assert pd.isna(rows.loc["7", "reference_twin"])
    assert rows.loc["7", ["novelty_level", "reference_template"]].tolist() == ["substitution", 0]
    assert rows.loc["6", "novelty_level"] == "duplicate"
    assert pd.isna(rows.loc["6", "reference_template"])


def test_saved_report_stands_alone(report, tmp_path):
    folder = report.save(tmp_path / "out")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["metrics"]) == set(report.metrics)
    assert [f["id"] for f in metrics["failures"]] == ["bad", "worse"]
    assert len(pd.read_csv(folder / "per_structure.csv")) == 8
    page = (folder / "report.html").read_text()
    assert "://" not in page
    assert "data:image/svg+xml;base64," in page
    assert (folder / "distributions.png").stat().st_size > 1000
    every = (folder / "metrics.md").read_text()
    assert all(f"| {name} |" in every for name in report.metrics)
    assert every.count("\n## ") == 4  # no stability without relaxations


@pytest.mark.parametrize("width", [100, 240])
def test_the_terminal_shows_some_twenty_lines_of_at_most_a_hundred_columns(report, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(replace(report, source="a[/x]\n\x1b[31m$b$").table())
    lines = console.export_text().splitlines()
    assert len(lines) <= 22  # a terminal has 24
    assert max(map(len, lines)) <= 100
    assert "a[/x] \\x1b[31m$b$: 8 readable, 2 unreadable" in lines[0]
    groups = [line.split()[0] for line in lines if line.startswith("  ") and line[2:3].isalpha()]
    assert groups == ["validity", "novelty", "distribution", "symmetry"]


def test_an_evaluation_of_nothing_is_an_error():
    reference = Reference.from_structures(zoo())
    with pytest.raises(ValueError, match=r"expected crystals in .*: got 0 unreadable items"):
        evaluate([], reference, settings=QUICK)
    torn = ReadResult((), (Failure("bad.cif", "torn"),), "a folder")
    with pytest.raises(ValueError, match=r"in a folder: got 1 unreadable items, first bad\.cif: torn"):
        evaluate(torn, reference, settings=QUICK)


def test_interval_covers_the_value_and_is_the_same_twice():
    hits = np.arange(200) % 4 == 0
    first, second = (mean_metric("x", hits, "all", "test") for _ in range(2))
    assert first == second
    assert first.low is not None
    assert first.high is not None
    assert first.low < 0.25 < first.high
    # Normal approximation: standard error sqrt(p(1-p)/n).
    assert first.high - first.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 * 0.75 / 200), rel=0.15)


@pytest.mark.data
def test_peer_samples_score_what_was_measured(data_folder):
    read = read_structures(data_folder / "peers" / "diffcsp_mp20.npz", limit=300)
    report = evaluate(read, Reference.from_structures(zoo()), settings=QUICK)
    assert report.metrics["structural_validity"].value > 0.99
    assert report.metrics["smact_smact14"].value == pytest.approx(0.82, abs=0.07)
    assert report.metrics["p1_share_loose"].value == pytest.approx(0.27, abs=0.08)
    assert report.metrics["p1_share_tight"].value == pytest.approx(0.83, abs=0.08)
