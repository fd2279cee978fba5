"""Encodings and habits of other programs, and files that mean harm: read or named, in bounds."""

import gzip
import io
import json
import os
import pickle
import resource
import sqlite3
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.db import connect
from pymatgen.core import Lattice, Molecule, Structure

from autoperi.crystals.crystal import Crystal
from autoperi.data.reading import (
    ReadError,
    as_read_result,
    iterate_rows,
    parse_text,
    read_groups,
    read_structures,
)

SALT = Structure(Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CIF = SALT.to(fmt="cif")
FRAME = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 id="{id}" pbc="T T T"\nNa 0 0 0\n'


def ids(path):
    return [sample.id for sample in read_structures(path).samples]


def table(*rows, header="material_id,cif"):
    return "\n".join([header, *(",".join(f'"{cell}"' for cell in row) for row in rows)]) + "\n"


@pytest.mark.parametrize("encoded", [
    ("\ufeff" + CIF).encode(), CIF.replace("data_", "# Müller\ndata_").encode("latin-1"), CIF.replace("\n", "\r\n").encode(),  # noqa: E501
    CIF.replace("\n", "\r").encode(),
])  # fmt: skip
def test_encodings_of_a_cif(encoded, tmp_path):
    (tmp_path / "a.cif").write_bytes(encoded)
    [structure] = read_structures(tmp_path / "a.cif").structures
    assert structure.composition == SALT.composition


@pytest.mark.parametrize("encoded", [
    b"\xef\xbb\xbf" + table(("m1", CIF)).encode(), table(("m1", CIF)).replace("\n", "\r\n").encode(),
    table(("m1", CIF, "Müller"), header="material_id,cif,author").encode("latin-1"),
    table(("m1", CIF), header=",cif").encode(), table(("m1", "x", CIF), header="Unnamed: 0,note,text of it").encode(),  # noqa: E501
])  # fmt: skip
def test_encodings_of_a_table(encoded, tmp_path):
    (tmp_path / "a.csv").write_bytes(encoded)
    assert ids(tmp_path / "a.csv") == ["m1"]


def test_dictionaries_as_python_prints_them(tmp_path):
    d = SALT.as_dict()
    (tmp_path / "a.csv").write_text(
        table(("m1", str(d)), ("m2", json.dumps(d).replace('"', '""')), header="material_id,structure")
    )
    assert ids(tmp_path / "a.csv") == ["m1", "m2"]


def test_a_bad_row_costs_itself(tmp_path):
    rows = [("a", CIF), ("b", "{no json"), ("c", CIF), ("d", CIF[:300]), ("e", CIF)]
    (tmp_path / "a.csv").write_text(table(*rows))
    read = read_structures(tmp_path / "a.csv")
    assert [s.id for s in read.samples] == ["a", "c", "e"]
    assert [f.id for f in read.failures] == ["b", "d"]


def test_blocks_of_a_cif(tmp_path):
    """Publication data before the structure; one bad block of three costs itself."""
    (tmp_path / "one.cif").write_text("data_global\n_journal_name 'J'\n;\ndata_in_a_text\n;\n" + CIF)
    assert ids(tmp_path / "one.cif") == ["one"]
    (tmp_path / "three.cif").write_text(CIF + CIF.replace("5.64000000", "what") + CIF)
    read = read_structures(tmp_path / "three.cif")
    assert [s.id for s in read.samples] == ["three-0", "three-2"]
    assert [f.id for f in read.failures] == ["three-1"]


def test_cgcnn_folder(tmp_path):
    for name in ("x1", "x2"):
        (tmp_path / f"{name}.cif").write_text(CIF)
    (tmp_path / "id_prop.csv").write_text("x1,1.5\nx2,-2\nx3,0\n")
    (tmp_path / "atom_init.json").write_text('{"1": [0, 1]}')
    with pytest.warns(UserWarning, match="atom_init"):
        read = read_structures(tmp_path)
    assert {s.id: s.labels for s in read.samples} == {"x1": {"target": 1.5}, "x2": {"target": -2.0}}
    assert [(f.id, "no such file" in f.reason) for f in read.failures] == [("x3", True)]


def test_jarvis_optimade_and_ase_json(tmp_path):
    cell, frac = SALT.lattice.matrix.tolist(), SALT.frac_coords.tolist()
    jarvis = [
        {
            "jid": "JVASP-1",
            "atoms": {"lattice_mat": cell, "coords": frac, "elements": ["Na", "Cl"], "cartesian": False},
            "bandgap": 5.0,
        }
    ]
    attributes = {
        "lattice_vectors": cell, "cartesian_site_positions": SALT.cart_coords.tolist(), "species_at_sites": ["A", "B"],  # noqa: E501
        "species": [{"name": n, "chemical_symbols": [e], "concentration": [1.0]} for n, e in (("A", "Na"), ("B", "Cl"))],  # noqa: E501
    }  # fmt: skip
    optimade = {"data": [{"id": "odb/1", "type": "structures", "attributes": attributes}], "meta": {}}
    for name, content, known in (("j", jarvis, ["JVASP-1"]), ("o", optimade, ["odb/1"])):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        [sample] = read_structures(tmp_path / f"{name}.json").samples
        assert [sample.id] == known
        assert sample.structure.composition == SALT.composition
    assert read_structures(tmp_path / "j.json").samples[0].labels == {"bandgap": 5.0}
    attributes["species"][0] |= {"chemical_symbols": ["Na", "K"], "concentration": [0.5, 0.5]}
    (tmp_path / "o.json").write_text(json.dumps(optimade))
    assert read_structures(tmp_path / "o.json").failures[0].reason == "partial occupancies"
    atoms = Atoms("NaCl", scaled_positions=frac, cell=cell, pbc=True)
    with connect(tmp_path / "rows.json") as database:
        database.write(atoms, material_id="m1", gap=2.0)
        database.write(atoms)
    with connect(tmp_path / "rows.db") as database:
        database.write(atoms, material_id="m1", gap=2.0)
        database.write(atoms)
    for name in ("rows.json", "rows.db"):
        read = read_structures(tmp_path / name)
        assert [s.id for s in read.samples] == ["m1", "rows-2"]
        assert read.samples[0].labels["gap"] == 2.0
        assert read.structures[0].composition == SALT.composition


def test_frames_that_are_not_periodic_are_said_to_be(tmp_path):
    (tmp_path / "a.extxyz").write_text("1\n" + FRAME.format(id="s").replace("T T T", "T T F"))
    with pytest.warns(UserWarning, match="taken as periodic"):
        assert ids(tmp_path / "a.extxyz") == ["s"]


@pytest.mark.parametrize("name", ["NaCl (1)", "a\u2028b", "a\x85b", "tab\there", "[/x]", "=1+1"])
def test_names_of_frames_are_one_line(name, tmp_path):
    (tmp_path / "a.extxyz").write_text(
        "1\n" + FRAME.format(id=name) + "1\n" + FRAME.format(id="next"), encoding="utf-8"
    )
    read = ids(tmp_path / "a.extxyz")
    assert read[1] == "next"
    assert read[0] == "".join(c if c.isprintable() else " " for c in name)


def test_names_are_unique_by_construction(tmp_path):
    (tmp_path / "a.csv").write_text(table(*((name, CIF) for name in ("a", "a", "a~2", "a", "a\nb", "a b"))))
    found = ids(tmp_path / "a.csv")
    assert len(set(found)) == 6
    assert found[:4] == ["a", "a~2", "a~2~2", "a~3"]
    assert not any("\n" in name for name in found)
    groups = read_groups(tmp_path / "a.csv", "material_id")
    assert [s.id for s in groups["a"].samples] == ["a", "a~2", "a~3"]


def test_a_name_that_is_not_utf_8(tmp_path):
    (tmp_path / "in").mkdir()
    with open(os.fsencode(tmp_path) + b"/in/\xff.cif", "wb") as stream:
        stream.write(CIF.encode())
    [row] = iterate_rows(tmp_path / "in")
    (row.id + row.where).encode()


def test_labels_of_one_name_are_not_mixed(tmp_path):
    header = "material_id,formation_energy,formation_energy_per_atom,cif"
    (tmp_path / "a.csv").write_text(table(("m", "-8", "-4", CIF), header=header))
    assert read_structures(tmp_path / "a.csv").samples[0].labels == {
        "formation_energy": -8.0,
        "formation_energy_per_atom": -4.0,
    }


def test_nothing_is_no_success(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    np.savez(tmp_path / "a.npz", z=np.zeros(0), frac=np.zeros((0, 3)), n=np.zeros(0), cell=np.zeros((0, 6)))
    (tmp_path / "a.csv").write_text("material_id,cif\n")
    for name in ("a.json", "a.npz", "a.csv"):
        with pytest.raises(ReadError, match="got none"):
            read_structures(tmp_path / name)


POSCAR = "c\n1.0\n4 0 0\n0 4 0\n0 0 4\n{}\nDirect\n0 0 0\n.5 .5 .5\n{}"


@pytest.mark.parametrize(("text", "reason"), [
    (POSCAR.format("1 1", ""), "element symbols"), (POSCAR.format("Na Cl\n1 1", "0.1 0.1 0.1\n"), "got more"),
    (POSCAR.format("Na Cl\n1 2", ""), "cut off"), (POSCAR.format("Na Cl\n1000000000 1", ""), "20000"),
    (POSCAR.format("Na\n1 1", ""), "as many elements"), (POSCAR.format("A B\n1 1", ""), "element symbols"),
    (POSCAR.format("Na Cl\n1 1", "").replace(".5 .5 .5", ".5 .5 .5 K"), "got K"),
])  # fmt: skip
def test_poscars_that_contradict_themselves(text, reason):
    with pytest.raises(ReadError, match=reason.replace("(", r"\(")):
        parse_text(text)


def test_poscars_that_are_right():
    assert (
        parse_text(POSCAR.format("Na_pv Cl\n1 1", "\n0.1 0.1 0.1\n0 0 0\n")).composition == SALT.composition
    )
    assert (
        parse_text(POSCAR.format("1 1", "").replace("0 0 0\n.5 .5 .5", "0 0 0 Na\n.5 .5 .5 Cl")).composition
        == SALT.composition
    )
    scaled = POSCAR.format("Na Cl\n1 1", "").replace("\n1.0\n", "\n-128\n").replace("Direct", "S\nCart")
    assert parse_text(scaled).volume == pytest.approx(128)


@pytest.mark.parametrize(("change", "reason"), [
    ({"n": [5, -2]}, "whole numbers"), ({"n": [1.5, 0.5]}, "whole numbers"), ({"z": [11.9, 17]}, "no element"),  # noqa: E501
    ({"z": [11, 170]}, "no element"), ({"cell": [[-4, 4, 4, 90, 90, 90], [4, 4, 4, 90, 90, 90]]}, "above 0"),
    ({"frac": [[0, 0, np.nan], [0, 0, 0]]}, "finite"), ({"z": np.array([{"a": 1}, 2], dtype=object)}, "pickle"),  # noqa: E501
])  # fmt: skip
def test_arrays_that_are_no_crystals(change, reason, tmp_path):
    arrays = {"z": [11, 17], "frac": np.zeros((2, 3)), "n": [1, 1], "cell": [[4, 4, 4, 90, 90, 90]] * 2}
    np.savez(tmp_path / "a.npz", **{k: np.asarray(v) for k, v in (arrays | change).items()})
    assert reason in read_structures(tmp_path / "a.npz").failures[0].reason


class Bad:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_pickled_code_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"atom_types": Bad()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bad()))
    (tmp_path / "c.npz").write_bytes(pickle.dumps(Bad()))
    np.savez(tmp_path / "d.npz", z=np.array([Bad()], dtype=object))
    for name in ("a.pt", "b.pt", "c.npz", "d.npz"):
        assert read_structures(tmp_path / name).failures
    assert not (tmp_path / "ran").exists()


