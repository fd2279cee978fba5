import json
import os

import pandas as pd
import pytest

from property_models.model import shipped
from tests.autoperi.shell import command
from tests.browser import shown
from tests.property_models.small import labelled_crystals, write_table
from tests.prototypes import prototype

TINY = """\
members = 1
network = { width = 16, layers = 2, radial = 6, cutoff = 4.0 }
fit = { epochs = 2, cooldown = 1, batch_size = 16, warmup = 2, ema = 0.5 }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table with a broken row, empty cells and a NaN, and a tiny model of it, trained by the command."""
    folder = tmp_path_factory.mktemp("trained")
    columns = {
        "toughness": _toughness,
        "gap": lambda _, c: c.properties["band_gap"],
        "remark": lambda *_: "nice",
    }
    write_table(folder / "table.csv", labelled_crystals(80), columns)
    (folder / "tiny.toml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPERI_CACHE", str(folder / "cache"))
        assert train(folder) == 1
        yield folder


def _toughness(i, crystal):
    return "" if i % 7 == 3 else ("nan" if i == 9 else crystal.properties["formation_energy"])


def train(folder) -> int:
    table, out, config = folder / "table.csv", folder / "run", folder / "tiny.toml"
    targets = ("--targets", "toughness", "gap")
    return command("train-property", table, *targets, "--out", out, "--config", config, "--workers", 1)


def test_train_property_says_what_it_learned_and_left_out(folder):
    """The run record counts the rows and labels, and names what could not be read."""
    record = json.loads((folder / "run" / "run.json").read_text())
    assert [row[0] for row in record["failures"]] == ["c0"]
    assert sum(record["crystals"]) == 79  # every readable row has a gap
    assert record["labels"] == {"toughness": 79 - 12, "gap": 79}
    assert set(record["figures"]) == {"toughness", "gap"}
    assert len(record["model"]) == 64


def test_train_property_goes_on_where_it_stood(folder, capsys):
    """Finished members are not trained again, and the weights stay what they were."""
    record = json.loads((folder / "run" / "run.json").read_text())
    trained = (folder / "run" / "member-0" / "last.ckpt").stat().st_mtime_ns
    assert train(folder) == 1
    assert "left out: c0" in capsys.readouterr().err
    assert (folder / "run" / "member-0" / "last.ckpt").stat().st_mtime_ns == trained
    assert json.loads((folder / "run" / "run.json").read_text())["model"] == record["model"]


def test_predict_tells_by_default_all_that_is_shipped(tmp_path):
    """Every shipped property has its three columns, the same values as when it alone is asked for."""
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    for name in ("NaCl", "TiO2 rutile"):
        prototype(name).to(filename=str(cifs / f"{name.split()[0]}.cif"))
    names = shipped()
    assert {"formation_energy", "band_gap"} <= set(names)
    assert command("predict", cifs, "--out", tmp_path / "all") == 0
    table = pd.read_csv(tmp_path / "all" / "predictions.csv")
    for name in names:
        assert (table[f"{name}_uncertainty"] > 0).all()
        assert command("predict", cifs, "--property", name, "--out", tmp_path / name) == 0
        alone = pd.read_csv(tmp_path / name / "predictions.csv")
        assert [c for c in alone.columns if c.endswith("out_of_domain")] == [f"{name}_out_of_domain"]
        assert alone[name].tolist() == pytest.approx(table[name].tolist(), rel=1e-4, abs=1e-5)


def test_a_search_is_followed_by_the_training_and_not_repeated(folder, tmp_path):
    """Two trials, the first with the recipe as it is; again, and nothing is trained twice."""
    pytest.importorskip("optuna")
    table, config = folder / "table.csv", folder / "tiny.toml"
    fixed = ("--targets", "gap", "--out", tmp_path, "--config", config, "--workers", 1, "--search", 2)
    assert command("train-property", table, *fixed) == 1
    trained = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("last.ckpt")}
    assert {file.parent.parent.name for file in trained} == {"trial-0", "trial-1", tmp_path.name}
    assert command("train-property", table, *fixed) == 1
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("last.ckpt")} == trained


def test_predict_writes_a_table_a_picture_and_a_record(folder, tmp_path, capsys):
    """Values, uncertainties and flags; a damaged file costs its own row, is named, and the status is 1."""
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    for name in ("NaCl", "SrTiO3 perovskite"):
        prototype(name).to(filename=str(cifs / f"{name.split()[0]}.cif"))
    (cifs / "torn.cif").write_text("data_x\n_cell_length_a 3")
    model, out = folder / "run" / "checkpoint", tmp_path / "out"
    assert command("predict", cifs, "--checkpoint", model, "--out", out) == 1
    printed = capsys.readouterr()
    assert "left out: torn (torn.cif)" in printed.err
    assert "out of domain" in printed.out
    table = pd.read_csv(out / "predictions.csv")
    assert table["id"].tolist() == ["NaCl", "SrTiO3"]
    for target in ("toughness", "gap"):
        assert (table[f"{target}_uncertainty"] > 0).all()
        assert table[f"{target}_out_of_domain"].dtype == bool
    record = json.loads((out / "run.json").read_text())
    assert record["crystals"] == 2
    assert [row[0] for row in record["failures"]] == ["torn"]
    assert len(record["models"]["gap"]["sha256"]) == 64
    assert (out / "distributions.png").stat().st_size > 5000
    pictures = shown(out / "index.html")
    assert set(pictures) == {"NaCl", "SrTiO3"}
    for row in table.to_dict("records"):
        for column in ("gap", "gap_uncertainty", "gap_out_of_domain"):
            assert pictures[row["id"]]["facts"][column] == pytest.approx(row[column], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("predict", "{0}/table.csv", "--property", "formaton_energy"), "did you mean 'formation_energy'?"),
        (("predict", "{0}/table.csv", "--checkpoint", "{0}/run/checkpoint", "--property", "ga"), "'gap'?"),
        (("predict", "{0}/table.csv", "--checkpoint", "{0}/run"), "{0}/run/checkpoint?"),
        (("predict", "{0}/nowhere", "--checkpoint", "{0}/run/checkpoint"), "does not exist"),
        (("train-property", "{0}/table.csv", "--targets", "tuoghness"), "did you mean 'toughness'?"),
        (("train-property", "{0}/table.csv", "--targets", "remark"), "a numeric column of"),
        (("train-property", "{0}/empty.csv", "--targets", "y"), "none could be used"),
        (("train-property", "{0}/plain.csv", "--targets", "y"), "expected a column cif, structure"),
    ],
)
def test_bad_requests_are_one_line_and_status_two(folder, tmp_path, capsys, arguments, text):
    """Unknown names suggest the nearest; a table without structures says so; no traceback."""
    (folder / "empty.csv").write_text("material_id,cif,y\na,nothing,1\nb,nothing,2\n")
    (folder / "plain.csv").write_text("material_id,y\na,1\nb,2\n")
    assert command(*(a.format(folder) for a in arguments), "--out", tmp_path) == 2
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert text.format(folder) in complaint


def test_a_property_without_shipped_weights_says_how_to_train_it(tmp_path, capsys, monkeypatch):
    """What is shipped, the command that trains, and where its checkpoint goes."""
    monkeypatch.setattr("property_models.model.PRETRAINED", tmp_path)
    assert command("predict", os.devnull, "--property", "band_gap", "--out", tmp_path) == 2
    complaint = capsys.readouterr().err
    assert "shipped: nothing" in complaint
    assert "autoperi train-property TABLE.csv --targets band_gap" in complaint
