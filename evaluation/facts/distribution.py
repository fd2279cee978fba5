"""Distances between one-dimensional and categorical distributions."""

from collections.abc import Hashable, Mapping
from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from pymatgen.core import Element, Structure
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from autoperi.crystals.lattice import DENSITY_UNIT


def density(structure: Structure) -> float:
    """Mass density, g/cm³."""
    mass = sum(_atomic_mass(site.specie.symbol) for site in structure)
    return mass / structure.volume * DENSITY_UNIT


@cache
def _atomic_mass(symbol: str) -> float:
    return float(Element(symbol).atomic_mass)


def wasserstein(samples: ArrayLike, reference: ArrayLike) -> float:
    """First Wasserstein distance between two sets of numbers, in their unit.

    ∫ |F_samples - F_reference|, the "W ρ" and "W n_el" of CDVAE (arXiv:2110.06197), which takes
    it on 1,000 valid samples. NaN when either set is empty.
    """
    samples, reference = np.asarray(samples, dtype=float), np.asarray(reference, dtype=float)
    if samples.size == 0 or reference.size == 0:
        return float("nan")
    return float(wasserstein_distance(samples, reference))


def median_ratio(samples: np.ndarray, reference: np.ndarray) -> float:
    """Median of the samples over that of the reference: 1.04 says 4% too large."""
    if len(samples) == 0 or len(reference) == 0:
        return float("nan")
    return float(np.median(samples) / np.median(reference))


def jensen_shannon(samples: Mapping[Hashable, float], reference: Mapping[Hashable, float]) -> float:
    """Jensen-Shannon distance between two histograms: 0 equal, 1 disjoint.

    √(½ KL(p‖m) + ½ KL(q‖m)) with m = (p+q)/2 and base-2 logarithms (Endres & Schindelin 2003,
    doi:10.1109/TIT.2003.813506). Counts are normalised; NaN when either is empty.
    """
    p, q = _aligned(samples, reference)
    if p.sum() == 0 or q.sum() == 0:
        return float("nan")
    return float(jensenshannon(p, q, base=2))


def total_variation(samples: Mapping[Hashable, float], reference: Mapping[Hashable, float]) -> float:
    """Total variation ½ Σ |p - q| between two histograms: 0 equal, 1 disjoint."""
    p, q = _aligned(samples, reference)
    if p.sum() == 0 or q.sum() == 0:
        return float("nan")
    return float(0.5 * np.abs(p / p.sum() - q / q.sum()).sum())


def chi_square(samples: Mapping[Hashable, float], reference: Mapping[Hashable, float]) -> float:
    """Pearson's Σ (q - p)² / p between shares q of the samples and p of the reference.

    Over the keys of the reference, q normalised over them, as WyFormer takes it on space groups
    (arXiv:2503.02407): samples outside are dropped. Multiply by the number of samples for the test
    statistic. NaN when either is empty there.
    """
    keys = [key for key, count in reference.items() if count > 0]
    p = np.array([reference[key] for key in keys], dtype=float)
    q = np.array([samples.get(key, 0) for key in keys], dtype=float)
    if p.sum() == 0 or q.sum() == 0:
        return float("nan")
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) ** 2 / p).sum())


def _aligned(
    samples: Mapping[Hashable, float], reference: Mapping[Hashable, float]
) -> tuple[np.ndarray, np.ndarray]:
    keys = list(dict.fromkeys([*samples, *reference]))
    return (
        np.array([samples.get(k, 0) for k in keys], dtype=float),
        np.array([reference.get(k, 0) for k in keys], dtype=float),
    )