def test_a_tensor_larger_than_what_is_stored(tmp_path):
    one = torch.zeros(1)
    names = ("atom_types", "frac_coords", "num_atoms", "lengths", "angles")
    torch.save({name: one.expand(10**9) for name in names}, tmp_path / "a.pt")
    assert "as are stored" in read_structures(tmp_path / "a.pt").failures[0].reason


def test_members_and_links_that_lead_out(tmp_path):
    secret = tmp_path / "secret.cif"
    secret.write_text("a line that no report may quote")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.cif").write_text(CIF)
    (folder / "link.cif").symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.cif")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../up.cif", CIF)
        archive.writestr("/absolute.cif", CIF)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(folder / "good.cif", "../up.cif")
        archive.add(folder / "link.cif", "link.cif")
    read = read_structures(folder)
    assert [s.id for s in read.samples] == ["good"]
    assert not read.failures
    assert {name.split()[0] for name in read.ignored} >= {"link.cif", "pipe.cif"}
    assert ids(tmp_path / "a.zip") == ["up", "absolute"]
    read = read_structures(tmp_path / "a.tgz")
    assert [s.id for s in read.samples] == ["up"]
    assert read.ignored == ("link.cif (a link)",)
    assert {p.name for p in tmp_path.iterdir()} == {"secret.cif", "in", "a.zip", "a.tgz"}


