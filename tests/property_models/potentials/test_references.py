import numpy as np
import torch

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from property_models.potentials.potential import element_weights
from property_models.potentials.references import composition, element_references, fit_references
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


def test_fit_finds_the_references_that_made_the_labels():
    """Exact labels give the references back where there is data, and the prior where there is none."""
    rng = np.random.default_rng(0)
    fractions = np.zeros((500, 94))
    fractions[:, :4] = rng.dirichlet(np.ones(4), 500)
    true, prior = rng.normal(size=94), np.full(94, -3.0)
    labels = rng.normal(size=500)
    fitted = fit_references(fractions, labels + fractions @ true, labels, prior)
    assert np.abs(fitted[:4] - true[:4]).max() < 0.01
    assert np.abs(fitted[4:] + 3.0).max() < 1e-12
