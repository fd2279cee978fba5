"""What a model has been shown is kept per target in the checkpoint; strangers are flagged with the reason."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from pymatgen.core import Molecule

from autoperi.crystals.crystal import Crystal, CrystalBatch
from property_models.graph.site_graph import SiteGraph, site_graph
from property_models.model import PropertyModel, load, save
from property_models.networks.domain import Contacts, Domain
from property_models.networks.ensemble import Ensemble, EnsembleConfig
from tests.property_models.small import TINY


def pair(length: float, species=(14, 16)) -> Crystal:
    """Two atoms as in CsCl: the nearest neighbour is half a space diagonal away."""
    return Crystal.without_symmetry(np.eye(3) * length, np.array([[0.0] * 3, [0.5] * 3]), np.array(species))


def graph(*crystals: Crystal) -> SiteGraph:
    return site_graph(CrystalBatch.from_crystals(crystals).to(dtype=torch.float32), 6.0)


LONE = Crystal.without_symmetry(np.eye(3) * 20, np.zeros((1, 3)), np.array([14]))


def test_contacts_of_two_atoms():
    """Half a space diagonal over 1.11 + 1.05 Å; an atom without bonds has none."""
    contacts = Contacts.of(graph(pair(3.4), LONE))
    assert contacts.distance[:2].tolist() == pytest.approx([3.4 * 0.75**0.5] * 2, rel=1e-5)
    assert contacts.ratio[:2].tolist() == pytest.approx([3.4 * 0.75**0.5 / 2.16] * 2, rel=1e-5)
    assert contacts.neighbour.tolist() == [16, 14, 0]
    assert float(contacts.ratio[2]) == float("inf")


def test_strangers_and_why():
    """A little strain is no reason; other elements, short and long contacts and lone atoms are."""
    domain = Domain()
    assert not domain.known
    domain.learn(graph(pair(3.2), pair(3.6)), torch.ones(2, 1, dtype=torch.bool))
    known = (pair(3.2), pair(3.4), pair(3.6 * 1.015), pair(3.2 * 0.985))
    strange = (pair(3.0), pair(3.9), LONE, pair(3.4, (14, 35)), pair(3.4, (19, 35)))
    (reasons,) = domain.strangers(graph(*known, *strange))
    assert reasons[:4] == [""] * 4
    assert reasons[4].startswith("Si is 2.60 Å from its nearest neighbour S, 1.20 of their covalent radii")
    assert "in training 1.28 to 1.44" in reasons[5]
    assert reasons[6] == "Si has no neighbour within the cutoff"
    assert reasons[7:] == ["no training crystal has Br", "no training crystal has K, Br"]


def test_only_labelled_crystals_count_for_a_target():
    """An element whose training crystals lack a target's label is unknown to that target alone."""
    domain = Domain()
    domain.learn(graph(pair(3.4), pair(3.4, (19, 16))), torch.tensor([[True, True], [True, False]]))
    first, second = domain.strangers(graph(pair(3.4, (19, 16))))
    assert first == [""]
    assert second == ["no training crystal has K"]


def test_a_checkpoint_that_does_not_hold_its_domain_says_so(tmp_path):
    """Where an older checkpoint finds nothing strange the flag is missing, not False."""
    torch.manual_seed(0)
    ensemble = Ensemble(EnsembleConfig(TINY, 2)).eval()
    save(ensemble, tmp_path / "old", {})
    ensemble.domain.learn(graph(pair(3.4)), torch.ones(1, 1, dtype=torch.bool))
    save(ensemble, tmp_path / "new", {})
    crystals = [pair(3.4), pair(9.0)]
    old, new = (load(tmp_path / name).predict(crystals) for name in ("old", "new"))
    assert old["out_of_domain"].isna().all()
    assert old["reason"].str.startswith("unknown: the checkpoint does not hold").all()
    assert new["out_of_domain"].tolist() == [False, True]
    assert new["reason"].tolist() == ["", "Si has no neighbour within the cutoff"]
    assert load(tmp_path / "new").fast().predict(crystals)["out_of_domain"].tolist() == [False, True]


def test_one_wrong_item_costs_its_row_alone():
    """What is no crystal has a reason in its place; the others have values."""
    torch.manual_seed(0)
    model = PropertyModel(Ensemble(EnsembleConfig(TINY, 1)), TINY.targets)
    good = pair(3.4)
    wrong = {
        "got Molecule": Molecule(["N", "N"], [[0, 0, 0], [0, 0, 1.1]]),
        "got Atoms": molecule("H2O"),
        "got NoneType": None,
        "got species [0, 16]": replace(good, species=np.array([0, 16])),
        "got NaN": replace(good, lattice_coords=np.full(6, np.nan)),
    }
    structures = [good, good.to_structure(), bulk("Cu"), *wrong.values(), good]
    table = model.predict(structures)  # pyright: ignore[reportArgumentType]
    fine = [0, 1, 2, len(structures) - 1]
    assert table.index[table["error"] == ""].tolist() == fine
    assert np.isfinite(table["value"][fine]).all()
    assert table["value"][0] == pytest.approx(table["value"][1], abs=1e-5)
    bad = table.drop(fine)
    assert bad["value"].isna().all()
    assert bad["out_of_domain"].isna().all()
    assert (bad["reason"] == "").all()
    assert all(words in error for words, error in zip(wrong, bad["error"], strict=True))
