import json

import pandas as pd
import pytest

from autoperi.data.files import read_crystals
from tests.autoperi.shell import command
from tests.browser import shown
from tests.prototypes import prototype


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """CIF files by the name of the prototype."""
    folder = tmp_path_factory.mktemp("ends")
    for name in ("NaCl", "CsCl", "Cu fcc"):
        prototype(name).to(filename=str(folder / f"{name}.cif"))
    return lambda name: folder / f"{name}.cif"


def test_interpolate_writes_the_path(tmp_path, capsys, files):
    """Crystals, table with predictions, picture, record; the same command again gives the same."""
    out = tmp_path / "out"
    options = ("--steps", 4, "--property", "band_gap", "--out", out)
    words = ("interpolate", files("NaCl"), files("CsCl"), *options)
    assert command(*words) == 0
    said = capsys.readouterr().out.replace("│", " ").split()  # a narrow terminal folds it
    assert "166 (12 operations of the primitive cell)" in " ".join(said)
    table = pd.read_csv(out / "path.csv")
    assert table["space_group"].tolist() == [225, 166, 166, 221]
    assert table[["energy", "predicted_band_gap"]].notna().all(axis=None)
    assert (out / "path.png").stat().st_size > 5000
    assert [c.id for c in read_crystals(out)] == ["000", "001", "002", "003"]
    assert set(shown(out / "index.html")) == {"000", "001", "002", "003"}
    assert json.loads((out / "run.json").read_text())["common_group"] == 166
    before = (out / "path.csv").read_bytes()
    assert command(*words) == 0
    assert (out / "path.csv").read_bytes() == before
    assert command("interpolate", files("NaCl"), files("NaCl"), *options) == 2
    assert "holds another run" in capsys.readouterr().err


def test_what_has_no_path_is_one_line_and_status_2(tmp_path, capsys, files):
    """Nothing is left behind."""
    for words, said in (
        (("NaCl", "Cu fcc"), "primitive cells with one number of atoms: got NaCl with 2 and Cu with 1"),
        (("NaCl", "CsCl", "--steps", 2), "3 to 1000 steps"),
        (("NaCl", "CsCl", "--property", "bandgap"), "did you mean 'band_gap'"),
    ):
        ends = [files(name) for name in words[:2]]
        assert command("interpolate", *ends, *words[2:], "--out", tmp_path / "out") == 2
        told = capsys.readouterr().err
        assert said in " ".join(told.split())
        assert not (tmp_path / "out").exists()


def test_energies_beyond_plutonium_are_not_known(tmp_path, capsys, files):
    """Said in words, empty in the table."""
    nitride = prototype("NaCl").copy()
    nitride.replace_species({"Na": "Am", "Cl": "N"})
    nitride.to(filename=str(tmp_path / "AmN.cif"))
    words = ("interpolate", tmp_path / "AmN.cif", files("NaCl"), "--steps", 3, "--out", tmp_path / "out")
    assert command(*words) == 0
    assert "not known: an element beyond Pu" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "out" / "path.csv")["energy"].isna().any()
