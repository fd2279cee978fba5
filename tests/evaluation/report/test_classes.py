"""Rules of a class, and what is known of it, in one report."""

import json

import pandas as pd
import pytest
from pymatgen.io.cif import CifWriter

from autoperi.data.download import fold
from autoperi.data.reading import Failure, ReadResult, as_read_result
from evaluation import evaluate_class
from evaluation.metric import BootstrapSettings
from tests.evaluation.classes.test_zeolite import cristobalite, sodalite
from tests.evaluation.crystals import diamond, disguised, perovskite

QUICK = BootstrapSettings(resamples=20, resamples_distance=10)
IN_TRAIN = next(code for code in ("SOD", "SOE", "SOF", "SOG", "SOH") if fold(code) > 2)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder that knows one crystal of each class."""
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    for name, column, one in (
        ("zeolites_iza/iza_zeolites", "framework", sodalite()),
        ("perov_5/train", "material_id", perovskite()),
        ("carbon_24/train", "material_id", diamond("C", 3.567)),
    ):
        file = folder / f"{name}.csv"
        file.parent.mkdir(parents=True)
        pd.DataFrame({column: [IN_TRAIN], "cif": [str(CifWriter(one))]}).to_csv(file, index=False)
    return folder


@pytest.mark.parametrize(
    ("name", "known", "new", "foreign"),
    [
        ("zeolite", sodalite(), cristobalite(), diamond("C", 3.567)),
        ("perovskite", perovskite(), perovskite("Ba", "Zr", 4.19), diamond("C", 3.567)),
        ("carbon", diamond("C", 3.567), diamond("C", 3.567), perovskite()),
    ],
)
def test_known_new_repeated_and_foreign_crystals(data, name, known, new, foreign):
    read = as_read_result([known, new, disguised(known, 2), foreign])
    read = ReadResult(read.samples, (Failure("bad", "torn"),), "four crystals")
    report = evaluate_class(read, name, data, QUICK)
    table = report.per_structure
    assert table["valid"].tolist() == [True, True, True, False]
    if name == "carbon":
        assert table["unique"].tolist() == [True, False, False, True]
        assert table["novel"].tolist() == [False, False, False, True]
    else:
        assert table["unique"].tolist() == [True, True, False, True]
        assert table["novel"].tolist() == [False, True, False, True]
    assert report.metrics["valid"].value == pytest.approx(3 / 5)
    assert report.metrics["uniqueness"].n == 4
    assert report.metrics["wasserstein_density"].floor is not None


def test_files(data, tmp_path):
    report = evaluate_class(as_read_result([sodalite(), diamond()]), "zeolite", data, QUICK)
    report.save(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert told["class"] == "zeolite"
    assert told["metrics"]["valid"]["value"] == 0.5
    assert pd.read_csv(tmp_path / "out" / "per_structure.csv")["fault"].notna().sum() == 1
    assert "framework_density" in (tmp_path / "out" / "metrics.md").read_text()


def test_nothing_to_judge(data):
    with pytest.raises(ValueError, match=r"expected crystals in .*: got 1 unreadable items, first bad: torn"):
        evaluate_class(ReadResult((), (Failure("bad", "torn"),), "file"), "carbon", data)


def test_without_data_the_message_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"zeolites_iza/iza_zeolites.csv.*iza-structure.org"):
        evaluate_class(as_read_result([sodalite()]), "zeolite", tmp_path)
