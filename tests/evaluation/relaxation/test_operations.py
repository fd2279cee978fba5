import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure

from evaluation.facts.symmetry import space_group
from evaluation.relaxation.operations import Operations, Projection, symmetric_crystal
from tests.evaluation.crystals import disguised, rocksalt, zoo


def parts(crystal):
    return np.array(crystal.lattice.matrix), crystal.frac_coords, np.array(crystal.atomic_numbers)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 5), st.integers(0, 1000))
def test_a_noisy_crystal_is_brought_back_onto_its_own_symmetry(which, seed):
    crystal = disguised(zoo()[which], seed)
    rng = np.random.default_rng(seed)
    cell, frac, numbers = parts(crystal)
    noisy = frac + rng.normal(scale=1e-3, size=frac.shape) @ np.linalg.inv(cell)
    strained = cell + rng.normal(scale=1e-3, size=(3, 3))
    exact = symmetric_crystal(strained, noisy, numbers, symprec=0.02)
    assert np.linalg.det(exact.cell) / len(exact.frac) == pytest.approx(
        abs(np.linalg.det(strained)) / len(frac), rel=1e-2
    )
    found = space_group(Structure(exact.cell, exact.numbers, exact.frac), symprec=1e-5)
    assert found == space_group(Structure(strained, crystal.species, noisy), symprec=0.02)
    turns = exact.operations.cartesian(exact.cell)
    assert turns @ turns.transpose(0, 2, 1) == pytest.approx(
        np.broadcast_to(np.eye(3), turns.shape), abs=1e-9
    )


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 5), st.integers(0, 1000))
def test_the_projection_is_one(which, seed):
    """P² = P, and what is projected is left alone by every operation."""
    exact = symmetric_crystal(*parts(disguised(zoo()[which], seed)), symprec=0.01)
    projection = Projection(exact.operations.images, exact.operations.cartesian(exact.cell))
    rng = np.random.default_rng(seed)
    vectors = projection.vectors(rng.normal(size=exact.frac.shape))
    assert projection.vectors(vectors) == pytest.approx(vectors, abs=1e-10)
    for image, turn in zip(exact.operations.images, projection.turns, strict=True):
        assert vectors[image] == pytest.approx(vectors @ turn, abs=1e-10)
    tensor = projection.tensor(rng.normal(size=(3, 3)))
    for turn in projection.turns:
        assert turn.T @ tensor @ turn == pytest.approx(tensor, abs=1e-10)


def test_the_identity_changes_nothing():
    vectors = np.arange(12.0).reshape(4, 3)
    projection = Projection(Operations.identity(4).images, np.eye(3)[None])
    assert (projection.vectors(vectors) == vectors).all()


def test_cell_and_order_stay_unless_the_shape_breaks_the_point_group():
    cell, frac, numbers = parts(rocksalt())
    kept = symmetric_crystal(cell, frac, numbers, 0.01)
    assert kept.cell == pytest.approx(cell)
    assert kept.frac == pytest.approx(frac)
    assert len(kept.operations) == 192
    doubled = rocksalt().make_supercell([1, 1, 2], in_place=False)
    reduced = symmetric_crystal(*parts(doubled), 0.01)
    assert len(reduced.numbers) == 2
    assert len(reduced.operations) == 48


def test_nonsense_is_named():
    with pytest.raises(ValueError, match="symprec"):
        symmetric_crystal(np.zeros((3, 3)), np.zeros((1, 3)), np.array([1]), 0.01)
