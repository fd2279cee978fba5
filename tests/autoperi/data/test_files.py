"""Output folder: read back unchanged, readable by others, quick."""

import json
import subprocess
import sys
from dataclasses import replace

import ase.io
import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Structure

from autoperi.crystals.crystal import Crystal
from autoperi.data.files import read_crystals, write_crystals
from autoperi.data.names import with_formulas
from tests.prototypes import random_crystal


@pytest.fixture
def crystals():
    made = []
    for i, group in enumerate((1, 15, 62, 166, 225)):
        c = random_crystal(group, 3)
        made.append(
            Crystal(
                group, c.wyckoff, c.species, c.free, c.lattice_coords, f"c{i}",
                {"log_likelihood": -1.5 * i, "band_gap": 0.1 + i}, {"seed": 7, "note": 'a "quoted" word'},
            )
        )  # fmt: skip
    return made


def test_lossless(crystals, tmp_path):
    write_crystals(crystals, tmp_path, {"seed": 7})
    for path in (tmp_path, tmp_path / "crystals.extxyz"):
        for a, b in zip(crystals, read_crystals(path), strict=True):
            assert (a.id, a.space_group, a.properties, a.provenance) == (
                b.id, b.space_group, b.properties, b.provenance,
            )  # fmt: skip
            for name in ("wyckoff", "species", "free", "lattice_coords"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_other_programs_read_the_same_crystal(crystals, tmp_path):
    write_crystals(crystals, tmp_path, {})
    frames = ase.io.read(tmp_path / "crystals.extxyz", ":")
    for crystal, atoms in zip(crystals, frames, strict=True):
        assert atoms.info["id"] == crystal.id
        assert atoms.info["gene"] == crystal.gene
        structure = crystal.to_structure()
        assert atoms.cell.volume == pytest.approx(structure.volume)
        offset = atoms.get_scaled_positions() - structure.frac_coords
        assert np.abs(offset - offset.round()).max() < 1e-6
        cif = Structure.from_file(tmp_path / "cif" / f"{crystal.id}.cif")
        assert cif.composition.reduced_formula == crystal.formula


def test_table_and_run_record(crystals, tmp_path):
    write_crystals(crystals, tmp_path, {"seed": 7, "checkpoint": "abc"})
    table = pd.read_csv(tmp_path / "crystals.csv")
    expected = "id formula space_group space_group_symbol wyckoff gene sites atoms volume_per_atom density"
    assert list(table.columns) == [*expected.split(), "log_likelihood", "band_gap"]
    assert table.space_group_symbol.tolist() == ["P1", "C2/c", "Pnma", "R-3m", "Fm-3m"]
    assert table.volume_per_atom.tolist() == pytest.approx([25.0] * 5)
    assert table.density[4] == pytest.approx(crystals[4].to_structure().density, rel=1e-3)
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["seed"], record["checkpoint"], record["crystals"], record["skipped"]) == (7, "abc", 5, {})
    assert record["versions"]["torch"]


def test_bad_crystals_are_skipped_and_named(crystals, tmp_path):
    good = crystals[0]
    unknown = Crystal(1, good.wyckoff, 0 * good.species, good.free, good.lattice_coords, "unknown")
    broken = Crystal(1, good.wyckoff, good.species, good.free, good.lattice_coords * np.nan, "broken")
    huge = Crystal(1, good.wyckoff, good.species, good.free, good.lattice_coords + 40, "huge")
    with pytest.warns(UserWarning, match="3 of 4 crystals not written, first unknown"):
        write_crystals([unknown, good, broken, huge], tmp_path, {})
    assert [c.id for c in read_crystals(tmp_path)] == [good.id]
    assert set(json.loads((tmp_path / "run.json").read_text())["skipped"]) == {"unknown", "broken", "huge"}


def with_ids(crystals, ids):
    return [replace(crystals[i % len(crystals)], id=name) for i, name in enumerate(ids)]


def test_awkward_ids_are_kept_apart(crystals, tmp_path):
    ids = ["a/b", "a:b", "", "../x", "A_b", "a_b-2", "x" * 300, "é" * 150, "x" * 300]
    write_crystals(with_ids(crystals, ids), tmp_path, {})
    assert len(list((tmp_path / "cif").glob("*.cif"))) == len(ids)
    assert len({c.id for c in read_crystals(tmp_path)}) == len(ids)
    assert not (tmp_path / "x.cif").exists()


def test_ids_come_back_as_they_were_by_any_reader(crystals, tmp_path):
    ids = ['say "x"', "a\\b", "NaCl (1)", "a=b", "it's", "=1+1", "[/x]", "<b>", "-1+2", "é 中"]
    write_crystals(with_ids(crystals, ids), tmp_path, {})
    assert [c.id for c in read_crystals(tmp_path)] == ids
    assert [atoms.info["id"] for atoms in ase.io.read(tmp_path / "crystals.extxyz", ":")] == ids
    table = pd.read_csv(tmp_path / "crystals.csv")
    assert [name[0] for name in table["id"] if name.endswith(("=1+1", "-1+2"))] == ["'", "'"]
    assert with_formulas(table)["id"].tolist() == ids


def test_an_id_is_one_line(crystals, tmp_path):
    ids = ["a\nb", "a\rb", "a\u2028b", "\x1b[31mred", "a\udcff", "a b"]
    write_crystals(with_ids(crystals, ids), tmp_path, {})
    read = [c.id for c in read_crystals(tmp_path)]
    assert len(set(read)) == len(ids)
    assert all(name.isprintable() for name in read)
    assert [atoms.info["id"] for atoms in ase.io.read(tmp_path / "crystals.extxyz", ":")] == read


def test_a_second_smaller_run_leaves_no_file_of_the_first(crystals, tmp_path):
    write_crystals(crystals, tmp_path, {"seed": 1})
    write_crystals(with_ids(crystals[:2], ["new", "c1"]), tmp_path, {"seed": 2})
    assert sorted(p.name for p in (tmp_path / "cif").iterdir()) == ["c1.cif", "new.cif"]
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["files"] == ["cif/c1.cif", "cif/new.cif", "crystals.csv", "crystals.extxyz", "index.html"]


def test_no_crystals_and_foreign_files(tmp_path):
    write_crystals([], tmp_path, {})
    assert read_crystals(tmp_path) == []
    assert len(pd.read_csv(tmp_path / "crystals.csv")) == 0
    (tmp_path / "crystals.extxyz").write_text("1\nfree text\nH 0 0 0\n")
    with pytest.raises(ValueError, match="not written by write_crystals; use load_dataset"):
        read_crystals(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_crystals(tmp_path / "nothing")
    with pytest.raises(ValueError, match="plain numbers"):
        write_crystals([], tmp_path, {"seed": object()})


def test_as_many_are_read_as_were_written(tmp_path, crystals):
    write_crystals(crystals * 200, tmp_path, {})
    assert len(read_crystals(tmp_path)) == 200 * len(crystals)


def test_python_without_assertions_reads_what_was_written(crystals, tmp_path):
    """Nothing that matters happens inside an assert, ours or a library's."""
    write_crystals(crystals, tmp_path, {})
    script = "from autoperi.data.reading import read_structures as read; "
    script += "import sys; print(len(read(sys.argv[1]).samples))"
    done = subprocess.run(
        [sys.executable, "-O", "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(len(crystals)), done.stderr
