"""Lattice coordinates: invertible, rotation invariant, and constrained by the crystal family."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoperi.crystals.lattice import (
    VOLUME,
    constrain_lattice,
    coords_from_lattice,
    free_lattice_mask,
    lattice_from_coords,
    lattice_from_parameters,
    parameters_from_lattice,
)
from autoperi.crystals.wyckoff import FAMILIES

seeds = st.integers(0, 2**31)


def _coords(seed, n=4):
    generator = torch.Generator().manual_seed(seed)
    coords = 0.4 * torch.randn(n, 6, generator=generator, dtype=torch.float64)
    coords[:, VOLUME] += 1.6
    return coords


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_coordinates_and_cell_are_inverse(seed):
    coords = _coords(seed)
    assert torch.allclose(coords_from_lattice(lattice_from_coords(coords)), coords, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_rotation_changes_nothing(seed):
    coords = _coords(seed)
    q, _ = torch.linalg.qr(
        torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )
    assert torch.allclose(coords_from_lattice(lattice_from_coords(coords) @ q), coords, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_last_coordinate_is_the_volume(seed):
    coords = _coords(seed)
    volume = torch.linalg.det(lattice_from_coords(coords))
    assert torch.allclose(volume.log() / 3, coords[:, VOLUME])


@pytest.mark.parametrize("family", range(6))
def test_family_fixes_the_cell(family):
    """Free numbers and the equalities of lengths and angles of each family."""
    index = torch.full((4,), family)
    lengths, angles = parameters_from_lattice(lattice_from_coords(constrain_lattice(_coords(7), index)))
    a, b, c = lengths.T
    alpha, beta, gamma = (angles * 180 / math.pi).T
    assert free_lattice_mask(index).sum(1).tolist() == [[6, 4, 3, 2, 2, 1][family]] * 4
    if family > 1:
        assert torch.allclose(beta, torch.full_like(beta, 90))
    if family > 0:
        assert torch.allclose(alpha, torch.full_like(alpha, 90))
        assert torch.allclose(gamma, torch.full_like(gamma, 120 if FAMILIES[family] == "hexagonal" else 90))
    if family > 2:
        assert torch.allclose(a, b)
    if family == 5:
        assert torch.allclose(b, c)


def test_parameters_round_trip():
    lengths = torch.tensor([[3.0, 4.0, 5.5]], dtype=torch.float64)
    angles = torch.tensor([[70.0, 95.0, 110.0]], dtype=torch.float64).deg2rad()
    got = parameters_from_lattice(lattice_from_parameters(lengths, angles))
    assert torch.allclose(got[0], lengths)
    assert torch.allclose(got[1], angles)


def test_flat_cell_is_refused():
    with pytest.raises(ValueError, match="singular lattice"):
        coords_from_lattice(torch.ones(1, 3, 3, dtype=torch.float64))
