"""A number that says what it is: value, denominator, sample size, interval and protocol."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class BootstrapSettings:
    """How intervals are found.

    Attributes:
        resamples: bootstrap resamples for a share or a mean; 0 switches intervals off.
        resamples_distance: the same for a distance between distributions, which is dearer.
        level: coverage of the interval.
        seed: of the resampling.
    """

    resamples: int = 1000
    resamples_distance: int = 200
    level: float = 0.95
    seed: int = 0


DEFAULT_BOOTSTRAP = BootstrapSettings()


@dataclass(frozen=True)
class Metric:
    """One figure of a report.

    Attributes:
        name: short name, unique in a report.
        value: the figure; NaN when the denominator is empty.
        low: lower end of the bootstrap interval; None when it was not computed.
        high: upper end.
        n: how many crystals the value was computed from.
        denominator: in words, what those crystals are.
        protocol: rule, thresholds and reference, enough to compute it again.
        unit: "" for shares and pure numbers.
        note: what happened in this run (work done, crystals left out); no part of the protocol, so
            two models' figures may differ in it and still be compared.
        error: bootstrap standard error, the standard deviation of the resampled figures; None when
            it was not computed. What `ranking.rank` compares two models by.
        floor: of a distance between distributions: what as many crystals drawn from the reference itself
            come to on average; a perfect generator scores no better. None for other figures.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    n: int
    denominator: str
    protocol: str
    unit: str = ""
    note: str = ""
    error: float | None = None
    floor: float | None = None

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Plain values; NaN becomes None so that the JSON stays standard."""
        record = asdict(self)
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in record.items()}


def mean_metric(
    name: str,
    values: np.ndarray,
    denominator: str,
    protocol: str,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    unit: str = "",
) -> Metric:
    """Mean of per-crystal values (a share when they are booleans) with its percentile interval."""
    return statistic_metric(
        name,
        np.asarray(values, dtype=float),
        lambda v: float(v.mean()),
        denominator,
        protocol,
        bootstrap,
        bootstrap.resamples,
        unit,
    )


def padded(mask: Any, unreadable: int) -> np.ndarray:
    """Shares of validity are of all items: unreadable ones are appended as False."""
    return np.concatenate([np.asarray(mask, dtype=bool), np.zeros(unreadable, dtype=bool)])


def statistic_metric(
    name: str,
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float],
    denominator: str,
    protocol: str,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    resamples: int | None = None,
    unit: str = "",
) -> Metric:
    """Any statistic of per-crystal values with its percentile bootstrap interval and standard error.

    Crystals are resampled with replacement (Efron 1979, doi:10.1214/aos/1176344552); the reference
    a distance is taken to is held fixed. A resampled set repeats some crystals and lacks others, which
    makes every distance larger: the interval of a distance (``resamples`` not given) is moved down by
    the mean excess of the resampled figures, so that it shows the spread around the figure itself.
    """
    values = np.asarray(values)
    n = len(values)
    if n == 0:
        return Metric(name, float("nan"), None, None, 0, denominator, protocol, unit)
    count = bootstrap.resamples_distance if resamples is None else resamples
    value = float(statistic(values))
    low = high = error = None
    if count > 0:
        rng = np.random.default_rng(bootstrap.seed)
        draws = [statistic(values[rng.integers(0, n, n)]) for _ in range(count)]
        tail = 50 * (1 - bootstrap.level)
        excess = float(np.mean(draws)) - value if resamples is None else 0.0
        low, high = (float(q) - excess for q in np.percentile(draws, [tail, 100 - tail]))
        low = max(0.0, low) if min(draws) >= 0 else low
        error = float(np.std(draws))
    return Metric(name, value, low, high, n, denominator, protocol, unit, error=error)


def distance_metric(
    name: str,
    values: np.ndarray,
    population: np.ndarray,
    distance: Callable[[np.ndarray], float],
    denominator: str,
    protocol: str,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    unit: str = "",
) -> Metric:
    """`statistic_metric` of a distance to a reference, with its floor.

    Args:
        name: short name.
        values: one row per crystal.
        population: the same of every reference crystal.
        distance: from such rows to the reference.
        denominator: who the crystals are.
        protocol: what is measured.
        bootstrap: of the interval, and number and seed of the draws behind the floor.
        unit: of the distance.
    """
    metric = statistic_metric(name, values, distance, denominator, protocol, bootstrap, unit=unit)
    if metric.n == 0 or len(population) == 0 or bootstrap.resamples_distance == 0:
        return metric
    rng = np.random.default_rng(bootstrap.seed)
    draws = (
        population[rng.integers(0, len(population), metric.n)] for _ in range(bootstrap.resamples_distance)
    )
    return replace(metric, floor=float(np.mean([distance(rows) for rows in draws])))
