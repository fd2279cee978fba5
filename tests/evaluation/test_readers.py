import gzip
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from evaluation.matching import formula_key
from evaluation.readers import as_read_result, read_structures
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
    import pandas as pd

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


WRITERS = [
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
    assert {failure.id for failure in result.failures} == {"broken.cif", "empty.cif", "torn.json.gz"}
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


def test_limit_and_workers(tmp_path):
    path = write_npz(tmp_path / "a.npz", zoo())
    assert len(read_structures(path, limit=2).samples) == 2
    assert [s.id for s in read_structures(path, workers=2).samples] == list("012345")


def test_unknown_formats_and_missing_paths_are_refused(tmp_path):
    (tmp_path / "a.doc").write_text("?")
    with pytest.raises(ValueError, match="cannot tell the format"):
        read_structures(tmp_path / "a.doc")
    with pytest.raises(FileNotFoundError):
        read_structures(tmp_path / "nothing")
