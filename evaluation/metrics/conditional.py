"""Hit rates of property targets, against the base rate of a reference."""

import numpy as np

from autoperi.crystals.labels import Window
from evaluation.metric import DEFAULT_BOOTSTRAP, BootstrapSettings, Metric, mean_metric, statistic_metric


def conditional_metrics(
    values: np.ndarray,
    window: Window,
    reference: np.ndarray,
    predictor: str,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    chances: np.ndarray | None = None,
) -> list[Metric]:
    """Hit rate and mean absolute error of conditional samples, beside those of the reference.

    Args:
        values: property of every sample by a predictor that did not steer the generation; NaN for
            an invalid crystal, which counts as a miss and has no error. [n]
        window: what was asked for.
        reference: the property over the training set, by the same predictor where possible. [m]
        predictor: what gave the values, for the protocol.
        bootstrap: of the intervals.
        chances: how likely the property of every sample lies in the window, by the predictor's calibrated
            distribution; NaN counts as a miss. [n]

    Returns:
        `hit_rate`, `base_hit_rate`, `enrichment` (the first over the second; its interval resamples
        the samples with the base rate held fixed), `target_mae` and `base_target_mae`; with chances also
        `expected_hit_rate`, their mean: where a predictor errs by as much as the window is wide, it misses
        hits and counts misses, and only the expected share is unbiased.
    """
    values, reference = (np.asarray(v, dtype=float) for v in (values, reference))
    protocol = f"{window}; values by {predictor}"
    base_hits = window.hits(reference[np.isfinite(reference)])
    base = float(base_hits.mean()) if base_hits.size else float("nan")
    aim = "distance to the target" if window.target is not None else "distance to the window"
    errors, base_errors = (window.errors(v[np.isfinite(v)]) for v in (values, reference))
    hits = window.hits(values)
    every = "all samples, those without a value missed"
    expected = (
        [] if chances is None else [_expected("expected_hit_rate", chances, every, protocol, bootstrap)]
    )
    return [
        mean_metric("hit_rate", hits, every, protocol, bootstrap),
        *expected,
        mean_metric("base_hit_rate", base_hits, "reference crystals with a value", protocol, bootstrap),
        statistic_metric(
            "enrichment",
            hits.astype(float),
            lambda v: float(v.mean() / base) if base > 0 else float("nan"),
            every,
            f"hit rate over the base rate {base:.4g} of {base_hits.size} reference crystals; {protocol}",
            bootstrap,
            bootstrap.resamples,
        ),
        mean_metric(
            "target_mae", errors, "samples with a value", f"mean {aim}; {protocol}", bootstrap, window.unit
        ),
        mean_metric(
            "base_target_mae",
            base_errors,
            "reference crystals with a value",
            f"mean {aim}; {protocol}",
            bootstrap,
            window.unit,
        ),
    ]


def ceiling_metrics(
    values: np.ndarray,
    truth: np.ndarray,
    window: Window,
    predictor: str,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    chances: np.ndarray | None = None,
) -> list[Metric]:
    """What perfect steering would score: `ceiling`, the hit rate of real crystals that do lie in the window.

    Args:
        values: property of real crystals by the predictor. [n]
        truth: their property as labelled. [n]
        window: what was asked for.
        predictor: what gave the values, for the protocol.
        bootstrap: of the intervals.
        chances: as of `conditional_metrics`; then also `expected_ceiling`. [n]
    """
    there = window.hits(truth)
    protocol, whose = f"{window}; values by {predictor}", "real crystals that are labelled inside the window"
    found = [mean_metric("ceiling", window.hits(np.asarray(values)[there]), whose, protocol, bootstrap)]
    if chances is not None:
        found.append(_expected("expected_ceiling", chances[there], whose, protocol, bootstrap))
    return found


def _expected(
    name: str, chances: np.ndarray, whose: str, protocol: str, bootstrap: BootstrapSettings
) -> Metric:
    words = f"mean probability of the window; {protocol}"
    return mean_metric(name, np.nan_to_num(np.asarray(chances, dtype=float)), whose, words, bootstrap)
