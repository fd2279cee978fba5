import json

import pandas as pd
import pytest
from ase.io import read
from pymatgen.core import Lattice, Structure

from autoperi.data.names import with_formulas
from autoperi.data.reading import Sample
from evaluation.facts.symmetry import space_group
from evaluation.relaxation import batch
from evaluation.relaxation.batch import BatchSettings, relax_all
from evaluation.relaxation.relaxation import RelaxationSettings
from tests.autoperi.shell import command
from tests.browser import shown
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
    assert sorted(table.index) == ["lonely", "perovskite", "salt", "torn"]
    good = table.loc[["salt", "perovskite"]]
    assert good["error"].isna().all()
    assert (good["energy_after"] < good["energy_before"]).all()
    assert good["converged"].all()
    assert (good["max_force"] < 0.05).all()
    assert good["space_group_kept"].all()
    assert good["space_group_after"].tolist() == [225, 221]
    assert table.loc[["lonely", "torn"], "error"].notna().all()
    frames = {frame.info["id"]: frame for frame in read(tmp_path / "relaxed.extxyz", ":")}
    assert set(frames) == {"salt", "perovskite"}
    assert frames["salt"].info["energy_after"] == pytest.approx(table.loc["salt", "energy_after"])
    cif = Structure.from_file(tmp_path / "cif" / "perovskite.cif")
    assert space_group(cif, 1e-3) == 221
    assert cif.volume == pytest.approx(frames["perovskite"].get_volume(), rel=1e-4)
    assert [row[0] for row in json.loads((tmp_path / "run.json").read_text())["failures"]] == [
        "lonely",
        "torn",
    ]
    pictures = shown(tmp_path / "index.html")
    assert set(pictures) == {"salt", "perovskite"}
    for name, picture in pictures.items():
        assert (tmp_path / picture["cif"]).exists()
        assert len(picture["z"]) == table.loc[name, "atoms"]
        for column in ("energy_before", "energy_after", "max_force"):
            assert picture["facts"][column] == pytest.approx(table.loc[name, column], rel=1e-4)
        assert picture["facts"]["space_group"] == table.loc[name, "space_group_after"]
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
    assert "left out: salt (NaCl): time-out: 0 s used up" in capsys.readouterr().err
    assert (out / "relaxed.extxyz").read_text() == ""
    (tmp_path / "torn.cif").write_text("data_x\n_cell_length_a 3")
    assert command("relax", tmp_path / "torn.cif", "--out", tmp_path / "other") == 2
    assert "1 unreadable items; first torn" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.fixture(scope="module")
def awkward(tmp_path_factory):
    """Crystals whose ids meet as names of files, and ids that are no plain words."""
    ids = ["a/b", "a_b", "a_b-2", "x" * 300, "é" * 200, "=1+1", 'say "x"', "NaCl (1)", "[/x]", "\x1b[31mred"]
    ids += ["a\\b", "a=b", "it's", "{x}"]
    text = rocksalt(a=5.7).to(fmt="cif")
    table = tmp_path_factory.mktemp("tables") / "ids.csv"
    pd.DataFrame({"id": ids, "cif": text}).to_csv(table, index=False)
    return table, ids


def test_every_crystal_has_its_file_and_its_id(awkward, tmp_path, capsys):
    """As many CIFs as crystals, ids as they were, no cell of the table a formula, nothing obeyed."""
    table, ids = awkward
    assert command("relax", table, "--steps", 0, "--out", tmp_path / "out") == 0
    assert "\x1b[31m" not in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "cif").iterdir())) == len(ids)
    frames = read(tmp_path / "out" / "relaxed.extxyz", ":")
    told = [name.replace("\x1b", "") for name in ids]
    assert [frame.info["id"] for frame in frames] == told
    written = pd.read_csv(tmp_path / "out" / "relax.csv")
    assert "'=1+1" in set(written["id"])
    assert with_formulas(written)["id"].tolist() == told


def test_crystals_of_one_name_keep_their_own_energies(tmp_path):
    """Records belong to positions: two names alike do not share one."""
    samples = [Sample("x", rocksalt(a=5.7)), Sample("x", rocksalt("K", "Cl", 6.3))]
    settings = BatchSettings(RelaxationSettings(max_steps=0))
    records = sorted(relax_all(samples, settings, tmp_path / "j"), key=lambda r: r["number"])
    again = sorted(relax_all(samples[::-1], settings, tmp_path / "j"), key=lambda r: r["number"])
    assert records[0]["energy_per_atom"] != records[1]["energy_per_atom"]
    assert [r["energy_per_atom"] for r in again] == [r["energy_per_atom"] for r in records[::-1]]


def test_a_journal_of_older_code_is_not_trusted(tmp_path, monkeypatch):
    """The key of a record holds its schema and the versions of the code."""
    samples, settings = [Sample("x", rocksalt(a=5.7))], BatchSettings(RelaxationSettings(max_steps=0))
    list(relax_all(samples, settings, tmp_path / "j"))
    list(relax_all(samples, settings, tmp_path / "j"))
    assert (tmp_path / "j").read_text().count("\n") == 1
    monkeypatch.setattr(batch, "_SCHEMA", -1)
    list(relax_all(samples, settings, tmp_path / "j"))
    assert (tmp_path / "j").read_text().count("\n") == 2
    monkeypatch.setattr(batch, "versions", lambda *names: dict.fromkeys(names, "0"))
    list(relax_all(samples, settings, tmp_path / "j"))
    assert (tmp_path / "j").read_text().count("\n") == 3


@pytest.mark.parametrize(
    "arguments",
    [("--fmax", "nan"), ("--fmax", -1), ("--fmax", "inf"), ("--steps", -1), ("--time-limit", "nan")],
)
def test_numbers_at_which_nothing_ends_are_refused_before_the_work(crystals, tmp_path, capsys, arguments):
    assert command("relax", crystals, *arguments, "--out", tmp_path / "out") == 2
    assert "expected a positive force" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
