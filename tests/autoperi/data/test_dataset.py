"""Data sets: flat arrays, cache, resumption, splits and labels of the hull."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.io.cif import CifWriter

from autoperi.crystals.crystal import CrystalBatch
from autoperi.data import preprocess
from autoperi.data.dataset import CrystalDataset, fill_e_above_hull, load_dataset
from autoperi.data.download import dataset_file
from tests.prototypes import random_crystal

pytestmark = pytest.mark.filterwarnings("ignore:1 of 6 crystals")
NAMES = ["NaCl", "CsCl", "TiO2 rutile", "Fe bcc", "CdI2"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def table(tmp_path, prototypes):
    """Five good rows and a broken one."""
    lines = ["material_id,formation_energy_per_atom,band_gap,cif"]
    for i, name in enumerate(NAMES):
        lines.append(f'{name},{-0.5 * i},{"" if i == 1 else i},"{CifWriter(prototypes[name])}"')
    lines.insert(3, 'broken,-9,1,"data_x _cell_length_a"')
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "train.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "t" / "train.csv"


def _load(path, split=None, **options):
    with pytest.warns(UserWarning, match="1 of 6 crystals of train.csv are left out, first broken"):
        return load_dataset(path, split, workers=1, progress=False, **options)


def test_load_names_what_fails_and_keeps_the_rest(table, tmp_path):
    data = _load(table)
    assert data.ids.tolist() == NAMES
    assert [c.formula for c in data] == ["NaCl", "CsCl", "TiO2", "Fe", "CdI2"]
    assert [f[:2] for f in data.failures] == [("broken", "train.csv, row 2")]
    assert set(data.labels) == {"formation_energy", "band_gap", "e_above_hull"}
    assert np.isnan(data.labels["band_gap"]).tolist() == [False, True, False, False, False]
    assert np.isnan(data.labels["e_above_hull"]).all()
    assert data[1].properties == {"formation_energy": -0.5}
    report = next((tmp_path / "cache").rglob("failures.csv")).read_text()
    assert "broken" in report
    assert len(_load(table.parent, "train")) == 5


def test_second_load_comes_from_the_cache(table, monkeypatch):
    first = _load(table)
    monkeypatch.setattr(preprocess, "symmetrise", None)
    second = _load(table)
    assert torch.equal(first.free, second.free)
    table.write_text(table.read_text() + "\n")
    with pytest.raises(ValueError, match="none could be used, first "):
        load_dataset(table, None, workers=1)


def test_interrupted_preparation_resumes(table, monkeypatch):
    monkeypatch.setattr(preprocess, "_CHUNK", 2)
    whole, calls = preprocess.symmetrise, []

    def dies(structure, config):
        calls.append(structure)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(structure, config)

    monkeypatch.setattr(preprocess, "symmetrise", dies)
    with pytest.raises(KeyboardInterrupt):
        load_dataset(table, None, workers=1, progress=False)
    assert len(_load(table)) == 5
    assert len(calls) == 3 + 3  # the first chunk of two was not done again


def _cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _rewritten(change):
    def damage(file):
        with np.load(file) as data:
            arrays = dict(data)
        change(arrays)
        np.savez(file, **arrays)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        _cut,
        _rewritten(lambda arrays: arrays.pop("free")),
        _rewritten(lambda arrays: arrays.update(ids=arrays["ids"][:-1])),
        _rewritten(lambda arrays: arrays.update(species=arrays["species"][1:])),
        _rewritten(lambda arrays: arrays.update(label_names=arrays["label_names"][1:])),
    ],
    ids=["empty", "cut", "without a key", "a crystal missing", "a site missing", "a label missing"],
)
def test_a_damaged_cache_heals(table, tmp_path, damage):
    first = _load(table)
    (entry,) = (tmp_path / "cache").rglob("crystals.npz")
    damage(entry)
    with pytest.warns(UserWarning, match=r"crystals\.npz is damaged"):
        again = load_dataset(table, None, workers=1, progress=False)
    assert again.content_hash() == first.content_hash()
    assert _load(table).content_hash() == first.content_hash()


def test_a_cache_that_cannot_be_written_costs_no_crystal(table, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file in its place")
    monkeypatch.setattr(preprocess, "_CHUNK", 2)
    with pytest.warns(UserWarning, match="set AUTOPERI_CACHE"):
        data = load_dataset(table, None, workers=1, progress=False)
    assert data.ids.tolist() == NAMES


def test_chunks_of_killed_runs_are_taken_only_when_whole(table, tmp_path, monkeypatch):
    monkeypatch.setattr(preprocess, "_CHUNK", 2)
    first = _load(table)
    (folder,) = (tmp_path / "cache" / "crystals").iterdir()
    (folder / "crystals.npz").rename(folder / "chunk-00000.npz")  # whole, but of other rows
    (folder / "chunk-00001.npz").write_bytes(b"PK")
    (folder / "crystals.npz.999.part").write_bytes(b"PK")
    assert _load(table).content_hash() == first.content_hash()
    assert sorted(p.name for p in folder.iterdir()) == ["crystals.npz", "failures.csv"]


def test_a_table_without_rows_is_said_to_be_empty(tmp_path):
    (tmp_path / "empty.csv").write_text("material_id,cif\n")
    with pytest.raises(ValueError, match="got none"):
        load_dataset(tmp_path / "empty.csv", None, workers=1)


def test_a_split_that_is_not_there_is_an_error(table):
    """Asking for test must never give what a model has been trained on."""
    (table.parent / "val.csv").write_text(table.read_text())
    with pytest.raises(FileNotFoundError, match=r"expected test\.csv.*found train\.csv, val\.csv"):
        load_dataset(table.parent, "test", workers=1)
    with pytest.raises(FileNotFoundError, match=r"expected val\.csv.*found no splits; split=None"):
        load_dataset(table, "val", workers=1)
    assert len(_load(table, "train")) == 5


def test_content_hash_is_of_structures_ids_and_labels(table):
    data = _load(table)
    label = {**data.labels, "band_gap": data.labels["band_gap"] + 1}
    changed = [
        replace(data, free=data.free + 0.01),
        replace(data, ids=np.array([*NAMES[:-1], "other"])),
        replace(data, labels=label),
        replace(data, labels={k: v for k, v in data.labels.items() if k != "band_gap"}),
        data.select([1, 0, 2, 3, 4]),
    ]
    assert len({data.content_hash(), *(d.content_hash() for d in changed)}) == 6
    assert data.select(range(5)).content_hash() == data.content_hash()


def test_parallel_equals_serial_and_dead_workers_cost_one_row(table, monkeypatch):
    monkeypatch.setattr(preprocess, "_IN_PROCESS", 0)
    monkeypatch.setattr(preprocess, "_CHUNK", 2)
    serial = _load(table)
    monkeypatch.setattr(preprocess, "_SCHEMA", -1)
    with pytest.warns(UserWarning, match="1 of 6"):
        parallel = load_dataset(table, None, workers=2)
    assert torch.equal(serial.free, parallel.free)
    whole = preprocess.symmetrise
    monkeypatch.setattr(
        preprocess,
        "symmetrise",
        lambda s, c: __import__("os")._exit(1) if "Cs" in s.symbol_set else whole(s, c),
    )
    monkeypatch.setattr(preprocess, "_SCHEMA", -2)
    with pytest.warns(UserWarning, match="2 of 6"):
        survived = load_dataset(table, None, workers=2)
    assert survived.ids.tolist() == [name for name in NAMES if name != "CsCl"]
    reasons = [reason for _, _, reason in survived.failures]
    assert any("process that worked on it ended with exit code 1" in reason for reason in reasons)


def test_batch_equals_collate():
    """Gathering from flat arrays is the same as collating crystals one by one."""
    crystals = [random_crystal(g, 5) for g in (1, 14, 62, 194, 225)]
    data = CrystalDataset.from_crystals(crystals)
    for indices in ([3, 0, 3], [4], np.arange(5), torch.tensor([2, 1])):
        got = data.batch(indices)
        expected = CrystalBatch.from_crystals([crystals[int(i)] for i in indices])
        for name in ("space_group", "lattice_coords", "crystal", "wyckoff", "species", "free"):
            assert torch.equal(getattr(got, name), getattr(expected, name)), name
    assert data.n_atoms().tolist() == [c.n_atoms for c in crystals]
    assert [c.gene for c in data[1:3]] == [c.gene for c in crystals[1:3]]
    assert data.conditions([0, 1], ["band_gap", "e_above_hull"]).isnan().all()
    with pytest.raises(IndexError, match="below 5"):
        data[5]


def test_joined_sets_keep_their_rows_and_labels():
    """Crystal by crystal what the parts hold; a label that a part does not have is missing."""
    crystals = [random_crystal(g, 5) for g in (1, 14, 62, 194, 225)]
    labelled = [replace(c, properties={"hardness": float(k)}) for k, c in enumerate(crystals[:2])]
    parts = [CrystalDataset.from_crystals(labelled, "a"), CrystalDataset.from_crystals(crystals[2:], "b")]
    joined = CrystalDataset.joined(parts)
    assert joined.name == "a + b"
    assert joined.labels["hardness"][:2].tolist() == [0.0, 1.0]
    assert np.isnan(joined.labels["hardness"][2:]).all()
    for got, expected in zip(joined, crystals, strict=True):
        assert (got.gene, got.free.tolist()) == (expected.gene, expected.free.tolist())
        assert got.lattice_coords.tolist() == expected.lattice_coords.tolist()


def test_unknown_sources_are_explained(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="mp_20, perov_5"):
        load_dataset("mp_21")
    with pytest.raises(ValueError, match="train, val, test: got 'tset'"):
        load_dataset("mp_20", "tset", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"mp_20/train\.csv"):
        load_dataset("mp_20", "train", tmp_path)
    monkeypatch.setenv("AUTOPERI_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="unset"):
        dataset_file("mp_20", "val")


def test_fill_keeps_what_is_there(table):
    data = _load(table)
    given = data.labels["e_above_hull"].copy()
    given[0] = 0.5
    data.labels["e_above_hull"][:] = given
    [filled] = fill_e_above_hull([data])
    assert filled.labels["e_above_hull"].tolist() == [0.5, 0.0, 0.0, 0.0, 0.0]
    assert np.isnan(data.labels["e_above_hull"][1])


def test_hull_over_splits_is_filled_once_and_kept(table, tmp_path, monkeypatch):
    for split in ("val", "test"):
        (table.parent / f"{split}.csv").write_text(table.read_text())
    with pytest.warns(UserWarning, match="left out"):
        first = load_dataset(table.parent, "val", workers=1, fill_hull=True)
    assert np.isfinite(first.labels["e_above_hull"]).all()
    (kept,) = (tmp_path / "cache" / "hull").iterdir()
    monkeypatch.setattr("autoperi.data.dataset.fill_e_above_hull", None)
    with pytest.warns(UserWarning, match="left out"):
        second = load_dataset(table.parent, "val", workers=1, fill_hull=True)
    np.testing.assert_array_equal(first.labels["e_above_hull"], second.labels["e_above_hull"])
    monkeypatch.undo()
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "cache"))
    kept.write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged"):
        third = load_dataset(table.parent, "val", workers=1, fill_hull=True)
    np.testing.assert_array_equal(first.labels["e_above_hull"], third.labels["e_above_hull"])


def test_training_labels_see_nothing_of_test(table):
    """A far lower NaCl in test leaves the labels of train as they are; test's own are above it."""
    text = table.read_text()
    (table.parent / "val.csv").write_text(text)
    (table.parent / "test.csv").write_text(text.replace("NaCl,-0.0,", "NaCl,-9.0,"))

    def label(split):
        with pytest.warns(UserWarning, match="left out"):
            data = load_dataset(table.parent, split, workers=1, fill_hull=True)
        return data.labels["e_above_hull"][0]

    assert [label(split) for split in ("train", "val", "test")] == [0.0, 0.0, 0.0]
    (table.parent / "train.csv").write_text(text.replace("NaCl,-0.0,", "NaCl,-1.0,"))
    assert [label(split) for split in ("train", "val", "test")] == [0.0, 1.0, 0.0]
    (table.parent / "test.csv").write_text(text.replace("NaCl,-0.0,", "NaCl,-0.5,"))
    assert label("test") == 0.5
    (table.parent / "test.csv").unlink()
    assert label("val") == 1.0


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "used", "failed"),
    [
        ("zeolites_iza/iza_zeolites.csv.gz", 6, 0),
        ("obelix/all_cifs.tar.gz", 1, 5),
        ("oc20_slabs/oc20_30_relaxed.extxyz.gz", 6, 0),
        ("odac_mofs/odac_promising_mofs.csv.gz", 6, 0),
    ],
)
def test_large_and_awkward_cells(data_folder, file, used, failed):
    """Frameworks, slabs and experimental CIFs: used, or named with a reason."""
    some = list(preprocess.iterate_rows(data_folder / file))[:6]
    arrays = preprocess._arrays(some, preprocess.SymmetriseConfig())
    assert len(arrays["ids"]) + len(arrays["failures"]) == 6
    assert abs(len(arrays["ids"]) - used) <= 2
    assert abs(len(arrays["failures"]) - failed) <= 2
    assert all("partial" in r or "occupied" in r or "apart" in r for r in arrays["failures"][:, 2])
