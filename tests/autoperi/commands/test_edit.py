import json

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Composition, Structure

from autoperi.data.files import read_crystals
from evaluation.facts.symmetry import space_group
from tests.autoperi.shell import command
from tests.browser import shown
from tests.prototypes import prototype


@pytest.fixture(scope="module")
def rutile(tmp_path_factory):
    """A CIF file."""
    file = tmp_path_factory.mktemp("seed") / "rutile.cif"
    prototype("TiO2 rutile").to(filename=str(file))
    return file


def test_edit_writes_crystals_that_share_what_is_kept(tmp_path, capsys, rutile):
    """In files of all kinds; the same command again gives the same."""
    out = tmp_path / "out"
    words = ("edit", rutile, "--keep-sites", 0, "--keep-cell", "--n", 3, "--out", out)
    assert command(*words) == 0
    said = capsys.readouterr().out.replace("│", " ").split()  # a narrow terminal folds it
    assert "elements of sites 0, places of sites 0, cell" in " ".join(said)
    table = pd.read_csv(out / "edits.csv")
    assert table["deviation"].max() < 1e-6
    assert table["id"].tolist()[1:] == ["0", "1", "2"] or len(table) == 4
    before = Structure.from_file(rutile)
    for crystal in read_crystals(out):
        after = Structure.from_file(out / "cif" / f"{crystal.id}.cif")
        assert space_group(after, 1e-3) == 136
        assert np.allclose(sorted(after.lattice.abc), sorted(before.lattice.abc), atol=1e-3)
        assert crystal.species[0] == 22
    assert set(shown(out / "index.html")) == {f"{k:06d}" for k in range(3)}
    run = json.loads((out / "run.json").read_text())
    assert run["kept"] == "gene, elements of sites 0, places of sites 0, cell"
    first = (out / "crystals.extxyz").read_bytes()
    assert command(*words) == 0
    assert (out / "crystals.extxyz").read_bytes() == first


def test_what_cannot_be_edited_is_one_line_and_status_2(tmp_path, capsys, rutile):
    """Nothing is left behind."""
    two = tmp_path / "two"
    two.mkdir()
    for name in "ab":
        prototype("NaCl").to(filename=str(two / f"{name}.cif"))
    partial = Structure.from_spacegroup("Fm-3m", np.eye(3) * 4, [Composition("Cu0.5Au0.5")], [[0, 0, 0]])
    partial.to(filename=str(tmp_path / "alloy.cif"))
    for words, said in (
        ((two,), "expected one crystal in"),
        ((tmp_path / "alloy.cif",), "partial occupancies"),
        ((tmp_path / "none.cif",), "does not exist"),
        ((rutile, "--keep-sites", 2), "expected sites among 0 Ti:a, 1 O:f: got 2"),
        ((rutile, "--keep-sites", 1, "--redraw", "sites"), "nothing is left to redraw"),
        ((rutile, "--n", 0), "at least one crystal"),
    ):
        assert command("edit", *words, "--out", tmp_path / "out") == 2
        told = capsys.readouterr().err
        assert said in " ".join(told.split())
        assert not (tmp_path / "out").exists()
