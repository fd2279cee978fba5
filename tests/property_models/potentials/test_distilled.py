"""Our own potential: exact symmetry, true gradients, learning from a teacher; any potential inside ASE."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from autoperi.networks.checkpoint import CheckpointError
from autoperi.training.fit import FitConfig
from property_models.potentials.calculator import PotentialCalculator
from property_models.potentials.distillation import (
    Configurations,
    Disturbance,
    atomic_fractions,
    distil,
    disturbed,
    imitation_errors,
)
from property_models.potentials.distilled import DistilledConfig, DistilledPotential, load, save
from property_models.potentials.potential import atom_forces
from tests.autoperi.small import largest, small_batch, without_symmetry

TINY = DistilledConfig(width=8, layers=2, radial=4, cutoff=4.0)


@pytest.fixture(scope="module")
def pupil() -> DistilledPotential:
    torch.manual_seed(0)
    return DistilledPotential(TINY).double().eval()


@pytest.fixture(scope="module")
def batch() -> CrystalBatch:
    return small_batch((2, 15, 62, 166, 176, 225), sites=2, max_atoms=8)


def test_sites_alone_are_all_atoms(pupil, batch):
    full, turn = without_symmetry(batch)
    with torch.no_grad():
        few, everything = pupil(batch), pupil(full)
    assert largest(few.energy - everything.energy) < 1e-10
    turned = torch.einsum("aij,aj->ai", turn[full.crystal], everything.forces)
    assert largest(atom_forces(batch, few.forces) - turned) < 1e-9
    assert largest(few.stress - turn @ everything.stress @ turn.transpose(-1, -2)) < 1e-9
    assert largest(few.forces) > 1e-3


def test_energy_is_minus_the_work_of_the_forces(pupil, batch):
    """Simpson's rule along a straight way of all free coordinates and the cell: ΔE = -∫F·dx + ∫V σ:dε."""
    generator = torch.Generator().manual_seed(1)
    ds = 0.02 * torch.randn(batch.free.shape, generator=generator, dtype=torch.float64) * batch.free_mask()
    dl = 0.01 * torch.randn(batch.lattice_coords.shape, generator=generator, dtype=torch.float64)
    dl = dl * batch.lattice_mask()
    steps = 16
    work = torch.zeros(batch.n_crystals, dtype=torch.float64)
    energies = []
    for k in range(steps + 1):
        here = batch.with_geometry(batch.free + k / steps * ds, batch.lattice_coords + k / steps * dl)
        free, coords = here.free.requires_grad_(), here.lattice_coords.requires_grad_()
        energy = pupil.energy(here)
        slopes = torch.autograd.grad(energy.sum(), (free, coords))
        along = (slopes[1] * dl).sum(1).index_add(0, batch.crystal, (slopes[0] * ds).sum(1))
        work += along * (1 if k in (0, steps) else 4 if k % 2 else 2) / (3 * steps)
        energies.append(energy.detach())
    assert largest(energies[-1] - energies[0]) > 1e-4
    assert largest(energies[-1] - energies[0] - work) < 1e-8


def test_forces_are_gradients(pupil, batch):
    generator = torch.Generator().manual_seed(0)
    ds = torch.randn(batch.free.shape, generator=generator, dtype=torch.float64) * batch.free_mask()
    arrows = torch.einsum("sij,sj->si", batch.cartesian_basis(), ds)
    with torch.no_grad():
        forces = pupil(batch).forces
        up, down = (
            pupil.energy(batch.with_geometry(batch.free + h * ds, batch.lattice_coords))
            for h in (1e-6, -1e-6)
        )
    work = (forces * arrows).sum(-1) * batch.multiplicity()
    expected = torch.zeros(batch.n_crystals).double().index_add(0, batch.crystal, work) / batch.n_atoms()
    assert largest((up - down) / 2e-6 + expected) < 1e-7


