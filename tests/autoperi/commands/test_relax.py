import json

import pandas as pd
import pytest
from ase.io import read
from pymatgen.core import Lattice, Structure

from evaluation.facts.symmetry import space_group
from tests.autoperi.shell import command
from tests.evaluation.crystals import perovskite, rocksalt


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    """Two crystals, one that CHGNet cannot treat, one that is no crystal."""
    folder = tmp_path_factory.mktemp("cifs")
    rocksalt(a=5.9).to(filename=str(folder / "salt.cif"))
    perovskite("Sr", "Ti", 4.0).to(filename=str(folder / "perovskite.cif"))
    Structure(Lattice.cubic(40), ["Na"], [[0, 0, 0]]).to(filename=str(folder / "lonely.cif"))
    (folder / "torn.cif").write_text("data_x\n_cell_length_a 3")
    return folder


def test_relax_writes_tables_and_files_and_goes_on(crystals, tmp_path, capsys):
    """Energies fall, symmetry is kept, bad items are named; a second run takes all from the journal."""
    arguments = ("relax", crystals, "--keep-symmetry", "--fmax", 0.05, "--steps", 60, "--out", tmp_path)
    assert command(*arguments) == 1
    first = capsys.readouterr()
    for name in ("lonely", "torn"):
        assert f"left out: {name}" in first.err
    table = pd.read_csv(tmp_path / "relax.csv").set_index("id")
    assert sorted(table.index) == ["lonely.cif", "perovskite.cif", "salt.cif", "torn.cif"]
    good = table.loc[["salt.cif", "perovskite.cif"]]
    assert good["error"].isna().all()
    assert (good["energy_after"] < good["energy_before"]).all()
    assert good["converged"].all()
    assert (good["max_force"] < 0.05).all()
    assert good["space_group_kept"].all()
    assert good["space_group_after"].tolist() == [225, 221]
    assert table.loc[["lonely.cif", "torn.cif"], "error"].notna().all()
    frames = {frame.info["id"]: frame for frame in read(tmp_path / "relaxed.extxyz", ":")}
    assert set(frames) == {"salt.cif", "perovskite.cif"}
    assert frames["salt.cif"].info["energy_after"] == pytest.approx(table.loc["salt.cif", "energy_after"])
    cif = Structure.from_file(tmp_path / "cif" / "perovskite.cif")
    assert space_group(cif, 1e-3) == 221
    assert cif.volume == pytest.approx(frames["perovskite.cif"].get_volume(), rel=1e-4)
    assert [row[0] for row in json.loads((tmp_path / "run.json").read_text())["failures"]] == [
        "lonely.cif",
        "torn.cif",
    ]
    assert command(*arguments) == 1
    assert "all from the journal" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "relax.csv").set_index("id").equals(table)


def test_every_step_of_a_relaxation_is_written(crystals, tmp_path):
    """From the raw crystal to the relaxed one, energies as the table has them; also from the journal."""
    arguments = ("relax", crystals / "salt.cif", "--trajectories", "--fmax", 0.05, "--out", tmp_path)
    for _ in range(2):
        assert command(*arguments) == 0
        (row,) = pd.read_csv(tmp_path / "relax.csv").to_dict("records")
        frames = read(tmp_path / "trajectories" / "salt.extxyz", ":")
        energies = [frame.get_potential_energy() / len(frame) for frame in frames]
        assert len(frames) == row["steps"] + 1
        assert (energies[0], energies[-1]) == pytest.approx((row["energy_before"], row["energy_after"]))
        assert frames[0].cell.lengths() == pytest.approx([5.9] * 3, abs=1e-5)
        assert frames[-1].info["max_force"] == pytest.approx(row["max_force"], rel=1e-4)
        (tmp_path / "trajectories" / "salt.extxyz").unlink()


def test_relax_gives_up_in_time_and_refuses_a_folder_without_crystals(crystals, tmp_path, capsys):
    """A crystal out of time is named with the limit; a folder of broken files is one line and status 2."""
    out = tmp_path / "out"
    assert command("relax", crystals, "--time-limit", 0, "--fmax", 1e-9, "--out", out) == 1
    assert "left out: salt.cif (NaCl): time-out: 0 s used up" in capsys.readouterr().err
    assert (out / "relaxed.extxyz").read_text() == ""
    (tmp_path / "torn.cif").write_text("data_x\n_cell_length_a 3")
    assert command("relax", tmp_path / "torn.cif", "--out", out) == 2
    assert "1 unreadable items; first torn" in capsys.readouterr().err
