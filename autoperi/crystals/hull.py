"""Energy above the convex hull of formation energies, chemical system by chemical system.

A small and fast stand-in for a phase diagram: the energies are relative to the elements, which therefore
are the corners of every hull, at zero.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull, QhullError


@dataclass(frozen=True)
class _Facets:
    """Lower facets ``energy = slopes @ fractions + offset`` of one chemical system."""

    slopes: np.ndarray
    offsets: np.ndarray


class Hull:
    """Convex hull of formation energies.

    Args:
        compositions: amounts by atomic number, one dictionary per entry; any normalisation.
        energies: formation energies in eV/atom.
    """

    def __init__(
        self, compositions: Sequence[dict[int, float]], energies: Float[np.ndarray, "entries"]
    ) -> None:
        lowest: dict[tuple, float] = {}
        for composition, energy in zip(compositions, energies, strict=True):
            key = _reduced(composition)
            if np.isfinite(energy) and energy < lowest.get(key, 0.0):
                lowest[key] = float(energy)
        self._entries: dict[frozenset[int], list[tuple[dict[int, float], float]]] = defaultdict(list)
        for key, energy in lowest.items():
            self._entries[frozenset(z for z, _ in key)].append((dict(key), energy))
        self._facets: dict[frozenset[int], _Facets | None] = {}

    def energy(self, composition: dict[int, float]) -> float:
        """Energy of the hull at a composition, in eV/atom; at most zero."""
        fractions = dict(_reduced(composition))
        system = frozenset(fractions)
        if len(system) == 1:
            return 0.0 + min((e for _, e in self._entries.get(system, [])), default=0.0)
        if system not in self._facets:
            self._facets[system] = self._build(system)
        facets = self._facets[system]
        if facets is None:
            return 0.0
        x = np.array([fractions[z] for z in sorted(system)[:-1]])
        return float((facets.slopes @ x + facets.offsets).max())

    def above(self, composition: dict[int, float], energy: float) -> float:
        """Energy above the hull in eV/atom, zero for a phase on it or below."""
        return max(0.0, energy - self.energy(composition))

    def _build(self, system: frozenset[int]) -> _Facets | None:
        elements = sorted(system)
        n = len(elements)
        # the corners: each element at zero or at its own lowest energy
        corners = np.c_[np.eye(n)[:, :-1], [self.energy({z: 1.0}) for z in elements]]
        points = [corners]
        for part, entries in self._entries_within(system):
            if len(part) > 1:
                points.append(np.array([[*(c.get(z, 0.0) for z in elements[:-1]), e] for c, e in entries]))
        if len(points) == 1:
            return None if not corners[:, -1].any() else _plane(corners)
        try:
            equations = ConvexHull(np.concatenate(points)).equations
        except QhullError:  # all points within rounding of the plane through the corners
            return _plane(corners)
        lower = equations[equations[:, -2] < -1e-7]
        return _Facets(-lower[:, :-2] / lower[:, -2:-1], -lower[:, -1] / lower[:, -2])

    def _entries_within(
        self, system: frozenset[int]
    ) -> list[tuple[frozenset[int], list[tuple[dict[int, float], float]]]]:
        elements = sorted(system)
        found = []
        for bits in range(1, 1 << len(elements)):
            part = frozenset(z for i, z in enumerate(elements) if bits >> i & 1)
            if part in self._entries:
                found.append((part, self._entries[part]))
        return found


def _plane(corners: np.ndarray) -> _Facets:
    energies = corners[:, -1]
    return _Facets((energies[:-1] - energies[-1])[None], energies[-1:])


def _reduced(composition: dict[int, float]) -> tuple[tuple[int, float], ...]:
    """Atomic fractions in a canonical, hashable form."""
    total = float(sum(composition.values()))
    return tuple(sorted((int(z), round(n / total, 9)) for z, n in composition.items() if n > 0))
