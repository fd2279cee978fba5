"""Gaps from eigenvalues, and where a search for magnetism starts."""

import numpy as np
import pytest

from scripts.dft_worker import band_gaps, moments


def test_least_gap_and_least_direct_gap():
    """Highest filled and lowest empty state at different k-points."""
    eigenvalues = np.array([[[-2.0, 0.0, 3.0], [-2.0, -1.0, 1.5]]])
    assert band_gaps(eigenvalues, 0.5) == (1.5, 2.5)


def test_spins_count_together():
    """The gap may lead from one spin to the other, which has fewer filled bands."""
    up, down = [[-1.0, 0.0, 4.0], [-1.0, -0.2, 4.0]], [[-1.0, 1.0, 5.0], [-1.0, 1.5, 5.0]]
    gap, direct = band_gaps(np.array([up, down]), 0.5)
    assert gap == pytest.approx(1.0)
    assert direct == pytest.approx(1.0)


def test_a_metal_has_no_gap():
    """A band that crosses the Fermi level, and a half-metal, where one of a single spin does."""
    crossing, open_gap = [[-1.0, 0.1], [-1.0, -0.1]], [[-1.0, 3.0], [-1.0, 3.0]]
    assert band_gaps(np.array([crossing]), 0.0) == (0.0, 0.0)
    assert band_gaps(np.array([open_gap, crossing]), 0.0) == (0.0, 0.0)


def test_bands_that_do_not_reach_above_the_gap_are_an_error():
    """A gap that was not computed is not a large one."""
    with pytest.raises(ValueError, match="more bands"):
        band_gaps(np.array([[[-1.0, 0.0], [-1.0, 0.0]]]), 0.5)


def test_magnetic_start():
    """High spin where shells are open; filled d shells are as other elements."""
    assert moments(np.array([8, 26, 30, 64, 79, 80])).tolist() == [0.6, 5.0, 0.6, 7.0, 5.0, 0.6]
