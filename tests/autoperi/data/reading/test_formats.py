import gzip
import io
import json
import sqlite3
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from autoperi.data.reading import as_read_result, read_groups, read_structures
from evaluation.facts.matching import formula_key
from tests.evaluation.crystals import zoo


def as_arrays(structures):
    return {
        "z": np.concatenate([s.atomic_numbers for s in structures]),
        "frac": np.concatenate([s.frac_coords for s in structures]),
        "n": np.array([len(s) for s in structures]),
        "cell": np.array([s.lattice.parameters for s in structures]),
    }


def write_cif_folder(path, crystals):
    path.mkdir()
    for k, crystal in enumerate(crystals):
        crystal.to(str(path / f"{k:02d}.cif"))
    (path / "README.txt").write_text("not a crystal")
    return path


def write_zip(path, crystals):
    with zipfile.ZipFile(path, "w") as archive:
        for k, crystal in enumerate(crystals):
            archive.writestr(f"inner/{k:02d}.cif", crystal.to(fmt="cif"))
    return path


def write_csv(path, crystals):
    texts = [crystal.to(fmt="cif") for crystal in crystals]
    pd.DataFrame({"material_id": range(len(texts)), "cif": texts}).to_csv(path, index=False)
    return path


def write_extxyz(path, crystals):
    from ase.io import write

    stream = io.StringIO()
    for crystal in crystals:
        write(stream, AseAtomsAdaptor.get_atoms(crystal, msonable=False), format="extxyz")
    path.write_bytes(gzip.compress(stream.getvalue().encode()))
    return path


def write_json(path, crystals):
    path.write_text(json.dumps([crystal.as_dict() for crystal in crystals]))
    return path


def write_npz(path, crystals):
    np.savez(path, **as_arrays(crystals))
    return path


def write_pt(path, crystals):
    a = as_arrays(crystals)
    tensors = {
        "frac_coords": a["frac"],
        "atom_types": a["z"],
        "num_atoms": a["n"],
        "lengths": a["cell"][:, :3],
        "angles": a["cell"][:, 3:],
    }
    torch.save({key: torch.as_tensor(value) for key, value in tensors.items()}, path)
    return path


def write_tar(path, crystals):
    with tarfile.open(path, "w:gz") as archive:
        for k, crystal in enumerate(crystals):
            text = crystal.to(fmt="cif").encode()
            member = tarfile.TarInfo(f"./cifs/{k:02d}.cif")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return path


def write_zipped_extxyz(path, crystals):
    frames = write_extxyz(path.with_suffix(".gz"), crystals)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("generated_crystals.extxyz", gzip.decompress(frames.read_bytes()))
    return path


def write_ase_db(path, crystals):
    from ase.db import connect

    with connect(path) as database:
        for crystal in crystals:
            database.write(AseAtomsAdaptor.get_atoms(crystal, msonable=False))
    return path


WRITERS = [
    (write_tar, "cifs.tar.gz"),
    (write_zipped_extxyz, "frames.zip"),
    (write_ase_db, "rows.db"),
    (write_cif_folder, "cifs"),
    (write_zip, "cifs.zip"),
    (write_csv, "table.csv.gz"),
    (write_extxyz, "frames.extxyz.gz"),
    (write_json, "list.json"),
    (write_npz, "arrays.npz"),
    (write_pt, "eval.pt"),
]


@pytest.mark.parametrize(("write", "name"), WRITERS, ids=[name for _, name in WRITERS])
def test_every_format_gives_the_same_crystals_back(write, name, tmp_path):
    crystals = zoo()
    result = read_structures(write(tmp_path / name, crystals))
    assert not result.failures
    assert [formula_key(s) for s in result.structures] == [formula_key(s) for s in crystals]
    for read, written in zip(result.structures, crystals, strict=True):
        assert read.volume == pytest.approx(written.volume, rel=1e-4)
        assert len(read) == len(written)
        assert np.sort(read.distance_matrix.ravel()) == pytest.approx(
            np.sort(written.distance_matrix.ravel()), abs=1e-2
        )


