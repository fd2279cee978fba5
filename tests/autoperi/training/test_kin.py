from dataclasses import replace

import numpy as np
import pytest
import torch

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from autoperi.flow.loss import passage
from autoperi.flow.relatives import Relatives
from autoperi.networks.autoencoder import Autoencoder
from autoperi.networks.embedding import LatticeScale
from autoperi.training.kin import Kin
from autoperi.training.stages import TrainingSet
from tests.autoperi.small import TINY_AUTOENCODER, largest
from tests.prototypes import prototype


@pytest.fixture(scope="module")
def crystals():
    """Two rock salts and a fluorite: the salts are each other's only relative, the fluorite has none."""
    salt = symmetrise(prototype("NaCl"))
    wider = salt.lattice_coords + np.array([0, 0, 0, 0, 0, 0.05])
    other = replace(salt, species=np.where(salt.species == 11, 19, 35), lattice_coords=wider)
    return [replace(salt, id="NaCl"), replace(other, id="KBr"), symmetrise(prototype("CaF2 fluorite"))]


@pytest.fixture(scope="module")
def data(crystals):
    encoder = Autoencoder(TINY_AUTOENCODER).encoder
    kin = Kin.of(crystals, Relatives.from_crystals(crystals), themselves=True)
    batch = CrystalBatch.from_crystals(crystals).to(dtype=torch.float32)
    nothing = torch.full((len(crystals), 3), torch.nan)
    return TrainingSet(batch, nothing, kin=kin).encoded(encoder)


def test_nobody_is_its_own_relative(data, crystals):
    """Unless the set stands beside the training set: then its likes there count, at distance 0."""
    assert data.kin.distance.isfinite().sum(1).tolist() == [1, 1, 0]
    assert bool((data.kin.distance[:2, 0] > 0.05).all())
    beside = Kin.of(crystals[:1], Relatives.from_crystals(crystals), themselves=False)
    assert beside.distance[0, 0] == 0


def test_some_begin_from_their_relatives(data):
    """Those that have one, in about the share that is meant; they keep the means of their latents."""
    generator = torch.Generator().manual_seed(0)
    near = torch.stack([data.begun(generator)[1].distance.isfinite() for _ in range(200)])
    assert not bool(near[:, 2].any())
    assert 0.3 < float(near[:, :2].double().mean()) < 0.5
    while not bool((begun := data.begun(generator))[1].distance.isfinite()[0]):
        pass
    own = data.crystals.crystal == 0
    assert torch.equal(begun[0][own], data.latents.mean[own])
    assert not torch.equal(begun[0][~own], data.latents.mean[~own])


def test_a_passage_from_a_relative_is_late_and_leads_to_the_crystal(data):
    """Every species is known on it, the network is told how far the relative is, and its way is short."""
    scale = LatticeScale()
    generator = torch.Generator().manual_seed(1)
    starts = replace(data.kin.draw(data.crystals.crystal, generator), distance=data.kin.distance[:, 0])
    own = passage(data.crystals, data.latents.mean, scale, generator, starts)
    assert bool((own.t[:2] >= 0.8).all())
    assert torch.equal(own.distance, data.kin.distance[:, 0])
    near = data.crystals.crystal < 2
    assert torch.equal(own.known[near], data.crystals.species[near])
    end = own.point[2] + own.way[2]
    assert largest(end - scale.from_coords(data.crystals.lattice_coords, data.crystals)) < 1e-5


def test_parts_stay_together(data):
    """A selection takes each crystal's own relatives along; a device changes nothing."""
    some = data.select(torch.tensor([1])).to(torch.device("cpu"))
    assert torch.equal(some.kin.distance[0], data.kin.distance[1])
    assert torch.equal(some.kin.free, data.kin.free[data.crystals.crystal == 1])
    assert torch.equal(some.kin.latents, data.kin.latents[data.crystals.crystal == 1])
