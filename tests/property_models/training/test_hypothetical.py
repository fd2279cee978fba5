import json
from dataclasses import replace

import numpy as np
import pytest

from autoperi.data.dataset import CrystalDataset
from autoperi.data.files import crystal_record
from property_models.training.hypothetical import labelled_draws, wbm_rows, with_hypothetical
from property_models.training.train_property import Splits, tenth
from tests.property_models.small import labelled_crystals, write_table


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "cache"))


def _labels(folder, crystals, **more):
    """A file of labels: each crystal drawn, relaxed to a larger cell, with an energy of its own."""
    folder.mkdir(exist_ok=True)
    lines = []
    for k, crystal in enumerate(crystals):
        relaxed = replace(crystal, lattice_coords=crystal.lattice_coords + np.array([0, 0, 0, 0, 0, 0.1]))
        own = {"formation_energy": float(k), **{name: -float(k) for name in more}}
        lines.append({"crystal": crystal_record(crystal), "relaxed": crystal_record(relaxed), **own})
    (folder / "labels-7.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _wbm(table, crystals):
    """A table whose rows are numbered from 1; the row before them cannot be read."""
    rows = [replace(crystal, id=str(k)) for k, crystal in enumerate([crystals[0], *crystals])]
    write_table(table, rows, {"formation_energy_per_atom": lambda k, _: -0.1 * k})
    return table


def test_draws_are_shown_as_drawn_and_as_relaxed(tmp_path):
    """Both forms carry the energy after relaxation, by the potential that was asked for."""
    crystals = labelled_crystals(3)
    folder = _labels(tmp_path / "labels", crystals, formation_energy_sevennet=True)
    for potential, sign in (("chgnet", 1), ("sevennet", -1)):
        found = labelled_draws(folder, potential)
        assert [c.properties["formation_energy"] for c in found] == [sign * k for k in (0, 0, 1, 1, 2, 2)]
        drawn, relaxed = found[:2]
        np.testing.assert_allclose(relaxed.lattice_coords - drawn.lattice_coords, [0, 0, 0, 0, 0, 0.1])
        assert drawn.free.tolist() == crystals[0].free.tolist()
    assert len(labelled_draws(folder, "chgnet", ["relaxed"])) == 3


def test_missing_labels_are_explained(tmp_path):
    with pytest.raises(ValueError, match=r"expected labels-\*\.jsonl"):
        labelled_draws(tmp_path, "chgnet")
    folder = _labels(tmp_path / "labels", labelled_crystals(1))
    with pytest.raises(ValueError, match="expected formation_energy_sevennet in line 1"):
        labelled_draws(folder, "sevennet")


@pytest.mark.filterwarnings("ignore:.*are left out")
def test_compounds_held_out_stay_held_out(tmp_path):
    """No draw of a compound of val or test; odd rows nowhere; a tenth of the others calibrates as much."""
    crystals = labelled_crystals(24)
    table = _wbm(tmp_path / "wbm.csv", crystals)
    parts = [CrystalDataset.from_crystals(crystals[k : k + 2], "mp_20") for k in (0, 2, 4)]
    folder = _labels(tmp_path / "labels", crystals)
    made = with_hypothetical(Splits(*parts), table, folder, "chgnet")
    assert made.test is parts[2]
    kept_out = {c.formula for part in parts[1:] for c in part}
    n, half = len(parts[0]), len(made.val) // 2
    assert made.train.ids[:n].tolist() == parts[0].ids.tolist()
    assert made.val.ids[:half].tolist() == np.resize(parts[1].ids, half).tolist()
    for own, added in ((made.train, list(made.train)[n:]), (made.val, list(made.val)[half:])):
        assert not kept_out & {c.formula for c in added if c.id.startswith("labels")}
        assert all(int(c.id) % 2 == 0 for c in added if not c.id.startswith("labels"))
        assert {tenth(c.formula) == 8 for c in added} <= {own is made.val}
        assert np.isfinite([c.properties["formation_energy"] for c in added]).all()
    assert len(made.train) + len(made.val) > 4


@pytest.mark.filterwarnings("ignore:.*are left out")
def test_without_draws_every_row_calibrates_once(tmp_path):
    """Held-out compounds of WBM stand behind all rows of val, and no draws beside them."""
    crystals = labelled_crystals(24)
    parts = [CrystalDataset.from_crystals(crystals[k : k + 2], "mp_20") for k in (0, 2, 4)]
    made = with_hypothetical(Splits(*parts), _wbm(tmp_path / "wbm.csv", crystals))
    added = [*list(made.train)[2:], *list(made.val)[2:]]
    assert made.val.ids[:2].tolist() == parts[1].ids.tolist()
    assert sorted(int(c.id) for c in added) == list(range(2, 25, 2))
    assert all(tenth(c.formula) == 8 for c in list(made.val)[2:])


@pytest.mark.filterwarnings("ignore:.*are left out")
def test_rows_of_odd_number_are_for_testing(tmp_path):
    table = _wbm(tmp_path / "wbm.csv", labelled_crystals(6))
    even, odd = wbm_rows(table, "even"), wbm_rows(table, "odd")
    assert sorted({*even.ids.tolist(), *odd.ids.tolist()}, key=int) == [str(k) for k in range(1, 7)]
    assert {int(name) % 2 for name in odd.ids} == {1}
