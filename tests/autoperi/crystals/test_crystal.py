"""Crystals one by one and in batches."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from tests.prototypes import random_crystal

GROUPS = [1, 2, 12, 62, 139, 166, 194, 225]


@pytest.fixture(scope="module")
def crystals():
    return [random_crystal(group, 1) for group in GROUPS]


def test_batch_and_back(crystals):
    back = CrystalBatch.from_crystals(crystals).to_crystals()
    for a, b in zip(crystals, back, strict=True):
        assert (a.space_group, a.letters) == (b.space_group, b.letters)
        np.testing.assert_array_equal(a.free, b.free)
        np.testing.assert_array_equal(a.lattice_coords, b.lattice_coords)


def test_batch_equals_single(crystals):
    """A crystal does not depend on its company."""
    batch = CrystalBatch.from_crystals(crystals)
    atoms = batch.atoms()
    positions = atoms.positions(batch.site_positions())
    for i, crystal in enumerate(crystals):
        lattice, frac, species = crystal.expand()
        np.testing.assert_allclose(batch.lattice()[i], lattice, atol=1e-12)
        np.testing.assert_allclose(positions[atoms.crystal == i], frac, atol=1e-12)
        np.testing.assert_array_equal(batch.species[atoms.site][atoms.crystal == i], species)
        assert int(batch.n_atoms()[i]) == crystal.n_atoms == len(species)


def test_first_atom_of_an_orbit_is_the_site(crystals):
    batch = CrystalBatch.from_crystals(crystals)
    atoms = batch.atoms()
    positions = atoms.positions(batch.site_positions())
    torch.testing.assert_close(positions[atoms.first], batch.site_positions())


def test_no_gradient_from_one_crystal_to_another(crystals):
    batch = CrystalBatch.from_crystals(crystals)
    free = batch.free.clone().requires_grad_()
    moved = batch.with_geometry(free, batch.lattice_coords)
    atoms = moved.atoms()
    atoms.positions(moved.site_positions())[atoms.crystal == 0].square().sum().backward()
    assert free.grad is not None
    assert free.grad[batch.crystal == 0].abs().sum() > 0
    assert free.grad[batch.crystal != 0].abs().sum() == 0


def test_masks_count_what_is_free(crystals):
    batch = CrystalBatch.from_crystals(crystals)
    sums = torch.zeros(len(crystals)).index_add(0, batch.crystal, batch.free_mask().sum(1).float())
    assert sums.int().tolist() == [c.n_free for c in crystals]


def test_precision_changes_geometry_only(crystals):
    batch = CrystalBatch.from_crystals(crystals).to(dtype=torch.float32)
    assert batch.free.dtype == batch.lattice().dtype == torch.float32
    assert batch.wyckoff.dtype == torch.int64


def test_prototypes_are_described(prototypes):
    crystal = symmetrise(prototypes["NaCl"])
    assert (crystal.gene, crystal.formula, crystal.n_atoms, crystal.n_free) == ("225:ab", "NaCl", 2, 0)
    spinel = symmetrise(prototypes["MgAl2O4 spinel"])
    assert (spinel.space_group, spinel.formula, spinel.n_sites, spinel.n_free) == (227, "MgAl2O4", 3, 1)


def test_pymatgen_and_ase_agree(prototypes):
    crystal = symmetrise(prototypes["TiO2 rutile"])
    structure, atoms = crystal.to_structure(), crystal.to_ase()
    assert structure.volume == pytest.approx(atoms.cell.volume)
    assert structure.volume == pytest.approx(prototypes["TiO2 rutile"].volume, rel=1e-6)
    assert list(structure.atomic_numbers) == atoms.numbers.tolist()


def test_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one crystal"):
        CrystalBatch.from_crystals([])


def test_crystal_properties_do_not_leak_between_instances():
    empty = np.zeros(0, int)
    a = Crystal(1, empty, empty, np.zeros((0, 3)), np.zeros(6))
    b = Crystal(1, empty, empty, np.zeros((0, 3)), np.zeros(6))
    assert a.properties is not b.properties


def test_crystals_are_compared_hashed_copied_and_pickled(crystals):
    """Equal are those that are equal in every field; a set holds each once."""
    for crystal in crystals:
        for made in (copy.copy(crystal), copy.deepcopy(crystal), pickle.loads(pickle.dumps(crystal))):
            assert made == crystal
            assert hash(made) == hash(crystal)
        others = {
            "id": "another",
            "space_group": 3,
            "species": crystal.species + 1,
            "lattice_coords": crystal.lattice_coords + 1e-12,
            "properties": {"band_gap": 1.0},
            "provenance": {"seed": 1},
        }
        assert all(replace(crystal, **{name: value}) != crystal for name, value in others.items())
        assert crystal != "crystal"
    assert len({*crystals, *copy.deepcopy(crystals)}) == len(crystals)
