"""Labels that crystals carry: what a network may be conditioned on, and windows of values asked for."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import TypeAlias

import numpy as np


@dataclass(frozen=True)
class Condition:
    """A scalar label that networks are conditioned on.

    Attributes:
        unit: of the label.
        low: least value that its embedding resolves.
        high: greatest value that its embedding resolves.
    """

    unit: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"expected a condition's range with low < high: got {self.low} to {self.high}")


DEFAULT_CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        "band_gap": Condition("eV", 0.0, 8.0),
        "formation_energy": Condition("eV/atom", -4.0, 1.0),
        "e_above_hull": Condition("eV/atom", 0.0, 0.5),
    }
)
"""What a generator knows unless its config names something else; every data set has columns for these."""


def condition_row(values: Mapping[str, float], names: Iterable[str]) -> list[float]:
    """One row of a condition tensor, a column for each name: NaN where there is no value."""
    return [float(values.get(name, math.nan)) for name in names]


@dataclass(frozen=True)
class Window:
    """What is asked of one property: a value, a range or an inequality.

    Attributes:
        low: least value that counts as a hit; -inf for "at most".
        high: greatest value that counts as a hit; inf for "at least".
        target: the value errors are taken to; None where a range alone was asked for.
        unit: of the property.
    """

    low: float
    high: float
    target: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"expected low <= high: got a window from {self.low} to {self.high}")
        if self.target is not None and not self.low <= self.target <= self.high:
            raise ValueError(f"expected a target within {self.low} to {self.high}: got {self.target}")

    @classmethod
    def around(cls, target: float, tolerance: float, unit: str = "") -> "Window":
        """The values within a tolerance of a target."""
        return cls(target - tolerance, target + tolerance, target, unit)

    @classmethod
    def of(cls, asked: "Asked", unit: str = "") -> "Window":
        """A window from what people write: ``1.3``, ``(1.1, 1.7)``, ``"1.1:1.7"``, ``":0.1"``, ``"2:"``.

        Raises:
            ValueError: anything else; NaN and infinity too.
        """
        if isinstance(asked, Window):
            return asked
        ends = asked.split(":") if isinstance(asked, str) else asked if isinstance(asked, tuple) else (asked,)
        try:
            low, *high = [_end(end) for end in ends]
        except (TypeError, ValueError):
            low, high = None, []
        if len(high) == 1 and (low, *high) != (None, None):
            return cls(
                -math.inf if low is None else low, math.inf if high[0] is None else high[0], None, unit
            )
        if high or low is None:
            raise ValueError(
                f"expected a value (1.3), a range (1.1:1.7) or an inequality (:0.1, 2:): got {asked!r}"
            )
        return cls(low, low, low, unit)

    def within(self, condition: Condition) -> "Window":
        """The same window, open ends closed by the condition's range.

        Raises:
            ValueError: an end beyond that range.
        """
        ends = (
            condition.low if self.low == -math.inf else self.low,
            condition.high if self.high == math.inf else self.high,
        )
        if not all(condition.low <= end <= condition.high for end in ends):
            raise ValueError(
                f"expected values from {condition.low:g} to {condition.high:g} {condition.unit}, which the "
                f"model was made for: got {self}"
            )
        return Window(*ends, self.target, condition.unit)

    def draw(self, rng: np.random.Generator, known: np.ndarray | None = None) -> float:
        """The target, or one of the known values in the window; without any, uniform in it.

        Conditional draws whose targets are spread over a window as labels are draws from the window.
        """
        if self.target is not None:
            return self.target
        inside = known[self.hits(known)] if known is not None else np.empty(0)
        return float(rng.choice(inside)) if len(inside) else float(rng.uniform(self.low, self.high))

    def hits(self, values: np.ndarray) -> np.ndarray:
        """Which values lie inside, ends included; NaN does not."""
        values = np.asarray(values, dtype=float)
        return (values >= self.low) & (values <= self.high)

    def errors(self, values: np.ndarray) -> np.ndarray:
        """Distance of each value to the target, or to the window where there is no target."""
        values = np.asarray(values, dtype=float)
        if self.target is not None:
            return np.abs(values - self.target)
        return np.maximum(0.0, np.maximum(self.low - values, values - self.high))

    def __str__(self) -> str:
        """For instance `1.4 to 1.6 eV, target 1.5`."""
        aim = "" if self.target is None else f", target {self.target:g}"
        return f"{self.low:g} to {self.high:g} {self.unit}".rstrip() + aim


def _end(end: object) -> float | None:
    """One end of a window, None where it is open."""
    if end is None or (isinstance(end, str) and not end.strip()):
        return None
    if isinstance(end, bool) or not isinstance(end, (Real, str)) or not math.isfinite(value := float(end)):
        raise ValueError(f"expected a finite number: got {end!r}")
    return value


Asked: TypeAlias = Window | float | str | tuple[float | None, float | None]
"""What people write for a window."""
