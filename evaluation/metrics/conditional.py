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
) -> list[Metric]:
    """Hit rate and mean absolute error of conditional samples, beside those of the reference.

    Args:
        values: property of every sample by a predictor that did not steer the generation; NaN for
            an invalid crystal, which counts as a miss and has no error. [n]
        window: what was asked for.
        reference: the property over the training set, by the same predictor where possible. [m]
        predictor: what gave the values, for the protocol.
        bootstrap: of the intervals.

    Returns:
        `hit_rate`, `base_hit_rate`, `enrichment` (the first over the second; its interval resamples
        the samples with the base rate held fixed), `target_mae` and `base_target_mae`.
    """
    values, reference = (np.asarray(v, dtype=float) for v in (values, reference))
    protocol = f"{window}; values by {predictor}"
    base_hits = window.hits(reference[np.isfinite(reference)])
    base = float(base_hits.mean()) if base_hits.size else float("nan")
    aim = "distance to the target" if window.target is not None else "distance to the window"
    errors, base_errors = (window.errors(v[np.isfinite(v)]) for v in (values, reference))
    hits = window.hits(values)
    return [
        mean_metric("hit_rate", hits, "all samples, those without a value missed", protocol, bootstrap),
        mean_metric("base_hit_rate", base_hits, "reference crystals with a value", protocol, bootstrap),
        statistic_metric(
            "enrichment",
            hits.astype(float),
            lambda v: float(v.mean() / base) if base > 0 else float("nan"),
            "all samples, those without a value missed",
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
