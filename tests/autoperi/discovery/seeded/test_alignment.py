from dataclasses import replace

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.symmetry import symmetrise
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.discovery.seeded.alignment import aligned
from autoperi.discovery.seeded.normalizer import aligned_in_gene, group_operations
from tests.autoperi.small import SOME_GROUPS, small_crystal
from tests.prototypes import prototype


def seen_otherwise(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """The same crystal turned, shifted, in another cell, its atoms in another order, symmetrised again."""
    lattice, frac, species = crystal.expand()
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(len(frac))
    cell = Lattice(lattice @ turn * np.sign(np.linalg.det(turn)))
    structure = Structure(cell, species[order], frac[order] + rng.random(3))
    structure.make_supercell([[1, 1, 0], [0, 1, 0], [0, 1, 1]])
    return symmetrise(structure)


@pytest.mark.parametrize("group", SOME_GROUPS)
def test_a_crystal_is_found_in_itself_however_it_is_described(group):
    """In all families, polar, chiral and centred groups."""
    crystal = small_crystal(group, 3)
    other = seen_otherwise(crystal, np.random.default_rng(group))
    one = seen_otherwise(crystal, np.random.default_rng(group + 1000))
    found = aligned(one, other)
    assert found.cost < 1e-8
    assert found.operations == len(group_operations(one.space_group)[0])
    assert sorted(found.atoms) == list(range(one.n_atoms))
    assert (other.expand()[2][found.atoms] == one.expand()[2]).all()


@pytest.mark.parametrize("group", SOME_GROUPS)
def test_crystals_of_one_gene_are_joined_under_it(group):
    """Other coordinates, other elements; the end that is told is the other crystal."""
    table = wyckoff_table()
    first = small_crystal(group, 3)
    rng = np.random.default_rng(group)
    dims = table.dim.numpy()[first.wyckoff]
    move = np.where(np.arange(3) < dims[:, None], rng.random(first.free.shape), 0.0)
    second = replace(first, free=(first.free + 0.03 * move) % 1, species=first.species[::-1].copy())
    other = seen_otherwise(second, rng)
    if other.gene != first.gene:
        pytest.skip("the elements put the other way round have more symmetry")
    found = aligned_in_gene(first, other)
    assert found is not None
    _, frac, _ = first.expand()
    end = Structure(Lattice(found.lattice), other.expand()[2][found.atoms], frac + found.moves)
    assert StructureMatcher(scale=False).fit(end, other.to_structure())
    for turn, shift in zip(*group_operations(first.space_group), strict=True):
        for share in (0.3, 1.0):
            moved = frac + share * found.moves
            gap = (moved @ turn.T + shift)[:, None] - moved[None]
            assert np.abs(gap - gap.round()).max(axis=-1).min(axis=1).max() < 1e-8
        metric = found.lattice @ found.lattice.T
        assert np.abs(turn.T @ metric @ turn - metric).max() < 1e-8 * metric.max()


def test_rocksalt_and_caesium_chloride_share_a_rhombohedral_group():
    """Buerger's way: R-3m, twelve operations, no atom moves against the cell."""
    found = aligned(symmetrise(prototype("NaCl")), symmetrise(prototype("CsCl")))
    assert found.operations == 12
    assert np.abs(found.moves).max() < 1e-9


def test_a_distorted_crystal_keeps_what_it_has():
    """A tetragonal perovskite against the cubic one: all operations of the tetragonal one."""
    cubic = symmetrise(prototype("SrTiO3 perovskite"))
    lattice, frac, species = cubic.expand()
    moved = frac + np.where(species == 22, 0.02, 0.0)[:, None] * [0, 0, 1]
    tetragonal = symmetrise(Structure(Lattice(lattice * [1, 1, 1.02]), species, moved))
    assert tetragonal.space_group == 99
    assert aligned(tetragonal, cubic).operations == 8 == aligned(cubic, tetragonal).operations


def test_primitive_cells_of_other_sizes_are_refused():
    """With both numbers of atoms."""
    with pytest.raises(ValueError, match=r"NaCl with 2 and SrTiO3 with 5.*supercell"):
        aligned(symmetrise(prototype("NaCl")), symmetrise(prototype("SrTiO3 perovskite")))