def _bomb(n, content=bytes(2**20)):
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as stream:
        for _ in range(n):
            stream.write(content)
    return buffer.getvalue()


def _bombs(folder):
    bomb = _bomb(600)
    (folder / "a.csv.gz").write_bytes(bomb)
    (folder / "a.cif.gz").write_bytes(bomb)
    lines = _bomb(600, b"\n" * 2**20)
    (folder / "lines.cif.gz").write_bytes(lines)
    (folder / "POSCAR_lines.gz").write_bytes(lines)
    with (
        zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.cif", "w", force_zip64=True) as stream,
    ):
        for _ in range(600):
            stream.write(bytes(2**20))
    (folder / "a.npz").write_bytes((folder / "a.zip").read_bytes())
    (folder / "POSCAR").write_text(POSCAR.format("Na Cl\n999999999 999999999", ""))
    frame = 'Properties=species:S:1:pos:R:3:x:R:999999999 Lattice="4 0 0 0 4 0 0 0 4"'
    (folder / "columns.extxyz").write_text(f"1\n{frame}\nNa 0 0 0\n")
    (folder / "count.extxyz").write_text("1000000000000\n" + FRAME.format(id="x"))
    (folder / "negative.extxyz").write_text("-1\n" + FRAME.format(id="x"))
    (folder / "deep.json").write_text("[" * 200_000 + "]" * 200_000)
    (folder / "deep.csv").write_text("id,structure\nx," + "{'a':" * 90 + "1" + "}" * 90 + "\n")
    with sqlite3.connect(folder / "view.db") as database:
        database.execute(
            "CREATE VIEW systems AS WITH RECURSIVE t(id) AS (SELECT 1 UNION ALL SELECT id+1 FROM t) SELECT id FROM t"  # noqa: E501
        )
    names = [
        "a.csv.gz",
        "a.cif.gz",
        "lines.cif.gz",
        "POSCAR_lines.gz",
        "a.zip",
        "a.npz",
        "POSCAR",
        "columns.extxyz",
        "count.extxyz",
        "negative.extxyz",
    ]
    return [*names, "deep.json", "deep.csv", "view.db"]


