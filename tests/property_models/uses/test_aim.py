from dataclasses import replace

import numpy as np
import pytest
import torch

import property_models
from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from property_models.physics.descent import Descent
from property_models.potentials import distilled
from property_models.uses.aim import Aim
from tests.prototypes import prototype


@pytest.fixture(scope="module")
def model():
    """The shipped guide of band gaps."""
    return property_models.load("band_gap")


def crystals():
    """With gaps, free coordinates and free cells among them."""
    return [symmetrise(prototype(name)) for name in ("SiO2 quartz", "TiO2 rutile", "ZnO wurtzite")]


def test_a_gap_is_never_negative(model):
    with pytest.raises(ValueError, match="expected a value of band_gap from 0 up"):
        Aim(model, distilled.load(), -1.0, 0.1)


def test_it_is_the_energy_and_a_price_for_the_miss(model):
    """Half its square within the tolerance, linear beyond, 0.05 eV/atom for one more."""
    own = crystals()
    batch, potential = CrystalBatch.from_crystals(own), distilled.load()
    gaps = model.predict(own)["value"].to_numpy()
    with torch.no_grad():
        energy = potential.energy(batch).numpy()
        there = Aim(model, potential, gaps[0], 0.5).energy(batch).numpy() - energy
    miss = np.abs(gaps - gaps[0]) / 0.5
    expected = 0.05 * np.where(miss < 1, miss**2 / 2, miss - 0.5)
    assert there == pytest.approx(expected, abs=2e-4)


def test_going_down_leads_to_the_value_and_keeps_the_gene(model):
    """A third of an electronvolt away in every crystal that is free to go; energies do not explode."""
    own = crystals()
    before = model.predict(own)["value"].to_numpy()
    for crystal, gap in zip(own, before, strict=True):
        ((led, _),) = Descent(Aim(model, distilled.load(), gap - 0.3, 0.1), 20)([crystal])
        after = model.predict([led])["value"].item()
        assert abs(after - (gap - 0.3)) < 0.15
        assert led.gene == crystal.gene
        assert np.abs(np.log(led.lattice_coords[5] / crystal.lattice_coords[5])) < 0.1


def test_logarithmic_targets_are_led_in_their_unit():
    """A bulk modulus in GPa."""
    model = property_models.load("bulk_modulus")
    crystal = symmetrise(prototype("MgAl2O4 spinel"))
    value = model.predict([crystal])["value"].item()
    batch, potential = CrystalBatch.from_crystals([replace(crystal, properties={})]), distilled.load()
    with torch.no_grad():
        price = Aim(model, potential, value + 30, 10).energy(batch) - potential.energy(batch)
    assert price.item() == pytest.approx(0.05 * 2.5, rel=0.01)
