"""Readers: every format, and a named reason for everything that cannot be read."""

import gzip
import json
import tarfile
import warnings
import zipfile

import ase.io
import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp import Poscar

from autoperi.data.reading import ReadError, iterate_rows, parse_row, parse_text, read_structures


@pytest.fixture(scope="module")
def rutile(prototypes):
    return prototypes["TiO2 rutile"]


@pytest.fixture(scope="module")
def cif(rutile):
    return str(CifWriter(rutile))


def _same(a, b):
    return (
        a.composition == b.composition
        and np.allclose(a.lattice.parameters, b.lattice.parameters, atol=1e-6)
        and np.allclose(np.sort(a.distance_matrix.ravel()), np.sort(b.distance_matrix.ravel()), atol=1e-4)
    )


def _table(tmp_path, header, *rows, name="t.csv"):
    quoted = ['"' + r.replace('"', '""') + '"' if "\n" in r else r for row in rows for r in row]
    n = len(header.split(","))
    lines = [",".join(quoted[i : i + n]) for i in range(0, len(quoted), n)]
    (tmp_path / name).write_text("\n".join([header, *lines]) + "\n")
    return tmp_path / name


def test_a_text_that_is_no_structure_is_named_as_such():
    """Not as an index that is out of range in somebody's parser."""
    assert _reason("garbage") == "expected a CIF, a POSCAR, an extxyz frame or JSON: got 'garbage'"


def _reason(text):
    with pytest.raises(ReadError) as caught:
        parse_text(text)
    return str(caught.value)


def test_cdvae_columns(tmp_path, cif, rutile):
    header = "material_id,formation_energy_per_atom,band_gap,pretty_formula,e_above_hull,elements,cif,spacegroup.number"  # fmt: skip # noqa: E501
    file = _table(tmp_path, header, ["mp-1", "-3.3", "1.8", "TiO2", "0.01", "Ti", cif, "136"], ["mp-2", "", "", "TiO2", "", "Ti", cif, "136"])  # fmt: skip # noqa: E501
    found = read_structures(file)
    assert [sample.id for sample in found.samples] == ["mp-1", "mp-2"]
    assert found.samples[0].labels == {"formation_energy": -3.3, "band_gap": 1.8, "e_above_hull": 0.01}
    assert found.samples[1].labels == {}
    assert _same(found.structures[0], rutile)


@pytest.mark.parametrize("name", ["a.cif", "a.cif.gz", "POSCAR", "a.vasp", "a.json", "a.json.gz", "a.extxyz", "a.extxyz.gz"])  # fmt: skip # noqa: E501
def test_single_files(name, tmp_path, rutile, cif):
    atoms = rutile.to_ase_atoms(msonable=False)
    atoms.info = {"material_id": "x1", "band_gap": 1.5}
    ase.io.write(tmp_path / "tmp.extxyz", atoms, format="extxyz")
    text = {
        "cif": cif,
        "POSCAR": Poscar(rutile).get_str(),
        "vasp": Poscar(rutile).get_str(),
        "json": json.dumps([rutile.as_dict()]),
        "extxyz": (tmp_path / "tmp.extxyz").read_text(),
    }[name.removesuffix(".gz").split(".")[-1]].encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    found = read_structures(tmp_path / name)
    assert found.failures == ()
    [sample] = found.samples
    assert _same(sample.structure, rutile)
    if "extxyz" in name:
        assert (sample.id, sample.labels["band_gap"]) == ("x1", 1.5)


def test_names_of_digits_keep_their_zeros(tmp_path, rutile):
    """Sampled crystals are called 000012: predictions must carry that name."""
    atoms = rutile.to_ase_atoms(msonable=False)
    frames = [atoms.copy() for _ in range(3)]
    for frame, name in zip(frames, ("000012", "1e3", "two words"), strict=True):
        frame.info = {"id": name, "steps": 3}
    ase.io.write(tmp_path / "x.extxyz", frames, format="extxyz")
    assert [row.id for row in iterate_rows(tmp_path / "x.extxyz")] == ["000012", "1e3", "two words"]


@pytest.mark.parametrize("name", ["crystals.extxyz", "relaxed.extxyz"])
def test_our_own_folders_hold_every_crystal_once(name, tmp_path, rutile, cif):
    """The table, the run record and the CIFs beside the extxyz file are not further crystals."""
    (tmp_path / "cif").mkdir()
    (tmp_path / "cif" / "000000.cif").write_text(cif)
    (tmp_path / "run.json").write_text('{"seed": 0}')
    ase.io.write(tmp_path / name, rutile.to_ase_atoms(msonable=False), format="extxyz")
    found = read_structures(tmp_path)
    assert len(found.structures) == 1
    assert found.failures == ()


def test_json_of_many_kinds(tmp_path, rutile):
    d = rutile.as_dict()
    split = {"index": [7], "columns": ["structure", "gap"], "data": [[d, 2.0]]}
    for content, ids in (
        ({"a": d, "b": d}, ["a", "b"]),
        ([{"material_id": "m", "structure": d, "band_gap": 1.0}, {"nothing": 1}, 5], ["m"]),
        (split, ["7"]),
    ):
        (tmp_path / "x.json").write_text(json.dumps(content))
        found = read_structures(tmp_path / "x.json")
        assert [sample.id for sample in found.samples] == ids
    (tmp_path / "x.json").write_text(json.dumps([{"nothing": 1}, 5]))
    reasons = [failure.reason for failure in read_structures(tmp_path / "x.json").failures]
    assert "got keys ['nothing']" in reasons[0]
    assert "got int" in reasons[1]