def test_poscar_by_its_name(tmp_path):
    zoo()[0].to(str(tmp_path / "POSCAR"), fmt="poscar")
    assert len(read_structures(tmp_path / "POSCAR").samples) == 1


def test_a_folder_of_our_own_is_read_from_its_extxyz(tmp_path):
    folder = write_cif_folder(tmp_path / "out", zoo()[:3])
    write_extxyz(folder / "crystals.extxyz.gz", zoo()[3:])
    assert len(read_structures(folder).samples) == 3


def test_other_files_of_a_folder_are_named(tmp_path):
    assert read_structures(write_cif_folder(tmp_path / "out", zoo()[:1])).ignored == ("README.txt",)


def test_corrupt_items_are_named_and_the_others_kept(tmp_path):
    folder = write_cif_folder(tmp_path / "cifs", zoo()[:2])
    (folder / "broken.cif").write_text("data_x\n_cell_length_a what")
    (folder / "empty.cif").write_text("")
    (folder / "torn.json.gz").write_bytes(gzip.compress(b"[1, 2")[:-3])
    result = read_structures(folder)
    assert len(result.samples) == 2
    assert {failure.id for failure in result.failures} == {"broken", "empty", "torn"}
    assert all(failure.reason for failure in result.failures)


def test_a_cut_off_extxyz_gives_what_came_before(tmp_path):
    path = write_extxyz(tmp_path / "a.extxyz.gz", zoo())
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    (tmp_path / "b.extxyz").write_text("\n".join(lines[:-1]))
    result = read_structures(tmp_path / "b.extxyz")
    assert len(result.samples) == len(zoo()) - 1
    assert "breaks off" in result.failures[0].reason


def test_arrays_that_do_not_fit_say_so(tmp_path):
    arrays = as_arrays(zoo())
    arrays["z"] = arrays["z"][:-1]
    np.savez(tmp_path / "a.npz", **arrays)
    result = read_structures(tmp_path / "a.npz")
    assert not result.samples
    assert "atoms" in result.failures[0].reason


