"""Whether two models can be told apart by a figure, and how many more samples it would take.

The one rule of every ranking here: the difference of two figures against its own bootstrap error. That
two intervals overlap decides nothing: of two equally exact figures whose 95% intervals just touch, the
difference is already 2.8 standard errors wide, so overlap misses differences that are there
(Schenker and Gentleman 2001, doi:10.1198/000313001317097960).
"""

from dataclasses import dataclass
from math import ceil, inf, isfinite, sqrt
from statistics import NormalDist

from evaluation.metric import Metric

LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Verdict:
    """What two figures say about the order of two models.

    Attributes:
        order: 1 when the first is larger, -1 when the second is, 0 when they cannot be ranked.
        z: difference over its standard error; 0 without one.
        samples_needed: samples from each model with which a true difference of this size would be
            seen, at the level asked for, in four runs of five; None when it is seen already or cannot
            be known.
        more_samples: how many the smaller of the two sets lacks of that.
        reason: one sentence for a reader.
    """

    order: int
    z: float
    samples_needed: int | None
    more_samples: int | None
    reason: str


def rank(first: Metric, second: Metric, level: float = LEVEL) -> Verdict:
    """Whether two models' figures differ by more than their sampling errors.

    A two-sided z test of the difference. Two models' crystals are independent samples, so the bootstrap
    variance of the difference is the sum of theirs (`Metric.error` squared; Efron and Tibshirani 1993,
    chapter 8). A figure that no resample changes, a share of 0 or 1, has the error √2/n that two added
    successes and failures give it (Agresti and Coull 1998, doi:10.1080/00031305.1998.10480550). Errors
    fall as 1/√n, which gives `samples_needed`.

    Figures computed by different protocols or over different denominators are not ranked at all. The
    test says nothing about errors of the protocol itself (the relaxer, the predictor), and each pair is
    tested by itself: of many models as good as the best, one in twenty seems worse.

    Args:
        first: figure of one model.
        second: the same figure of the other.
        level: confidence asked for.
    """
    for what in ("name", "unit", "denominator", "protocol"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other:
            return _unranked(f"not comparable: {what} is {one!r} for one and {other!r} for the other")
    errors = [_standard_error(metric) for metric in (first, second)]
    difference = first.value - second.value
    if not (isfinite(difference) and all(isfinite(error) for error in errors)):
        return _unranked(f"{first.name}: a figure or its error is missing")
    z = difference / sqrt(errors[0] ** 2 + errors[1] ** 2)
    threshold = NormalDist().inv_cdf(0.5 + level / 2)
    sizes = f"n = {first.n} and {second.n}"
    if abs(z) >= threshold:
        larger = "first" if z > 0 else "second"
        return Verdict(
            1 if z > 0 else -1, z, None, None, f"the {larger} is larger, z = {abs(z):.1f} ({sizes})"
        )
    if difference == 0:
        return _unranked(f"equal figures ({sizes}): no number of samples is known to rank them")
    # Equal sizes n with (e₁² n₁ + e₂² n₂)/n = (difference / (z_level + z_power))².
    wanted = difference / (threshold + NormalDist().inv_cdf(POWER))
    needed = ceil((errors[0] ** 2 * first.n + errors[1] ** 2 * second.n) / wanted**2)
    more = max(1, needed - min(first.n, second.n))
    return Verdict(
        0,
        z,
        needed,
        more,
        f"too few samples to rank them, z = {abs(z):.1f} ({sizes}); a true difference of "
        f"{abs(difference):.3g} would show with about {needed} samples each, {more} more",
    )


def _unranked(reason: str) -> Verdict:
    return Verdict(0, 0.0, None, None, reason)


def _standard_error(metric: Metric) -> float:
    if metric.error is None or metric.n == 0:
        return inf
    return metric.error or sqrt(2) / metric.n