def test_folders_and_archives_lose_nothing(tmp_path, cif):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.cif").write_text(cif)
    (folder / "bad.cif").write_text(cif[:300])
    (folder / "notes.txt").write_text("not a crystal")
    with (
        zipfile.ZipFile(tmp_path / "in.zip", "w") as archive,
        tarfile.open(tmp_path / "in.tgz", "w:gz") as tar,
    ):
        for file in folder.iterdir():
            archive.write(file, file.name)
            tar.add(file, file.name)
    for source in (folder, tmp_path / "in.zip", tmp_path / "in.tgz"):
        found = read_structures(source)
        assert [sample.id for sample in found.samples] == ["good"]
        assert [(failure.id, failure.where) for failure in found.failures] == [("bad", "bad.cif")]
        assert found.ignored == ("notes.txt",)


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_structures(tmp_path / "none.csv")
    with pytest.raises(ReadError, match="got none"):
        read_structures(tmp_path)
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(ReadError, match=r"format of a\.docx.*rename"):
        read_structures(tmp_path / "a.docx")


def test_truncated_files_give_what_they_have(tmp_path, cif):
    whole = _table(
        tmp_path, "material_id,cif", *[[f"m{i}", cif.replace("4.59370000", f"4.{i:08d}")] for i in range(200)]
    )
    packed = gzip.compress(whole.read_bytes())
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    found = read_structures(tmp_path / "cut.csv.gz")
    assert len(found.structures) > 20
    assert len(found.failures) == 1
    assert "ends too early" in found.failures[0].reason
    (tmp_path / "empty.csv").write_text("")
    assert "empty" in read_structures(tmp_path / "empty.csv").failures[0].reason
    (tmp_path / "cut.json").write_text('[{"a":')
    assert "damaged" in read_structures(tmp_path / "cut.json").failures[0].reason
    _table(tmp_path, "a,b", ["1", "2"], name="numbers.csv")
    assert "got columns ['a', 'b']" in read_structures(tmp_path / "numbers.csv").failures[0].reason
    _table(tmp_path, "material_id,cif", ["m", ""], name="hole.csv")
    assert "no text in column 'cif'" in read_structures(tmp_path / "hole.csv").failures[0].reason


def test_bad_cifs_are_explained(cif):
    lines = cif.splitlines()
    assert "cut off" in _reason("\n".join(lines[:-2]))
    assert "cut off" in _reason(cif[:-30])
    assert "got none; it may be cut off" in _reason(cif[:300])
    assert "got 'Xx'" in _reason(cif.replace("  Ti  ", "  Xx  "))
    assert "got none" in _reason("")
    assert _reason("data_x\nnonsense")
    assert _reason("some text")
    assert "no Lattice" in _reason("1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n")


def test_partial_occupancy_is_refused(cif):
    lines = cif.splitlines()
    lines[-1] = lines[-1].rsplit(None, 1)[0] + "  0.5"
    assert _reason("\n".join(lines)) == "partial occupancies"


def test_duplicate_atoms_are_never_merged_silently(cif):
    """pymatgen adds up the occupancies of coinciding atoms; here they stay two, or are an error."""
    lines = cif.splitlines()
    n = len(parse_text(cif))
    try:
        structure = parse_text("\n".join([*lines, lines[-1]]).replace("_chemical_formula_sum", "_unused"))
    except ReadError:
        return
    assert len(structure) == n + 1


def test_poscar_without_elements_is_refused(rutile):
    lines = Poscar(rutile).get_str().splitlines()
    del lines[5]
    text = "\n".join(" ".join(line.split()[:3]) for line in lines)
    assert "element symbols" in _reason(text)


def test_several_blocks_are_several_crystals(tmp_path, cif):
    (tmp_path / "two.cif").write_text(cif + "\n" + cif)
    assert [sample.id for sample in read_structures(tmp_path / "two.cif").samples] == ["two-0", "two-1"]


def test_wrapped_values_are_joined(cif):
    lines = cif.splitlines()
    lines[-1] = lines[-1].rsplit(None, 1)[0] + "\n  1"
    assert len(parse_text("\n".join(lines))) == len(parse_text(cif))


def test_quick_path_equals_pymatgen(prototypes):
    """Our reading of plain P1 CIFs is pymatgen's."""
    for structure in prototypes.values():
        text = str(CifWriter(structure))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert _same(parse_text(text), Structure.from_str(text, fmt="cif"))


def test_symmetric_cif_goes_through_pymatgen(prototypes):
    text = str(CifWriter(prototypes["NaCl"], symprec=0.01))
    assert len(parse_text(text)) == 8


@pytest.mark.data
@pytest.mark.parametrize(("file", "rows"), [
    ("mp_20/val.csv.gz", 9047), ("perov_5/train.csv.gz", 11356), ("carbon_24/test.csv.gz", 2030),
    ("mpts_52/val.csv.gz", 5000), ("zeolites_iza/iza_zeolites.csv.gz", 244),
    ("cofs_curated/curated_cofs.csv.gz", 984),
    ("odac_mofs/odac_promising_mofs.csv.gz", 242), ("oc20_slabs/oc20_30_relaxed.extxyz.gz", 30),
    ("matbench_phonons/matbench_phonons.json.gz", 1265),
])  # fmt: skip
def test_real_files(data_folder, file, rows):
    found = list(iterate_rows(data_folder / file))
    assert len(found) == rows
    for row in found[::100]:
        assert len(parse_row(row)) > 0
