"""Whether two models can be told apart by a figure, and how many samples it would take."""

from dataclasses import dataclass
from math import ceil, inf, isfinite, sqrt
from statistics import NormalDist

from evaluation.metric import Metric


@dataclass(frozen=True)
class Verdict:
    """What the intervals of two figures say about their order.

    Attributes:
        order: 1 when the first is larger, -1 when the second is, 0 when they cannot be ranked.
        z: difference over its standard error; 0 without one.
        samples_needed: samples from each model at which a true difference of this size would be
            seen at the level asked for; None when it is seen already or cannot be known.
        reason: one sentence for a reader.
    """

    order: int
    z: float
    samples_needed: int | None
    reason: str


def rank(first: Metric, second: Metric, level: float = 0.95) -> Verdict:
    """Whether two models' figures differ by more than their sampling errors.

    A two-sided z test: the standard error of each figure is its 95% interval's width over 2 × 1.96
    (the bootstrap of `metric.py`), the two add in quadrature (independent samples). An interval of
    no width, a share of 0 or 1, counts as 3/n wide (rule of three, doi:10.1001/jama.1983.03330370053031).
    Sampling errors fall as 1/√n, which gives `samples_needed`.

    Figures computed by different protocols or over different denominators are not ranked at all.
    The test says nothing about errors of the protocol itself (the relaxer, the predictor).

    Args:
        first: figure of one model.
        second: the same figure of the other.
        level: confidence asked for.
    """
    for what in ("name", "unit", "denominator", "protocol"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other:
            return Verdict(
                0, 0.0, None, f"not comparable: {what} is {one!r} for one and {other!r} for the other"
            )
    errors = [_standard_error(metric) for metric in (first, second)]
    difference = first.value - second.value
    if not (isfinite(difference) and all(isfinite(error) for error in errors)):
        return Verdict(0, 0.0, None, f"{first.name}: a figure or its interval is missing")
    z = difference / sqrt(errors[0] ** 2 + errors[1] ** 2)
    threshold = NormalDist().inv_cdf(0.5 + level / 2)
    sizes = f"n = {first.n} and {second.n}"
    if abs(z) >= threshold:
        larger = "first" if z > 0 else "second"
        return Verdict(1 if z > 0 else -1, z, None, f"the {larger} is larger, z = {abs(z):.1f} ({sizes})")
    if difference == 0:
        return Verdict(0, 0.0, None, f"equal figures ({sizes}): no number of samples is known to rank them")
    needed = _needed(first.n, second.n, errors, difference / threshold)
    return Verdict(
        0,
        z,
        needed,
        f"the intervals are too wide to rank them, z = {abs(z):.1f} ({sizes}); a true difference of "
        f"{abs(difference):.3g} would show with about {needed} samples each",
    )


def _standard_error(metric: Metric) -> float:
    if metric.low is None or metric.high is None or metric.n == 0:
        return inf
    width = metric.high - metric.low
    return (width if width > 0 else 3 / metric.n) / (2 * 1.96)


def _needed(first: int, second: int, errors: list[float], wanted: float) -> int:
    """Equal sizes n with e₁² n₁/n + e₂² n₂/n = wanted²."""
    return ceil((errors[0] ** 2 * first + errors[1] ** 2 * second) / wanted**2)
