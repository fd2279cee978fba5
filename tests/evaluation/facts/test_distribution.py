from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from evaluation.facts.distribution import (
    chi_square,
    density,
    jensen_shannon,
    median_ratio,
    total_variation,
    wasserstein,
)
from evaluation.metric import BootstrapSettings, distance_metric
from tests.evaluation.crystals import diamond, disguised

NUMBERS = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


@given(NUMBERS, st.floats(-50, 50))
def test_wasserstein_of_a_shift_is_the_shift(values, shift):
    values = np.array(values)
    assert wasserstein(values + shift, values) == pytest.approx(abs(shift), abs=1e-9)


@given(NUMBERS, NUMBERS)
def test_wasserstein_is_the_area_between_quantiles(first, second):
    n = min(len(first), len(second))
    first, second = np.sort(first[:n]), np.sort(second[:n])
    assert wasserstein(first, second) == pytest.approx(np.abs(first - second).mean(), abs=1e-9)


def test_empty_sets_have_no_distance():
    assert np.isnan(wasserstein(np.array([]), np.array([1.0])))
    assert np.isnan(jensen_shannon({}, {1: 2}))
    assert np.isnan(median_ratio(np.array([]), np.array([1.0])))


def test_histogram_distances_on_hand_computed_cases():
    assert jensen_shannon(Counter("aab"), Counter("aabaab")) == pytest.approx(0, abs=1e-7)
    assert jensen_shannon({"a": 1}, {"b": 5}) == pytest.approx(1)
    assert total_variation({"a": 1}, {"b": 5}) == 1
    assert total_variation({"a": 3, "b": 1}, {"a": 1, "b": 1}) == pytest.approx(0.25)


def test_density_of_silicon():
    assert density(diamond()) == pytest.approx(2.329, abs=0.003)
    assert density(disguised(diamond(), 0)) == pytest.approx(density(diamond()))


def test_chi_square_agrees_with_scipy_and_drops_what_the_reference_lacks():
    samples, reference = {1: 30, 2: 50, 3: 20}, {1: 10, 2: 70, 3: 20}
    expected = chisquare([30, 50, 20], [10, 70, 20]).statistic / 100
    assert chi_square(samples, reference) == pytest.approx(expected)
    assert chi_square(samples | {230: 1000}, reference) == pytest.approx(expected)
    assert np.isnan(chi_square({230: 5}, reference))


def test_the_floor_is_what_draws_from_the_reference_come_to():
    """A fair coin thrown n times is off by √(1 / 2πn) on average."""
    coin, n = np.array([0, 1]), 400
    settings = BootstrapSettings(resamples_distance=2000)

    def off(throws):
        return total_variation(Counter(throws.tolist()), {0: 1, 1: 1})

    found = distance_metric("x", np.zeros(n, dtype=int), coin, off, "all", "rule", settings)
    assert found.value == 0.5
    assert found.floor == pytest.approx((1 / (2 * np.pi * n)) ** 0.5, rel=0.05)


def test_a_distance_of_nothing_has_no_floor():
    found = distance_metric("x", np.array([]), np.arange(3), lambda v: float(v.mean()), "all", "rule")
    assert np.isnan(found.value)
    assert found.floor is None
