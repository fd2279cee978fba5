import contextlib
import io

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from ase.units import GPa
from chgnet.model.model import CHGNet

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from property_models.potentials.chgnet_potential import CHGNetPotential
from property_models.potentials.potential import atom_forces, element_weights
from tests.autoperi.small import largest, small_batch, without_symmetry
from tests.prototypes import prototype, random_crystal

SOME = ("NaCl", "ZnO wurtzite", "TiO2 rutile", "SiO2 quartz", "Al2O3 corundum", "Bi2Te3", "Cu2O cuprite")
FEW = (2, 15, 62, 166, 176, 225)


@pytest.fixture(scope="module")
def batch() -> CrystalBatch:
    return small_batch(FEW, sites=2, max_atoms=8)


def some_weights(batch: CrystalBatch, seed: int = 0) -> torch.Tensor:
    """Every site a mixture, mostly of its own species."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch.n_sites, 94, generator=generator, dtype=torch.float64)
    return (logits + 6 * element_weights(batch)).softmax(-1)


def test_is_what_chgnet_predicts(potential):
    """Energy to 1e-5 eV/atom, forces and stress to the rounding of float32, in every kind of group."""
    crystals = [symmetrise(prototype(name)) for name in SOME]
    crystals += [random_crystal(g, 0) for g in (5, 152)]
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = CHGNet.load(use_device="cpu", verbose=False)
    expected = theirs.predict_structure([c.to_structure() for c in crystals], task="efs")
    batch = CrystalBatch.from_crystals(crystals)
    with torch.no_grad():
        found = potential(batch)
    forces = atom_forces(batch, found.forces).split(batch.n_atoms().tolist())
    for k, answer in enumerate(expected):
        scale = 1 + np.abs(answer["f"]).max()
        assert abs(float(answer["e"]) - float(found.energy[k])) < (1e-5 if k < len(SOME) else 3e-5)
        assert np.abs(answer["f"] - forces[k].numpy()).max() < 5e-5 * scale
        assert np.abs(answer["s"] - found.stress[k].numpy() / GPa).max() < 1e-3


def test_symmetry_is_made_use_of_without_loss(potential, batch):
    """A crystal on its sites is the same crystal on all of its atoms, soft species too."""
    full, turn = without_symmetry(batch)
    weights = some_weights(batch)
    with torch.no_grad():
        few, all_ = potential(batch, weights), potential(full, weights[batch.atoms().site])
    assert largest(few.energy - all_.energy) < 1e-9
    turned = torch.einsum("aij,aj->ai", turn[full.crystal], all_.forces)
    assert largest(atom_forces(batch, few.forces) - turned) < 1e-7
    assert largest(few.stress - turn @ all_.stress @ turn.transpose(-1, -2)) < 1e-7


def test_forces_and_stress_are_derivatives_of_the_energy(potential, batch):
    """-N dE/dx and (N/V) dE/dε along random symmetric moves and strains, by central differences."""
    generator = torch.Generator().manual_seed(0)
    ds = torch.randn(batch.free.shape, generator=generator, dtype=torch.float64) * batch.free_mask()
    dl = torch.randn(batch.lattice_coords.shape, generator=generator, dtype=torch.float64)
    dl = 0.1 * dl * batch.lattice_mask()
    h = 1e-7  # a straight line of atoms bends the energy within 1e-3 radians: see 1 - 1e-6 in the potential
    with torch.no_grad():
        found = potential(batch)
        moved = [
            potential.energy(batch.with_geometry(batch.free + k * ds, batch.lattice_coords)) for k in (h, -h)
        ]
        strained = [
            potential.energy(batch.with_geometry(batch.free, batch.lattice_coords + k * dl)) for k in (h, -h)
        ]
        cells = [batch.with_geometry(batch.free, batch.lattice_coords + k * dl).lattice() for k in (h, -h)]
    arrows = torch.einsum("sij,sj->si", batch.cartesian_basis(), ds)
    work = (found.forces * arrows).sum(-1) * batch.multiplicity()
    per_crystal = torch.zeros(batch.n_crystals).double().index_add(0, batch.crystal, work) / batch.n_atoms()
    assert largest(per_crystal) > 0.1
    assert largest((moved[0] - moved[1]) / (2 * h) + per_crystal) < 1e-6 * largest(per_crystal)
    strain = torch.linalg.solve(batch.lattice(), (cells[0] - cells[1]) / (2 * h))
    volume = torch.linalg.det(batch.lattice()).abs()
    expected = (found.stress * strain).sum((1, 2)) * volume / batch.n_atoms()
    assert largest(expected) > 0.1
    assert largest((strained[0] - strained[1]) / (2 * h) - expected) < 1e-6 * largest(expected)


def test_gradient_of_the_species(potential, batch):
    """dE/dp by autograd is dE/dp by central differences, for mixtures of elements."""
    weights = some_weights(batch).requires_grad_()
    direction = torch.randn(weights.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (slope,) = torch.autograd.grad(potential.energy(batch, weights).sum(), weights)
    h = 1e-6
    with torch.no_grad():
        up, down = (potential.energy(batch, weights + k * direction).sum() for k in (h, -h))
    expected = float((slope * direction).sum())
    assert abs(float(up - down) / (2 * h) - expected) < 1e-6 * abs(expected)


def test_no_crystal_feels_another(potential, batch):
    """Batched is single, and the gradient of one crystal's energy by the others is zero."""
    with torch.no_grad():
        together = potential(batch)
        for c in range(batch.n_crystals):
            alone = potential(batch.select(torch.tensor([c])))
            assert largest(together.energy[c] - alone.energy) < 1e-10
            assert largest(together.forces[batch.crystal == c] - alone.forces) < 1e-8
            assert largest(together.stress[c] - alone.stress) < 1e-8
    free = batch.free.clone().requires_grad_()
    energy = potential.energy(batch.with_geometry(free, batch.lattice_coords))
    (slope,) = torch.autograd.grad(energy[2], free)
    assert largest(slope[batch.crystal == 2]) > 0
    assert largest(slope[batch.crystal != 2]) == 0


def test_an_atom_alone_has_the_energy_of_its_element(potential):
    """No neighbours: finite energy, no force, no stress."""
    lone = CrystalBatch.from_crystals(
        [Crystal.without_symmetry(np.eye(3) * 20, np.zeros((1, 3)), np.array([18]))]
    )
    found = potential(lone)
    assert bool(torch.isfinite(found.energy).all())
    assert largest(found.forces) == 0
    assert largest(found.stress) == 0


def test_refuses_what_it_does_not_know(potential, batch):
    with pytest.raises(ValueError, match=r"from 1 to 94: got \[0\]"):
        potential.energy(batch.with_species(torch.zeros_like(batch.species)))
    with pytest.raises(ValueError, match="expected weights of shape"):
        potential.energy(batch, torch.ones(batch.n_sites, 101))


def test_single_precision_is_enough(batch):
    """The potential as it is used by default differs from float64 by rounding; symbols match columns."""
    single = CHGNetPotential()
    with torch.no_grad():
        assert largest(single.energy(batch) - single.double().energy(batch)) < 1e-4
    assert (
        chemical_symbols[int(element_weights(batch)[0].argmax()) + 1]
        == chemical_symbols[int(batch.species[0])]
    )
