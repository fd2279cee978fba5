import numpy as np
import pytest

from autoperi.crystals.labels import Window
from evaluation.metric import BootstrapSettings
from evaluation.metrics.conditional import ceiling_metrics, conditional_metrics

QUICK = BootstrapSettings(resamples=20, resamples_distance=5)


def metrics(values, window, reference):
    found = conditional_metrics(np.array(values), window, np.array(reference), "a test", QUICK)
    return {metric.name: metric for metric in found}


def test_hits_misses_and_crystals_without_a_value():
    found = metrics([1.4, 1.6, 3.0, np.nan], Window.around(1.5, 0.1001, "eV"), [0.0, 1.5, 2.0, 4.5, np.nan])
    assert found["hit_rate"].value == 0.5
    assert found["hit_rate"].n == 4
    assert found["base_hit_rate"].value == 0.25
    assert found["enrichment"].value == 2
    assert found["target_mae"].value == pytest.approx((0.1 + 0.1 + 1.5) / 3)
    assert found["target_mae"].unit == "eV"
    assert found["base_target_mae"].value == pytest.approx((1.5 + 0 + 0.5 + 3) / 4)
    assert "1.3999 to 1.6001 eV" in found["hit_rate"].protocol


def test_expected_hits_and_the_ceiling_of_a_predictor():
    """Chances are averaged, those that are missing count as none; the ceiling is of what is truly inside."""
    window, chances = Window.around(1.5, 0.1, "eV"), np.array([0.5, 0.25, np.nan, 0.0])
    values, truth = np.array([1.5, 2.0, np.nan, 1.5]), np.array([1.45, 1.55, 1.5, 3.0])
    found = conditional_metrics(values, window, truth, "a test", QUICK, chances)
    assert {m.name: m.value for m in found}["expected_hit_rate"] == pytest.approx(0.75 / 4)
    ceiling, expected = ceiling_metrics(values, truth, window, "a test", QUICK, chances)
    assert (ceiling.name, ceiling.n, ceiling.value) == ("ceiling", 3, pytest.approx(1 / 3))
    assert (expected.name, expected.n, expected.value) == ("expected_ceiling", 3, pytest.approx(0.25))


def test_an_inequality_is_missed_by_the_distance_to_it():
    window = Window(2.0, float("inf"))
    found = metrics([1.0, 2.0, 5.0], window, [1.0])
    assert found["hit_rate"].value == pytest.approx(2 / 3)
    assert found["target_mae"].value == pytest.approx(1 / 3)
    assert np.isnan(found["enrichment"].value)


def test_a_window_upside_down_is_refused():
    with pytest.raises(ValueError, match="from 2 to 1"):
        Window(2, 1)
