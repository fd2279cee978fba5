import numpy as np
import pytest

from evaluation.metrics.divergence import frechet_distance, median_distance, squared_mmd


def cloud(seed, n=200, d=3, shift=0.0):
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def test_frechet_distance_of_a_shift_is_the_shift():
    points = cloud(0)
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(points + np.array([3, 4, 0]), points) == pytest.approx(5)


def test_frechet_distance_of_a_stretch_is_known():
    # N(0, s²) and N(0, 1) in one dimension: |s - 1|.
    points = cloud(1, d=1)
    points = (points - points.mean()) / points.std(ddof=1)
    assert frechet_distance(2.5 * points, points) == pytest.approx(1.5)


def test_frechet_distance_does_not_depend_on_the_axes():
    first, second = cloud(2) * [1, 2, 3], cloud(3, shift=0.5)
    rotation, _ = np.linalg.qr(cloud(4, 3))
    assert frechet_distance(first @ rotation, second @ rotation) == pytest.approx(
        frechet_distance(first, second)
    )
    assert np.isnan(frechet_distance(first[:1], second))


def test_mmd_is_the_sum_over_different_pairs():
    x, y = cloud(5, 6), cloud(6, 5)
    s = median_distance(y)

    def kernel(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * s**2))

    own = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    target = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert squared_mmd(x, y)(np.arange(6)) == pytest.approx(own + target - 2 * across)


def test_mmd_is_unbiased_also_in_a_resample():
    y = cloud(7, 300)
    estimates, resampled = [], []
    for seed in range(60):
        estimate = squared_mmd(cloud(100 + seed, 40), y)
        estimates.append(estimate(np.arange(40)))
        resampled.append(estimate(np.random.default_rng(seed).integers(0, 40, 40)))
    error = np.std(estimates) / np.sqrt(60)
    assert abs(np.mean(estimates)) < 4 * error + 0.002
    assert np.mean(resampled) == pytest.approx(np.mean(estimates), abs=6 * error)
    assert squared_mmd(cloud(8, 40, shift=1.0), y)(np.arange(40)) > 0.1


def test_one_point_repeated_has_no_pairs():
    assert np.isnan(squared_mmd(cloud(9, 3), cloud(10, 5))(np.zeros(4, dtype=int)))
    same = np.zeros((4, 2))
    assert squared_mmd(same, same)(np.arange(4)) == pytest.approx(0)