LIMITED = """
import resource, sys
from autoperi.data.reading import ReadError, read_structures
import pymatgen.core, torch
for name in sys.argv[1:]:
    try:
        read = read_structures(name)
        assert not read.samples and read.failures and all(f.reason for f in read.failures), name
        print(name, read.failures[0].reason[:100])
    except ReadError as error:
        print(name, str(error)[:100])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_small_files_do_not_take_the_machine(tmp_path):
    names = _bombs(tmp_path)

    def limited():
        resource.setrlimit(resource.RLIMIT_CPU, (120, 120))

    command = [sys.executable, "-c", LIMITED, *names]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limited, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, peak = done.stdout.splitlines()
    assert len(lines) == len(names)
    assert int(peak) < 2_600_000  # KiB


def test_items_that_are_no_crystals_are_rows_that_say_so():
    crystal = Crystal.without_symmetry(SALT.lattice.matrix, SALT.frac_coords, np.array(SALT.atomic_numbers))
    charged = SALT.copy().add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    molecule = Molecule(["H", "H"], [[0, 0, 0], [0, 0, 0.7]])
    atoms = Atoms("NaCl", scaled_positions=SALT.frac_coords, cell=SALT.lattice.matrix, pbc=True)
    read = as_read_result([SALT, crystal, atoms, charged, molecule, None, Atoms("H2"), 5])
    assert [s.id for s in read.samples] == ["0", "1", "2", "3"]
    assert all(s.composition == SALT.composition for s in read.structures)
    assert [f.id for f in read.failures] == ["4", "5", "6", "7"]
    assert "got Molecule" in read.failures[0].reason
    assert "got NoneType" in read.failures[1].reason


def test_without_assertions_extxyz_is_read(tmp_path):
    """python -O drops the assertions of the code it runs."""
    (tmp_path / "a.extxyz").write_text("1\n" + FRAME.format(id="s"))
    code = (
        "from autoperi.data.reading import read_structures; print(len(read_structures('a.extxyz').samples))"
    )
    command = [sys.executable, "-O", "-c", code]
    assert (
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
        == "1"
    )