def test_far_atoms_are_not_felt(pupil):
    """An energy reaches two neighbours of a chain, a force four: what lies further changes nothing."""
    chain = Atoms("CuAu6", positions=[[0, 0, 2.5 * k] for k in range(7)], pbc=False)
    other = Atoms("CuAu5Ag", positions=chain.positions, pbc=False)
    felt, unfelt = ([], [])
    for atoms in (chain, other):
        atoms.calc = PotentialCalculator(pupil)
        forces = atoms.get_forces()
        unfelt.append(forces[0])
        felt.append(forces[4])
    assert largest(torch.from_numpy(unfelt[0] - unfelt[1])) < 1e-9
    assert largest(torch.from_numpy(felt[0] - felt[1])) > 1e-6


def test_a_deepened_potential_is_the_same_and_can_learn(pupil, batch):
    deeper = pupil.deepened(4).double()
    one, two = pupil(batch), deeper(batch)
    assert largest(one.energy - two.energy) < 1e-12
    assert largest(one.forces - two.forces) < 1e-12
    two.energy.sum().backward()
    added = deeper.convolution.layers[3]
    assert any(p.grad is not None and bool(p.grad.any()) for p in added.parameters())


def test_disturbed_crystals_stay_near_and_repeat():
    crystals = small_batch((62, 225)).to_crystals()
    drawn = disturbed(crystals, 40, 3)
    assert [c.gene for c in disturbed(crystals, 10, 3)] == [c.gene for c in drawn[:10]]
    for late, whole in zip(disturbed(crystals, 4, 3, first=20), drawn[20:24], strict=True):
        assert np.array_equal(late.free, whole.free)
    kept = [c for c in drawn if c.space_group != 1]
    assert 10 < len(kept) < 30
    assert {c.space_group for c in kept} == {62, 225}
    still = disturbed(
        crystals, 20, 3, Disturbance(rattled=0.0, displacement=0.0, strain=0.0, substituted=0.0)
    )
    for crystal in still:
        (same,) = [c for c in crystals if c.space_group == crystal.space_group]
        assert np.allclose(crystal.free, same.free)
        assert np.allclose(crystal.lattice_coords, same.lattice_coords)
    other = disturbed(crystals, 20, 3, Disturbance(substituted=1.0))
    assert sum(set(c.species) != set(crystals[0].species) for c in other) > 10


def test_a_pupil_learns_and_goes_on(tmp_path):
    """Errors fall on configurations it has not seen, and a finished run is taken as it is."""
    torch.manual_seed(5)
    teacher = DistilledPotential(TINY).eval()
    teacher.scale.fill_(0.5)
    crystals = small_batch((62, 225, 166), sites=2, max_atoms=8).to_crystals()
    how = Disturbance(displacement=0.1, substituted=0.0)
    train, val = (
        Configurations.labelled(disturbed(crystals, n, seed, how), teacher, progress=False)
        for n, seed in ((64, 0), (16, 1))
    )
    train.save(tmp_path / "train.safetensors")
    again = Configurations.read(tmp_path / "train.safetensors")
    assert all(torch.equal(getattr(again, n), getattr(train, n)) for n in ("energy", "forces", "stress"))
    fitting = FitConfig(epochs=12, cooldown=6, batch_size=8, lr=1e-2, warmup=2, ema=0.9)
    pupil = distil(again, val, tmp_path / "run", fitting, TINY)
    before = DistilledPotential(TINY)
    before.standardise(atomic_fractions(train.crystals), train.energy, train.forces)
    with torch.no_grad():
        old, new = (imitation_errors(p(val.crystals), val) for p in (before, pupil))
    assert float(new["force"]) < 0.8 * float(old["force"])
    assert float(new["energy"]) < 0.8 * float(old["energy"])
    resumed = distil(again, val, tmp_path / "run", fitting, TINY)
    assert all(torch.equal(a, b) for a, b in zip(pupil.parameters(), resumed.parameters(), strict=True))


