import gzip
import json

import numpy as np
import pandas as pd
import pytest

import evaluation.report.benchmark as module
from evaluation import EvaluationSettings, Reference
from evaluation.metric import BootstrapSettings
from evaluation.report.benchmark import BenchmarkSettings, TableGroup, benchmark, parse_models
from tests.evaluation.crystals import disguised, zoo

QUICK = EvaluationSettings(bootstrap=BootstrapSettings(20, 5))
FILES = (
    "comparison.md",
    "comparison.csv",
    "comparison.json",
    "report.html",
    "distributions.png",
    "intervals.png",
)


@pytest.fixture(scope="module")
def reference():
    return Reference.from_structures(zoo())


@pytest.fixture
def counted(monkeypatch):
    """The names of the sets that are really judged."""
    judged = []
    real = module.evaluate

    def evaluate(read, *arguments, **more):
        judged.append(len(read.samples))
        return real(read, *arguments, **more)

    monkeypatch.setattr(module, "evaluate", evaluate)
    return judged


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take most of the time of a small benchmark."""
    monkeypatch.setattr(module, "all_figures", lambda *_: {})


def write_table(path):
    texts = [crystal.to(fmt="cif") for crystal in zoo()]
    pd.DataFrame({"method": ["a", "b"] * 3, "cif": texts}).to_csv(path, index=False)
    return path


def test_everything_is_written_and_published_rows_stand_apart(reference, tmp_path):
    models = {"zoo": zoo(), "two": [disguised(zoo()[0], 1), zoo()[2]]}
    settings = BenchmarkSettings(QUICK, baselines=3)
    comparison = benchmark(models, tmp_path, reference, settings=settings)
    kinds = [row.kind for row in comparison.rows]
    assert kinds[:5] == ["model", "model", "baseline", "baseline", "baseline"]
    assert set(kinds[5:]) == {"published"}
    assert all((tmp_path / name).stat().st_size > 500 for name in FILES)
    page = (tmp_path / "report.html").read_text()
    assert "://" not in page
    assert "published figures" in page
    assert "StructureMatcher(ltol=0.2" in page
    for name in ("zoo", "two"):
        assert (tmp_path / "models" / name / "per_structure.csv").exists()
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert record["provenance"]["settings"]["baselines"] == 3
    assert "pymatgen" in record["provenance"]["versions"]


@pytest.mark.usefixtures("no_figures")
def test_a_killed_run_goes_on_where_it_stood(reference, tmp_path, counted, monkeypatch):
    models = {"first": zoo()[:4], "second": zoo()[:3], "third": zoo()[:2]}
    whole = benchmark(models, tmp_path / "whole", reference, settings=BenchmarkSettings(QUICK))
    counted.clear()
    wrapped = module.evaluate

    def killed(read, *arguments, **more):
        if len(read.samples) == 3:
            raise KeyboardInterrupt
        return wrapped(read, *arguments, **more)

    monkeypatch.setattr(module, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        benchmark(models, tmp_path / "cut", reference, settings=BenchmarkSettings(QUICK))
    assert counted == [4]
    monkeypatch.setattr(module, "evaluate", wrapped)
    resumed = benchmark(models, tmp_path / "cut", reference, settings=BenchmarkSettings(QUICK))
    assert counted == [4, 3, 2]
    assert (tmp_path / "cut/comparison.md").read_text() == (tmp_path / "whole/comparison.md").read_text()
    for one, other in zip(resumed.rows[:3], whole.rows[:3], strict=True):
        assert {k: m.as_dict() for k, m in one.metrics.items()} == {
            k: m.as_dict() for k, m in other.metrics.items()
        }


@pytest.mark.usefixtures("no_figures")
def test_a_stage_is_done_again_when_its_crystals_or_settings_change(reference, tmp_path, counted):
    benchmark({"m": zoo()[:3]}, tmp_path, reference, settings=BenchmarkSettings(QUICK))
    benchmark({"m": zoo()[:3]}, tmp_path, reference, settings=BenchmarkSettings(QUICK))
    assert counted == [3]
    (kept,) = (tmp_path / "models").rglob("metrics.json")
    kept.write_text(kept.read_text()[:-20])
    benchmark({"m": zoo()[:3]}, tmp_path, reference, settings=BenchmarkSettings(QUICK))
    assert counted == [3, 3]
    benchmark({"m": zoo()[1:4]}, tmp_path, reference, settings=BenchmarkSettings(QUICK))
    other = EvaluationSettings(smact_rules=("smact14",), bootstrap=QUICK.bootstrap)
    benchmark({"m": zoo()[1:4]}, tmp_path, reference, settings=BenchmarkSettings(other))
    assert counted == [3, 3, 3, 3]


@pytest.mark.usefixtures("no_figures")
def test_a_corrupt_structure_in_the_middle_costs_one_row(reference, tmp_path):
    folder = tmp_path / "cifs"
    folder.mkdir()
    for k in range(30):
        zoo()[k % 6].to(str(folder / f"{k:02d}.cif"))
    text = (folder / "15.cif").read_text()
    (folder / "15.cif").write_text(text[: len(text) // 2])
    comparison = benchmark({"m": folder}, tmp_path / "out", reference, settings=BenchmarkSettings(QUICK))
    row = comparison.rows[0]
    assert (row.readable, row.unreadable) == (29, 1)
    assert row.metrics["structural_validity"].value == pytest.approx(29 / 30)
    assert ">15<" in (tmp_path / "out/report.html").read_text()


@pytest.mark.usefixtures("no_figures")
def test_a_model_that_cannot_be_judged_is_named_and_the_others_are_finished(reference, tmp_path):
    (tmp_path / "what.doc").write_text("?")
    models = {"bad": tmp_path / "what.doc", "good": zoo()[:2]}
    comparison = benchmark(models, tmp_path / "out", reference, settings=BenchmarkSettings(QUICK))
    assert "cannot tell the format" in comparison.rows[0].error
    assert comparison.rows[1].readable == 2
    assert "cannot tell the format" in (tmp_path / "out/comparison.md").read_text()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        benchmark({"none": tmp_path / "nowhere"}, tmp_path / "out", reference)


@pytest.mark.usefixtures("no_figures")
def test_a_limit_is_a_random_draw_of_the_file(reference, tmp_path):
    texts = [crystal.to(fmt="cif") for crystal in zoo() for _ in range(10)]
    pd.DataFrame({"id": range(60), "cif": texts}).to_csv(tmp_path / "sorted.csv", index=False)
    settings = BenchmarkSettings(QUICK, limit=12)
    comparison = benchmark({"m": tmp_path / "sorted.csv"}, tmp_path / "out", reference, settings=settings)
    assert comparison.rows[0].readable == 12
    ids = pd.read_csv(tmp_path / "out/models/m/per_structure.csv")["id"]
    assert ids.max() >= 30
    assert ids.is_monotonic_increasing


def test_arguments_become_models(tmp_path):
    table = write_table(tmp_path / "models.csv")
    models = parse_models([f"one={table}", f"many={table}@method"])
    assert list(models) == ["one", "many/a", "many/b"]
    assert models["many/b"] == TableGroup(table, "method", "b")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(table.read_bytes()))
    assert list(parse_models([f"x={tmp_path / 'b.csv.gz'}@method"])) == ["x/a", "x/b"]
    for wrong in ("nopath", "=x", "a="):
        with pytest.raises(ValueError, match="NAME=PATH"):
            parse_models([wrong])
    with pytest.raises(ValueError, match="no column"):
        parse_models([f"x={table}@model"])
    with pytest.raises(ValueError, match="two models"):
        parse_models([f"x={table}", f"x={table}"])
    with pytest.raises(FileNotFoundError):
        parse_models(["x=nowhere.cif"])


@pytest.mark.usefixtures("no_figures")
def test_a_damaged_stage_is_judged_again(reference, tmp_path, counted):
    settings = BenchmarkSettings(QUICK)
    benchmark({"m": zoo()[:3]}, tmp_path, reference, settings=settings)
    first = (tmp_path / "comparison.csv").read_bytes()
    metrics = tmp_path / "models" / "m" / "metrics.json"
    metrics.write_bytes(metrics.read_bytes()[:100])
    before = len(counted)
    benchmark({"m": zoo()[:3]}, tmp_path, reference, settings=settings)
    assert len(counted) > before
    assert (tmp_path / "comparison.csv").read_bytes() == first


def test_numbers_of_crystals_that_cannot_be_are_refused():
    for numbers in ({"limit": 0}, {"limit": -1}, {"baselines": -3}):
        with pytest.raises(ValueError, match="at least one crystal"):
            BenchmarkSettings(**numbers)


@pytest.mark.usefixtures("no_figures")
def test_models_without_crystals_are_no_benchmark(reference, tmp_path):
    pd.DataFrame({"id": [], "cif": []}).to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(ValueError, match=r"at least one model: m: .*expected crystals"):
        benchmark(
            {"m": tmp_path / "none.csv"}, tmp_path / "out", reference, settings=BenchmarkSettings(QUICK)
        )
    assert not (tmp_path / "out" / "comparison.md").exists()


@pytest.mark.usefixtures("no_figures")
def test_a_part_of_a_table_is_judged_alone(reference, tmp_path):
    models = parse_models([f"many={write_table(tmp_path / 'models.csv')}@method"])
    comparison = benchmark(models, tmp_path / "out", reference, settings=BenchmarkSettings(QUICK))
    assert [row.readable for row in comparison.rows[:2]] == [3, 3]
    formulas = pd.read_csv(next((tmp_path / "out/models").glob("many_a*/per_structure.csv")))["formula"]
    assert np.array_equal(np.sort(formulas), np.sort(["Cl1Na1", "O2Ti1", "O1Zn1"]))


def test_a_set_without_crystals_and_absurd_numbers_are_refused(reference, tmp_path):
    comparison = benchmark(
        {"nothing": [], "a\nb|$x_$": zoo()[:2]}, tmp_path, reference, settings=BenchmarkSettings(QUICK)
    )
    assert "expected crystals" in comparison.rows[0].error
    assert not comparison.complete
    assert (tmp_path / "report.html").is_file()
    for wrong in ({"limit": 0}, {"limit": -1}, {"baselines": -3}):
        with pytest.raises(ValueError, match="expected at least one crystal of each model"):
            BenchmarkSettings(**wrong)
