"""Element fractions, anonymous formulas and the concentration of element supply."""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from pymatgen.core import Element

_PAIR = re.compile(r"([A-Z][a-z]?)(\d+)")
_N_ELEMENTS = 118


def element_fractions(formulas: Iterable[str]) -> np.ndarray:
    """Atomic fraction of each element in each formula, [n, 118], columns by atomic number - 1.

    Formulas as `formula_key` writes them. Every crystal weighs the same, whatever its size.
    """
    rows = [_fractions(formula) for formula in formulas]
    return np.array(rows).reshape(len(rows), _N_ELEMENTS)


def chemical_system(formula: str) -> str:
    """Its elements in the order of the alphabet, e.g. ``Ba-O-Ti``."""
    return "-".join(sorted({element for element, _ in _PAIR.findall(formula)}))


def anonymous_formula(formula: str) -> str:
    """A formula without its elements: `Na1Cl1` and `Mg1O1` are both `1:1`, largest count first."""
    counts = sorted((int(n) for _, n in _PAIR.findall(formula)), reverse=True)
    return ":".join(map(str, counts))


def supply_concentration(formula: str) -> tuple[float, float]:
    """Herfindahl-Hirschman indices of a formula: of production and of reserves, 0 to 10,000.

    Means over the elements by mass fraction of the sums of squared market shares of countries
    (Gaultois et al. 2013, doi:10.1021/cm400893e, with pymatgen's table); above 2,500 a market is
    called highly concentrated. NaN when an element is not in the table.
    """
    return _concentration(tuple((symbol, int(n)) for symbol, n in _PAIR.findall(formula)))


@lru_cache(maxsize=200_000)
def _concentration(counts: tuple[tuple[str, int], ...]) -> tuple[float, float]:
    model = _market()
    masses = np.array([n * float(Element(symbol).atomic_mass) for symbol, n in counts])
    weights = masses / masses.sum()
    production = [model.get_hhi_production(symbol) for symbol, _ in counts]
    reserves = [model.get_hhi_reserve(symbol) for symbol, _ in counts]
    return _mean(weights, production), _mean(weights, reserves)


@lru_cache(maxsize=1)
def _market() -> Any:
    from pymatgen.analysis.hhi import HHIModel

    return HHIModel()


def _mean(weights: np.ndarray, values: list[float | None]) -> float:
    return float(weights @ np.array([np.nan if v is None else v for v in values], dtype=float))


@lru_cache(maxsize=200_000)
def _fractions(formula: str) -> np.ndarray:
    row = np.zeros(_N_ELEMENTS)
    for symbol, n in Counter({s: int(n) for s, n in _PAIR.findall(formula)}).items():
        row[Element(symbol).Z - 1] = n
    return row / row.sum()
