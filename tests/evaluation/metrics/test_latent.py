import numpy as np
import pytest

from evaluation.metric import BootstrapSettings
from evaluation.metrics.latent import alignment, latent_metrics, uniformity

QUICK = BootstrapSettings(resamples=50, resamples_distance=50)


def test_alignment_is_the_squared_distance():
    first = np.array([[0.0, 0.0], [1.0, 0.0]])
    second = np.array([[3.0, 4.0], [1.0, 0.0]])
    assert alignment(first, second).tolist() == [25, 0]
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        alignment(first, second[:1])


def test_uniformity_of_two_opposite_points():
    # One pair at squared distance 4.
    assert uniformity(np.array([[1.0, 0], [-1.0, 0]])) == pytest.approx(-8)
    assert uniformity(np.ones((5, 3))) == 0
    assert np.isnan(uniformity(np.ones((1, 3))))


def test_far_apart_points_do_not_underflow():
    assert uniformity(np.array([[0.0], [1e3], [2e3]])) == pytest.approx(-2e6 + np.log(2 / 3))


def test_uniformity_on_the_circle_is_the_bessel_function():
    # log E exp(-2 |x-y|²) = log(exp(-4) I₀(4)) for uniform directions in the plane.
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 2500)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert uniformity(points) == pytest.approx(np.log(np.i0(4)) - 4, abs=0.02)


def test_metrics_agree_with_the_functions_and_bracket_them():
    rng = np.random.default_rng(1)
    first = rng.normal(size=(80, 4))
    second = first + 0.1 * rng.normal(size=(80, 4))
    found = {m.name: m for m in latent_metrics(first, second, on_sphere=False, bootstrap=QUICK)}
    assert found["alignment"].value == pytest.approx(alignment(first, second).mean())
    assert found["uniformity"].value == pytest.approx(uniformity(first))
    for metric in found.values():
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low < metric.value < metric.high


def test_length_does_not_matter_on_the_sphere():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 30, 4))
    one = latent_metrics(first, second, bootstrap=QUICK)
    other = latent_metrics(7 * first, 0.1 * second, bootstrap=QUICK)
    assert [m.value for m in one] == pytest.approx([m.value for m in other])
    with pytest.raises(ValueError, match="on_sphere=False"):
        latent_metrics(np.zeros((3, 4)), second[:3])
