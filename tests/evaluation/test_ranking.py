from dataclasses import replace

import numpy as np

from evaluation.metric import Metric, mean_metric
from evaluation.ranking import rank


def share(hits, n, protocol="rule"):
    return mean_metric("valid", np.arange(n) < hits, "all items", protocol)


def test_a_wide_gap_is_ranked_and_a_narrow_one_is_not():
    assert rank(share(90, 100), share(60, 100)).order == 1
    assert rank(share(60, 100), share(90, 100)).order == -1
    verdict = rank(share(86, 100), share(83, 100))
    assert verdict.order == 0
    assert "too wide" in verdict.reason


def test_the_number_of_samples_asked_for_suffices():
    verdict = rank(share(860, 1000), share(845, 1000))
    assert verdict.order == 0
    needed = verdict.samples_needed
    # Two shares of .86 and .845: n = 1.96² (.86 .14 + .845 .155) / .015².
    assert needed is not None
    assert abs(needed / (1.96**2 * (0.86 * 0.14 + 0.845 * 0.155) / 0.015**2) - 1) < 0.15
    more = round(1.3 * needed)
    assert rank(share(round(0.86 * more), more), share(round(0.845 * more), more)).order == 1


def test_figures_of_different_protocols_are_not_ranked():
    verdict = rank(share(90, 100), share(60, 100, "another rule"))
    assert verdict.order == 0
    assert "not comparable: protocol" in verdict.reason
    noted = replace(share(60, 100), note="the matcher saw 3 pairs")
    assert rank(share(90, 100), noted).order == 1


def test_a_share_of_all_has_an_error_too():
    assert rank(share(30, 30), share(29, 30)).order == 0


def test_no_interval_no_rank():
    bare = Metric("valid", 0.9, None, None, 100, "all items", "rule")
    assert "missing" in rank(bare, share(60, 100)).reason