def test_what_was_saved_is_what_is_loaded(pupil, batch, tmp_path):
    """To the rounding of float16; a damaged file is refused."""
    save(pupil, tmp_path / "mine", {"teacher": "none"})
    again = load(tmp_path / "mine").double()
    assert again.config == TINY
    with torch.no_grad():
        assert torch.allclose(again(batch).energy, pupil(batch).energy, atol=1e-2)
    weights = tmp_path / "mine" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match="damaged"):
        load(tmp_path / "mine")


def test_the_shipped_potential_is_near_its_teacher(potential, prototypes):
    """Rattled textbook crystals: energies and forces of ours against CHGNet's."""
    ours, crystals = load(), [symmetrise(s) for s in prototypes.values()]
    crystals = [c for c in crystals if c.n_atoms <= 12]
    how = Disturbance(rattled=1.0, displacement=0.06, strain=0.02, substituted=0.0)
    truth = Configurations.labelled(disturbed(crystals, 60, 0, how), potential, progress=False)
    with torch.no_grad():
        errors = imitation_errors(ours(truth.crystals), truth)
    assert float(errors["energy"]) < 0.15
    assert float(errors["force"]) < 0.5 * float(truth.forces.abs().mean())


def test_wild_configurations_are_left_out(pupil):
    crystals = small_batch((62, 225)).to_crystals()
    found = Configurations.labelled(crystals, pupil, progress=False)
    broken = replace(
        found, forces=found.forces * torch.where(found.crystals.crystal == 0, torch.inf, 1.0)[:, None]
    )
    assert len(broken.within_force_limit()) == 1
    with pytest.raises(ValueError, match="forces below 10"):
        Configurations.joined([found.select(torch.tensor([], dtype=torch.long))])


def test_ase_reads_the_same_energies_forces_and_stresses(potential):
    """CHGNet in a turned cell, by finite differences of ASE's own."""
    atoms = bulk("ZnS", "zincblende", a=5.5)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell @ Rotation.from_rotvec([0.3, 0.2, 0.5]).as_matrix().T, scale_atoms=True)
    atoms.calc = PotentialCalculator(potential)
    h, forces, stress = 1e-4, atoms.get_forces(), atoms.get_stress(voigt=False)
    for axis in range(3):
        sides = []
        for sign in (h, -h):
            moved = atoms.copy()
            moved.positions[0, axis] += sign
            moved.calc = atoms.calc
            sides.append(moved.get_potential_energy())
        assert (sides[1] - sides[0]) / (2 * h) == pytest.approx(forces[0, axis], abs=1e-4)
    energies = []
    for sign in (h, -h):
        strained = atoms.copy()
        shear = np.eye(3) + sign * np.array([[1, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
        strained.set_cell(atoms.cell @ shear, scale_atoms=True)
        strained.calc = atoms.calc
        energies.append(strained.get_potential_energy())
    slope = (energies[0] - energies[1]) / (2 * h) / atoms.get_volume()
    assert slope == pytest.approx(stress[0, 0] + stress[0, 1], abs=1e-5)


def test_a_molecule_feels_no_images(pupil):
    water = molecule("H2O")
    calculator = PotentialCalculator(pupil)
    water.calc = calculator
    alone, forces = water.get_potential_energy(), water.get_forces()
    boxed = Atoms(water.numbers, water.positions, cell=[30, 31, 32], pbc=True, calculator=calculator)
    assert boxed.get_potential_energy() == pytest.approx(alone, abs=1e-10)
    assert boxed.get_forces() == pytest.approx(forces, abs=1e-10)
    slab = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]], cell=[2.5, 2.5, 3.0], pbc=(True, True, False))
    slab.calc = calculator
    thick = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]], cell=[2.5, 2.5, 50.0], pbc=True, calculator=calculator)
    assert slab.get_potential_energy() == pytest.approx(thick.get_potential_energy(), abs=1e-9)
    assert Crystal.without_symmetry(np.eye(3) * 4, np.zeros((1, 3)), np.array([11])).n_atoms == 1
