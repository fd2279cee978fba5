from dataclasses import replace

import numpy as np
import pytest

from evaluation.metric import BootstrapSettings, Metric, mean_metric, statistic_metric
from evaluation.ranking import POWER, rank

FAST = BootstrapSettings(resamples=200)


def share(hits, n, protocol="rule"):
    return mean_metric("valid", np.arange(n) < hits, "all items", protocol)


def test_a_wide_gap_is_ranked_and_a_narrow_one_is_not():
    assert rank(share(90, 100), share(60, 100)).order == 1
    assert rank(share(60, 100), share(90, 100)).order == -1
    verdict = rank(share(86, 100), share(83, 100))
    assert verdict.order == 0
    assert "too few samples" in verdict.reason


def test_the_interval_of_a_distance_holds_the_distance():
    """Resampled sets are further from anything; the interval is about the figure and never below zero."""
    counts = np.random.default_rng(0).integers(0, 200, 300)

    def total_variation(values):
        return float(np.abs(np.bincount(values, minlength=200) / len(values) - 1 / 200).sum() / 2)

    found = statistic_metric("distance", counts, total_variation, "all", "rule")
    plain = statistic_metric("distance", counts, total_variation, "all", "rule", resamples=200)
    assert plain.low > found.value
    assert 0 <= found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(plain.high - plain.low)
    assert found.error == plain.error


def test_figures_whose_intervals_overlap_can_differ():
    """86.5 and 82.5% of 1,000: z = 2.5, p = 0.013, yet their 95% intervals share a point."""
    first, second = share(865, 1000), share(825, 1000)
    assert first.low is not None
    assert second.high is not None
    assert first.low < second.high
    assert rank(first, second).order == 1


@pytest.mark.parametrize(("chance", "n", "least"), [(0.5, 200, 0.02), (0.9, 100, 0.02), (0.97, 50, 0.0)])
def test_equal_models_are_ranked_in_one_case_of_twenty(chance, n, least):
    """Near 0 and 1 in fewer: a handful of hits has no finer steps."""
    rng = np.random.default_rng(0)
    ranked = 0
    for seed in range(300):
        settings = replace(FAST, seed=seed)
        two = [mean_metric("valid", rng.random(n) < chance, "all", "rule", settings) for _ in range(2)]
        ranked += rank(*two).order != 0
    assert least <= ranked / 300 < 0.08


def test_the_error_of_a_difference_is_the_bootstrap_of_the_difference():
    rng = np.random.default_rng(1)
    samples = rng.gamma(1.0, size=300), rng.gamma(1.3, size=200)
    one, two = (
        statistic_metric("x", s, np.median, "all", "rule", replace(FAST, seed=k), 2000)  # type: ignore[arg-type]
        for k, s in enumerate(samples)
    )
    draws = [
        np.median(rng.choice(samples[0], 300)) - np.median(rng.choice(samples[1], 200)) for _ in range(2000)
    ]
    assert (one.value - two.value) / rank(one, two).z == pytest.approx(np.std(draws), rel=0.1)


def test_the_number_of_samples_asked_for_suffices_in_four_runs_of_five():
    verdict = rank(share(860, 1000), share(845, 1000))
    assert verdict.order == 0
    needed = verdict.samples_needed
    # Two shares of .86 and .845: n = (1.96 + 0.84)² (.86 .14 + .845 .155) / .015².
    assert needed is not None
    assert abs(needed / (2.80**2 * (0.86 * 0.14 + 0.845 * 0.155) / 0.015**2) - 1) < 0.15
    assert verdict.more_samples == needed - 1000
    assert f"{needed} samples each" in verdict.reason
    rng = np.random.default_rng(0)
    seen = 0
    for seed in range(100):
        settings = replace(FAST, seed=seed)
        drawn = [mean_metric("valid", rng.random(needed) < p, "all", "rule", settings) for p in (0.86, 0.845)]
        seen += rank(*drawn).order == 1
    assert abs(seen / 100 - POWER) < 0.12


def test_the_smaller_set_is_the_one_that_lacks_samples():
    verdict = rank(share(86, 100), share(845, 1000))
    assert verdict.samples_needed is not None
    assert verdict.more_samples == verdict.samples_needed - 100


def test_figures_of_different_protocols_are_not_ranked():
    verdict = rank(share(90, 100), share(60, 100, "another rule"))
    assert verdict.order == 0
    assert "not comparable: protocol" in verdict.reason
    noted = replace(share(60, 100), note="the matcher saw 3 pairs")
    assert rank(share(90, 100), noted).order == 1


def test_a_share_of_all_has_an_error_too():
    assert rank(share(30, 30), share(29, 30)).order == 0
    # Fisher's exact test: p = 0.059 for 0 and 5 of 100, 0.001 for 0 and 10.
    assert rank(share(0, 100), share(5, 100)).order == 0
    assert rank(share(0, 100), share(10, 100)).order == -1


def test_no_interval_no_rank():
    bare = Metric("valid", 0.9, None, None, 100, "all items", "rule")
    assert "missing" in rank(bare, share(60, 100)).reason
    assert rank(share(60, 100), share(60, 100)).samples_needed is None
