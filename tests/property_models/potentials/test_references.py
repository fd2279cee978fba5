import pytest
import torch
from ase.data import chemical_symbols

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from autoperi.data.element_references import ElementReferences
from property_models.potentials.potential import element_weights
from property_models.potentials.references import composition, element_references
from tests.autoperi.small import largest
from tests.prototypes import prototype

# Materials Project, eV/atom
FORMATION = {"NaCl": -2.10, "TiO2 rutile": -3.47, "Al2O3 corundum": -3.44, "SrTiO3 perovskite": -3.55}


def test_formation_energies_of_known_crystals(potential):
    """CHGNet's energies minus the references, against the Materials Project to 0.1 eV/atom."""
    batch = CrystalBatch.from_crystals([symmetrise(prototype(name)) for name in FORMATION])
    weights = element_weights(batch)
    with torch.no_grad():
        found = potential.energy(batch) - composition(batch, weights) @ element_references()
    assert largest(found - torch.tensor(list(FORMATION.values())).double()) < 0.1


def test_composition_counts_atoms():
    batch = CrystalBatch.from_crystals([symmetrise(prototype("Al2O3 corundum"))])
    found = composition(batch, element_weights(batch))[0]
    assert largest(found[[12, 7]] - torch.tensor([0.4, 0.6], dtype=torch.float64)) < 1e-12
    assert largest(found.sum() - 1) < 1e-12


def test_both_rooms_have_one_set_of_references(potential):
    """A crystal's formation energy is the same number to the losses and to the judge."""
    crystals = {name: symmetrise(prototype(name)) for name in FORMATION}
    batch = CrystalBatch.from_crystals(list(crystals.values()))
    with torch.no_grad():
        energies = potential.energy(batch)
        ours = energies - composition(batch, element_weights(batch)) @ element_references()
    judge = ElementReferences.load()
    for crystal, energy, found in zip(crystals.values(), energies.tolist(), ours.tolist(), strict=True):
        assert judge.formation_energy(crystal.formula, energy) == pytest.approx(found, abs=1e-9)


def test_elements_without_a_reference_stand_at_zero():
    assert [chemical_symbols[i + 1] for i in torch.where(element_references() == 0)[0].tolist()] == [
        *("Ne", "Po", "At", "Rn", "Fr", "Ra")
    ]
