import numpy as np
import pandas as pd
import pytest

from autoperi.data import download
from autoperi.data.download import DATASETS
from autoperi.data.reading import ReadError
from evaluation.facts.reference import Reference, ReferenceSettings, held_out, load_reference
from tests.autoperi.data.reading.test_formats import write_npz
from tests.evaluation.crystals import rocksalt, zoo


def test_crystals_come_back_as_they_were():
    reference = Reference.from_structures(zoo())
    assert len(reference) == len(zoo())
    for k, crystal in enumerate(zoo()):
        assert reference.structure(k) == crystal
    assert reference.space_groups[225] == 2
    assert "225:ab" in reference.genes


def test_the_cache_follows_the_content_of_the_file(tmp_path):
    settings = ReferenceSettings(cache_dir=tmp_path / "cache")
    path = write_npz(tmp_path / "set.npz", zoo())
    first = load_reference(path, settings)
    again = load_reference(path, settings)
    assert first.table.equals(again.table)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    write_npz(path, [rocksalt("K", "Br", 6.6)])
    changed = load_reference(path, settings)
    assert changed.digest != first.digest
    assert len(changed) == 1
    assert np.allclose(changed.structure(0).lattice.abc, 6.6)


def test_labels_are_read_from_the_table_it_came_from(tmp_path):
    rows = pd.DataFrame({"cif": [s.to(fmt="cif") for s in zoo()]})
    rows["formation_energy_per_atom"] = [-1.0, None, *[-2.0] * (len(zoo()) - 2)]
    rows.to_csv(tmp_path / "set.csv.gz", index=False)
    rows.drop(columns="formation_energy_per_atom").to_csv(tmp_path / "bare.csv", index=False)
    settings = ReferenceSettings(cache_dir=tmp_path / "cache")
    labelled, bare = (load_reference(tmp_path / name, settings) for name in ("set.csv.gz", "bare.csv"))
    assert labelled.formation_energies.tolist() == [-1.0, *[-2.0] * (len(zoo()) - 2)]
    assert len(bare.formation_energies) == 0
    assert len(Reference.from_structures(zoo()).formation_energies) == 0


def test_only_a_training_split_has_a_test_split_beside_it():
    assert held_out("mp_20 train") == "mp_20/test"
    assert held_out("mp_20 test") is None
    assert held_out("train") is None


def test_a_missing_data_set_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="AUTOPERI_DATA"):
        load_reference("mp_20", ReferenceSettings(data_dir=tmp_path))
    with pytest.raises(FileNotFoundError, match="mp_20"):
        load_reference("no_such_set")


def test_what_cannot_be_read_is_told(tmp_path):
    """Nothing would be known of it, so that everything were new."""
    settings = ReferenceSettings(cache_dir=tmp_path / "cache")
    (tmp_path / "none.csv").write_text("cif\nno crystal\n")
    for _ in range(2):  # from the cache too
        with pytest.raises(ReadError, match=r"expected crystals .*none\.csv: got 1 unreadable"):
            load_reference(tmp_path / "none.csv", settings)
    rows = pd.DataFrame({"cif": [zoo()[0].to(fmt="cif"), "no crystal"]})
    rows.to_csv(tmp_path / "some.csv", index=False)
    with pytest.warns(UserWarning, match="1 of 2 crystals of the reference .*some.csv could not be read"):
        assert len(load_reference(tmp_path / "some.csv", settings)) == 1


def _without(key):
    def change(file):
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files if name != key}
        np.savez(file, **arrays)

    return change


def _shorter(key):
    def change(file):
        with np.load(file) as stored:
            arrays = dict(stored)
        np.savez(file, **{**arrays, key: arrays[key][1:]})

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-400]),
        *(_without(key) for key in ("table", "frac", "unreadable")),
        *(_shorter(key) for key in ("table", "n", "z", "cell")),
    ],
)
def test_a_damaged_cache_heals(tmp_path, damage):
    settings = ReferenceSettings(cache_dir=tmp_path / "cache")
    path = write_npz(tmp_path / "set.npz", zoo())
    first = load_reference(path, settings)
    (entry,) = (tmp_path / "cache").iterdir()
    damage(entry)
    with pytest.warns(UserWarning, match="is damaged .*it is made again"):
        again = load_reference(path, settings)
    assert again.table.equals(first.table)
    assert [again.structure(k) for k in range(len(again))] == [first.structure(k) for k in range(len(first))]


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch):
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "blocked"))
    path = write_npz(tmp_path / "set.npz", zoo())
    with pytest.warns(UserWarning, match="set AUTOPERI_CACHE"):
        assert len(load_reference(path)) == len(zoo())


def test_the_judge_finds_what_training_has_downloaded(tmp_path, monkeypatch):
    """One cache: no folder named, nothing on the network."""
    monkeypatch.delenv("AUTOPERI_DATA", raising=False)
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path))
    table = pd.DataFrame({"material_id": ["a"], "cif": [zoo()[0].to(fmt="cif")]})
    for name in (
        n for n in DATASETS if download.split_folds(n, "test") is None
    ):  # others have no public file
        kept = tmp_path / "downloads" / name / "test.csv"
        kept.parent.mkdir(parents=True)
        table.to_csv(kept, index=False)
        monkeypatch.delitem(download._BLOBS, f"{name}/test.csv", raising=False)
        reference = load_reference(f"{name}/test")
        assert (len(reference), reference.name) == (1, f"{name} test")
        assert held_out(f"{name} train") == f"{name}/test"
    assert {p.name for p in tmp_path.iterdir()} == {"downloads", "evaluation"}
