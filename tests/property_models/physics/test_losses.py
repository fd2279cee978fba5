from dataclasses import fields

import numpy as np
import pytest
import torch
from ase.units import GPa

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from autoperi.networks.physics import PhysicsWeights
from property_models.physics.guidance import soft_species
from property_models.physics.losses import PhysicsLoss, hull_loss, loss_table
from property_models.potentials.hull import SoftHull
from property_models.potentials.potential import element_weights
from property_models.potentials.references import composition
from tests.autoperi.small import largest, tiny_model
from tests.prototypes import prototype

NAMES = ("NaCl", "ZnO wurtzite", "TiO2 rutile", "SiO2 quartz", "CaCO3 calcite")
TERMS = [f.name for f in fields(PhysicsWeights)]


@pytest.fixture(scope="module")
def batch() -> CrystalBatch:
    """Crystals off equilibrium: squeezed by 22% and with their atoms moved."""
    relaxed = CrystalBatch.from_crystals([symmetrise(prototype(name)) for name in NAMES])
    noise = torch.randn(relaxed.free.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coords = relaxed.lattice_coords.clone()
    coords[:, 5] -= 0.25
    return relaxed.with_geometry((relaxed.free + 0.02 * noise * relaxed.free_mask()) % 1.0, coords)


@pytest.fixture(scope="module")
def hull() -> SoftHull:
    return SoftHull(
        [{11: 1, 17: 1}, {30: 1, 8: 1}, {22: 1, 8: 2}, {14: 1, 8: 2}], np.array([-2, -1.8, -3.2, -3])
    )


@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_finite_differences(name, batch, hull, potential):
    """Of each loss, by s, by z and, through the decoder's soft species, by h; float64."""
    model = tiny_model(torch.float64)
    decoder, genes = model.autoencoder.decoder, batch.with_species(torch.zeros_like(batch.species))
    loss = PhysicsLoss(PhysicsWeights(**{name: 1.0}), potential, hull)
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(batch.n_sites, 3, generator=generator, dtype=torch.float64)
    point = (h, batch.free, decoder.scale.from_coords(batch.lattice_coords, batch))

    def evaluate(point):
        at = genes.with_geometry(point[1], decoder.scale.to_coords(point[2], genes))
        # sharp enough that a site has some elements and not all of them
        return loss(at, soft_species(25 * decoder(point, genes).logits, genes.species)).sum()

    leaves = tuple(x.clone().requires_grad_() for x in point)
    slopes = torch.autograd.grad(evaluate(leaves), leaves)
    masks = (torch.ones_like(h), batch.free_mask(), batch.lattice_mask())
    step = 1e-7
    for k, (slope, mask) in enumerate(zip(slopes, masks, strict=True)):
        way = torch.randn(slope.shape, generator=generator, dtype=torch.float64) * mask
        ends = [tuple(x + c * way if i == k else x for i, x in enumerate(point)) for c in (step, -step)]
        with torch.no_grad():
            up, down = (evaluate(end) for end in ends)
        expected = float(up - down) / (2 * step)
        assert abs(expected) > 1e-4
        assert abs(float((slope * way).sum()) - expected) < 1e-5 * abs(expected) + 1e-6


def test_terms_measure_what_they_say(batch, hull, potential):
    """Against figures computed from the potential's answer for every atom; weights sum them."""
    species = element_weights(batch)
    weights = PhysicsWeights(hull=0.5, force=1, stress=2, pressure=3, barrier=4)
    loss = PhysicsLoss(weights, potential, hull)
    terms = loss.terms(batch, species)
    with torch.no_grad():
        found = potential(batch)
    assert largest(terms["stress"] - found.stress.norm(dim=(1, 2))) < 2e-3
    squeezed = -found.stress.diagonal(dim1=1, dim2=2).mean(-1)
    assert float(squeezed.min()) / GPa > 10
    assert largest(terms["pressure"] - squeezed) < 2e-3
    for c in range(batch.n_crystals):
        own = batch.crystal == c
        per_atom = found.forces[own].norm(dim=-1).repeat_interleave(batch.multiplicity()[own])
        assert largest(terms["force"][c] - per_atom.square().mean().sqrt()) < 2e-3
    assert float(terms["hull"].detach().min()) > 0.5
    total = sum(getattr(weights, name) * value for name, value in terms.items())
    assert largest(loss(batch, species) - total) < 1e-12


def test_stable_crystals_cost_nothing(hull, potential):
    """Rock salt and wurtzite as measured lie within 0.1 eV/atom of their hull, which a margin forgives."""
    batch = CrystalBatch.from_crystals([symmetrise(prototype(name)) for name in NAMES[:2]])
    species = element_weights(batch)
    with torch.no_grad():
        energy, fractions = potential.energy(batch, species), composition(batch, species)
        assert largest(hull_loss(energy, fractions, hull)) < 0.1
        assert largest(hull_loss(energy, fractions, hull, margin=0.1)) == 0
        assert float(PhysicsLoss(PhysicsWeights(barrier=1.0))(batch, species).max()) == 0


def test_crystals_at_rest_have_a_gradient(potential):
    """No force by symmetry: the norm is zero and its gradient is finite, not 0/0."""
    batch = CrystalBatch.from_crystals([symmetrise(prototype("NaCl"))])
    coords = batch.lattice_coords.clone().requires_grad_()
    loss = PhysicsLoss(PhysicsWeights(force=1.0), potential)
    value = loss(batch.with_geometry(batch.free, coords), element_weights(batch)).sum()
    (slope,) = torch.autograd.grad(value, coords)
    assert float(value) < 1e-6
    assert bool(torch.isfinite(slope).all())


def test_says_what_is_missing(potential):
    with pytest.raises(ValueError, match="expected a potential"):
        PhysicsLoss(PhysicsWeights(force=1.0))
    with pytest.raises(ValueError, match="expected a hull"):
        PhysicsLoss(PhysicsWeights(hull=1.0), potential)


def test_table_of_finished_crystals_has_the_losses(batch, hull, potential):
    """Energies above the hull are hinged by the loss alone; the floor is the hull's energy."""
    table = loss_table(batch.to_crystals(), potential, hull)
    loss = PhysicsLoss(PhysicsWeights(hull=1.0, force=1.0, stress=1.0), potential, hull)
    terms = loss.terms(batch, element_weights(batch))
    assert np.allclose(table["e_hull"].clip(0), terms["hull"].detach().numpy(), atol=1e-6)
    for name in ("force", "stress"):
        assert np.allclose(table[name], terms[name].detach().numpy(), atol=1e-6)
    assert table["e_hull"].median() > 0
    assert np.allclose(table["floor"], hull(composition(batch, element_weights(batch)).double()).numpy())
