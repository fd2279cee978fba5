"""Rigid bodies on a surface: they touch, stay rigid, and find the place and orientation of least energy."""

from dataclasses import dataclass

import numpy as np
import pytest
from ase.data import covalent_radii
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from autoperi.discovery.surfaces.adsorbates import Adsorbate
from autoperi.discovery.surfaces.placement import (
    Placement,
    basins_first,
    by_sites,
    random_placements,
    rigidly_descended,
)
from autoperi.discovery.surfaces.slabs import slab_for_molecules, standing
from evaluation.relaxation.chgnet import CHGNET, chgnet
from evaluation.relaxation.potential import BatchRelaxer, Forces
from tests.prototypes import prototype

WATER = Adsorbate(
    "H2O", np.array([8, 1, 1]), np.array([[0, 0, 0.07], [0, 0.77, -0.53], [0, -0.77, -0.53]]), -14.8
)
SLAB = standing(slab_for_molecules(prototype("Cu fcc"), (1, 1, 1)))


@dataclass
class _Springs:
    """Holds every atom of the molecule at a point of its own."""

    points: np.ndarray
    batch_sites = 8
    cutoff = 5.0

    def graph(self, *arguments):
        return chgnet().graph(*arguments)

    def as_it_stands(self, structure):
        return chgnet().as_it_stands(structure)

    def __call__(self, _, positions, *__):
        off = np.stack(positions)[:, -len(self.points) :] - self.points
        gradients = np.zeros((len(positions), len(positions[0]), 3))
        gradients[:, -len(self.points) :] = 2 * off
        energies = (off**2).sum(axis=(1, 2))
        return Forces(energies, gradients.reshape(-1, 3), np.zeros((len(positions), 3, 3)))


def test_a_rigid_body_finds_place_and_orientation():
    """Springs that a turned and displaced molecule would not stretch: their energy falls to zero."""
    goal = Rotation.from_rotvec([0.4, -0.9, 0.7])
    points = goal.apply(WATER.positions) + np.array([1.0, 2.0, 9.0])
    springs = BatchRelaxer("springs", "ase", lambda _: _Springs(points), CHGNET.references)
    starts = random_placements(SLAB, WATER, 5, seed=0)
    found = rigidly_descended(SLAB, WATER, starts, springs, max_steps=300)
    assert len(found) == 5
    for placement in found[:4]:  # the fifth comes to rest on a saddle, turned by 180°
        assert placement.energy < 0.01
        assert placement.centre == pytest.approx([1.0, 2.0, 9.0], abs=0.05)
        assert placement.positions(WATER) == pytest.approx(points, abs=0.1)
    assert [p.energy for p in found] == sorted(p.energy for p in found)


def test_a_molecule_descends_without_changing_shape():
    starts = random_placements(SLAB, WATER, 3, seed=1)
    still = rigidly_descended(SLAB, WATER, starts, CHGNET, max_steps=0)
    found = rigidly_descended(SLAB, WATER, starts, CHGNET, max_steps=25)
    assert found[0].energy < still[0].energy
    for placement in found:
        cart = placement.positions(WATER)
        apart = np.linalg.norm(cart[:, None] - cart, axis=-1)
        assert apart == pytest.approx(np.linalg.norm(WATER.positions[:, None] - WATER.positions, axis=-1))
    alone = [rigidly_descended(SLAB, WATER, [start], CHGNET, max_steps=25)[0].energy for start in starts]
    assert sorted(alone) == pytest.approx([p.energy for p in found], abs=1e-4)


@pytest.mark.parametrize("place", [random_placements, by_sites])
def test_starts_touch_the_surface_from_above(place):
    radii = covalent_radii[WATER.numbers][:, None] + covalent_radii[29]
    for start in place(SLAB, WATER, 6, 0):
        frac = SLAB.lattice.get_fractional_coords(start.positions(WATER))
        closest = (SLAB.lattice.get_all_distances(frac, SLAB.frac_coords) / radii).min()
        assert 1.2 <= closest < 1.35
        assert start.centre[2] > SLAB.cart_coords[:, 2].max()
    assert len({tuple(s.centre.round(6)) for s in place(SLAB, WATER, 6, 0)}) > 2
    again, other = place(SLAB, WATER, 6, 0), place(SLAB, WATER, 6, 1)
    first = place(SLAB, WATER, 6, 0)[0].positions(WATER)
    assert np.array_equal(again[0].positions(WATER), first)
    assert not np.allclose(other[0].positions(WATER), first)


def test_places_are_uniform_over_the_cell():
    flat = Structure(Lattice.orthorhombic(4, 6, 20), ["Cu"], [[0, 0, 0.1]])
    centres = np.stack([p.centre for p in random_placements(flat, WATER, 400, seed=0)])
    for axis, length in ((0, 4), (1, 6)):
        counts, _ = np.histogram(centres[:, axis], bins=4, range=(0, length))
        assert counts.min() > 70


def test_what_lies_in_one_basin_comes_once_before_the_others():
    """Water upright on an atom, and on the next one with its hydrogens exchanged; then farther up."""
    flip, nowhere = Rotation.from_rotvec([0, 0, np.pi]), Rotation.identity()
    top = SLAB.cart_coords[SLAB.frac_coords[:, 2] > SLAB.frac_coords[:, 2].max() - 1e-3]
    up = np.array([0, 0, 2.2])
    placed = [
        Placement(top[0] + up, nowhere, -2.0),
        Placement(top[1] + up, flip, -1.9),
        Placement(top[0] + 1.5 * up, nowhere, -1.0),
    ]
    assert [p.energy for p in basins_first(SLAB, WATER, placed)] == [-2.0, -1.0, -1.9]
