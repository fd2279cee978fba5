"""A descent ends lower and in the same group, or leaves a crystal as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from property_models.physics.descent import Descent, shipped_descent
from tests.prototypes import prototype

NAMES = ("NaCl", "TiO2 rutile", "SiO2 quartz", "CaF2 fluorite")


@pytest.fixture(scope="module")
def strained():
    """Free coordinates and cells off by some hundredths, within the group."""
    generator, found = np.random.default_rng(0), []
    for name in NAMES:
        crystal = symmetrise(prototype(name))
        batch = CrystalBatch.from_crystals([crystal])
        free = crystal.free + 0.02 * generator.normal(size=crystal.free.shape) * batch.free_mask().numpy()
        coords = crystal.lattice_coords + 0.03 * batch.lattice_mask().numpy()[0]
        found.append(replace(crystal, free=free % 1.0, lattice_coords=coords))
    return found


def test_it_ends_lower_in_the_same_group(strained):
    descent = shipped_descent(15)
    before, after = shipped_descent(0)(strained), descent(strained)
    for (raw, high), (crystal, low) in zip(before, after, strict=True):
        assert low < high - 1e-3
        assert crystal.gene == raw.gene
        assert np.array_equal(crystal.free == 0, raw.free == 0)
    energies = descent.potential.energy(
        CrystalBatch.from_crystals([c for c, _ in after]).to(dtype=torch.float32)
    )
    assert [low for _, low in after] == pytest.approx(energies.tolist(), abs=1e-4)


def test_it_ends_near_the_minimum(strained):
    """Twice as many steps gain little more."""
    gains = [np.array([low for _, low in shipped_descent(steps)(strained)]) for steps in (0, 10, 40)]
    assert (gains[2] <= gains[1] + 1e-6).all()
    assert ((gains[0] - gains[1]) > 0.7 * (gains[0] - gains[2])).all()


def test_elements_beyond_the_potential_are_left_alone(strained):
    curium = replace(strained[0], species=np.array([96, 17]))
    (kept, energy), (moved, low) = shipped_descent(3)([curium, strained[0]])
    assert kept is curium
    assert energy == float("inf")
    assert np.isfinite(low)
    assert moved.formula == strained[0].formula


def test_a_number_of_steps_is_needed():
    with pytest.raises(ValueError, match="no steps or more: got -1"):
        Descent(shipped_descent().potential, -1)