def test_nan_cells_and_partial_occupancies_are_failures():
    crystal = zoo()[0]
    disordered = Structure(crystal.lattice, [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    broken = Structure(crystal.lattice, ["Na"], [[np.nan] * 3])
    result = as_read_result([crystal, disordered, broken])
    assert len(result.samples) == 1
    assert [failure.id for failure in result.failures] == ["1", "2"]


def test_a_limit_and_names_by_number(tmp_path):
    path = write_npz(tmp_path / "a.npz", zoo())
    assert len(read_structures(path, limit=2).samples) == 2
    assert [s.id for s in read_structures(path).samples] == [f"a-{k}" for k in range(6)]


def test_unknown_formats_and_missing_paths_are_refused(tmp_path):
    (tmp_path / "a.doc").write_text("?")
    with pytest.raises(ValueError, match="cannot tell the format"):
        read_structures(tmp_path / "a.doc")
    with pytest.raises(FileNotFoundError):
        read_structures(tmp_path / "nothing")


def test_a_damaged_row_of_an_ase_database_costs_itself_alone(tmp_path):
    path = write_ase_db(tmp_path / "rows.db", zoo())
    with sqlite3.connect(path) as plain:
        plain.execute("UPDATE systems SET positions = X'00' WHERE id = 3")
    plain.close()
    result = read_structures(path)
    assert [failure.id for failure in result.failures] == ["rows-3"]
    assert len(result.samples) == len(zoo()) - 1


def test_a_table_of_several_models_is_taken_apart_by_a_column(tmp_path):
    texts = [crystal.to(fmt="cif") for crystal in zoo()] + ["not a cif"]
    table = pd.DataFrame({"method": list("abababa"), "name": list("1234567"), "cif": texts})
    table.to_csv(tmp_path / "models.csv", index=False)
    groups = read_groups(tmp_path / "models.csv", "method")
    assert list(groups) == ["a", "b"]
    assert [sample.id for sample in groups["b"].samples] == ["2", "4", "6"]
    assert [failure.id for failure in groups["a"].failures] == ["7"]
    assert len(read_groups(tmp_path / "models.csv", "method", limit=2)["a"].samples) == 2
    with pytest.raises(ValueError, match="method"):
        read_groups(tmp_path / "models.csv", "model")


def test_objects_without_a_structure_count_once_each(tmp_path):
    rows = [{"group": 1, "sites": [["a", "b"], ["c"]]}, zoo()[0].as_dict(), {"spacegroup": {"number": 225}}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    result = read_structures(tmp_path / "a.json")
    assert len(result.samples) == 1
    assert [failure.id for failure in result.failures] == ["a-0", "a-2"]


def test_a_site_that_is_no_element_is_a_failure():
    crystal = Structure(zoo()[0].lattice, ["X"], [[0, 0, 0]])
    assert as_read_result([crystal]).failures[0].reason.startswith("a site that is no element")


# Uncompressed: a checksum would catch every damage before the format is looked at.
FILES = {name.removesuffix(".gz"): (write, name) for write, name in WRITERS if name != "cifs"}


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    contents = {}
    for name, (write, written_as) in FILES.items():
        data = write(folder / written_as, zoo()[:3]).read_bytes()
        contents[name] = data if name == written_as else gzip.decompress(data)
    for name, form in (("one.cif", "cif"), ("POSCAR", "poscar")):
        contents[name] = zoo()[1].to(fmt=form).encode()
    return contents


@pytest.mark.parametrize("name", [*FILES, "one.cif", "POSCAR"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_never_stop_a_reader(name, whole_files, tmp_path, data):
    """Cut, overwritten or inserted bytes give crystals or named failures, never an exception."""
    whole = bytearray(whole_files[name])
    for _ in range(data.draw(st.integers(1, 4), label="damages")):
        position = data.draw(st.integers(0, max(0, len(whole) - 1)), label="where")
        kind = data.draw(st.sampled_from(["cut", "overwrite", "insert", "remove"]), label="how")
        junk = data.draw(st.binary(min_size=1, max_size=8), label="bytes")
        if kind == "cut":
            del whole[position:]
        elif kind == "overwrite":
            whole[position : position + len(junk)] = junk
        elif kind == "insert":
            whole[position:position] = junk
        else:
            del whole[position : position + len(junk)]
    path = tmp_path / name
    path.write_bytes(bytes(whole))
    assume(name != "table.csv" or whole.count(b"\n") > 1)  # a header alone is refused whole
    result = read_structures(path)
    assert all(failure.reason for failure in result.failures)
    for structure in result.structures:
        assert np.isfinite(structure.frac_coords).all()
        assert structure.is_ordered


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "readable"), [("obelix/all_cifs.tar.gz", 16), ("odac_mofs/odac_promising_mofs.csv.gz", 60)]
)
def test_awkward_real_cifs_are_read_or_named(file, readable, data_folder):
    """OBELiX is mostly partial occupancies: counted and named, not dropped."""
    result = read_structures(data_folder / file, limit=60)
    assert len(result.samples) == readable
    assert len(result.samples) + len(result.failures) == 60
    assert {failure.reason for failure in result.failures} <= {"partial occupancies"}


@pytest.mark.data
@pytest.mark.parametrize(
    "file",
    [
        "diffcsp_mp20.npz",
        "diffcsp_mp20.pt",
        "diffcsp_pp_mp20.npz",
        "wyformer_diffcsp_pp_mp20.npz",
        "crystalformer_mp20.npz",
        "flowmm_mp20_chgnet_relaxed.csv.gz",
        *(f"carbon4science/{name}.json.gz" for name in ("cdvae", "diffcsp", "flowmm")),
    ],
)
def test_the_files_of_peers_load(file, data_folder):
    assert len(read_structures(data_folder / "peers" / file, limit=20).samples) == 20


@pytest.mark.data
def test_the_table_of_baselines_holds_six_models(data_folder):
    groups = read_groups(data_folder / "peers/matgen_baselines_500x6.csv.gz", "method", limit=4)
    assert set(groups) == {"CDVAE", "CrystaLLM", "FTCP", "Ion-Exchange", "MatterGen", "Random"}
    assert all(len(result.samples) == 4 for result in groups.values())
