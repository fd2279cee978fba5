"""Convex hull of formation energies over composition: its energy and its slope.

The hull at a composition x is the cheapest mixture of phases, min Σ λ_p F_p with Σ λ_p x_p = x and λ >= 0
(atomic fractions, eV/atom; Ong et al. 2008, doi:10.1021/cm702327g). It is piecewise linear: on each facet
E(x) = μ·x, with μ the chemical potentials of the elements in that mixture. The energies are relative to the
elements, which therefore are the corners of every hull, at zero or at their own lowest entry.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import OptimizeResult, linprog
from scipy.spatial import ConvexHull, QhullError

_ELEMENTS = 118
_FACETS_UP_TO = 5
"""Elements up to which all facets of a system are computed, and kept; their number grows fast with it."""


class Hull:
    """Lower convex hull of a table of phases.

    Attributes:
        n_phases: entries with an energy.
    """

    def __init__(
        self, compositions: Sequence[Mapping[int, float]], energies: Float[np.ndarray, "entries"]
    ) -> None:
        """Take a table of phases; the elements are always there, at 0 eV/atom.

        Args:
            compositions: amounts by atomic number, one per entry; any normalisation.
            energies: formation energies in eV/atom; entries with NaN are left out.

        Raises:
            ValueError: not one energy per composition.
        """
        energies = np.asarray(energies, float)
        if len(compositions) != len(energies):
            raise ValueError(
                f"expected one energy per composition: got {len(energies)} energies for "
                f"{len(compositions)} compositions"
            )
        lowest: dict[tuple, float] = {((z, 1.0),): 0.0 for z in range(1, _ELEMENTS + 1)}
        for composition, energy in zip(compositions, energies, strict=True):
            key = _reduced(composition)
            if np.isfinite(energy) and energy < lowest.get(key, 0.0):
                lowest[key] = float(energy)
        self.n_phases = int(np.isfinite(energies).sum())
        self._fractions = np.zeros((len(lowest), _ELEMENTS))
        for row, key in enumerate(lowest):
            numbers, amounts = zip(*key, strict=True)
            self._fractions[row, np.array(numbers) - 1] = amounts
        self._energies = np.array(list(lowest.values()))
        self._bits = _bits(self._fractions > 0)
        self._facets: dict[tuple[int, ...], Float[np.ndarray, "facets elements"]] = {}

    def energy(self, composition: Mapping[int, float]) -> float:
        """Energy of the hull at a composition, in eV/atom; at most zero."""
        elements, x = zip(*_reduced(composition), strict=True)
        return float(self.potentials(elements, np.array(x)) @ x)

    def above(self, composition: Mapping[int, float], energy: float) -> float:
        """Energy above the hull in eV/atom; negative for a phase that would lower it."""
        return energy - self.energy(composition)

    def mixture(self, composition: Mapping[int, float]) -> list[tuple[dict[int, float], float]]:
        """The phases that the hull mixes at a composition: atomic fractions of each, and its share of atoms.

        The share of the largest phase comes first.
        """
        elements, fractions = zip(*_reduced(composition), strict=True)
        x, energies = self._inside(elements)
        shares = _cheapest(x, energies, np.array(fractions)).x
        return [
            ({z: float(part) for z, part in zip(elements, x[k], strict=True) if part > 0}, float(shares[k]))
            for k in np.argsort(-shares)
            if shares[k] > 1e-6
        ]

    def potentials(
        self, elements: tuple[int, ...], fractions: Float[np.ndarray, "elements"]
    ) -> Float[np.ndarray, "elements"]:
        """Chemical potentials of elements, eV/atom: the slope of the hull at their mixture.

        Args:
            elements: atomic numbers, ascending.
            fractions: of the atoms, positive, in the same order; their sum is 1.
        """
        if len(elements) > _FACETS_UP_TO:
            return self._mixture(elements, fractions)
        if elements not in self._facets:
            self._facets[elements] = self._build(elements)
        facets = self._facets[elements]
        return facets[(facets @ fractions).argmax()]

    def _mixture(self, elements: tuple[int, ...], fractions: np.ndarray) -> np.ndarray:
        """The slope as the dual solution of the linear programme."""
        x, energies = self._inside(elements)
        return _cheapest(x, energies, fractions).eqlin.marginals

    def _build(self, elements: tuple[int, ...]) -> Float[np.ndarray, "facets elements"]:
        """Chemical potentials on every facet of a system."""
        x, energies = self._inside(elements)
        corners = energies[x.argmax(0)][None]  # the plane through the elements
        if len(x) == len(elements):
            return corners
        try:
            equations = ConvexHull(np.c_[x[:, :-1], energies]).equations
        except QhullError:  # all phases within rounding of that plane
            return corners
        lower = equations[equations[:, -2] < -1e-7]
        slopes, offsets = -lower[:, :-2] / lower[:, -2:-1], -lower[:, -1:] / lower[:, -2:-1]
        return np.c_[slopes + offsets, offsets]

    def _inside(self, elements: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Fractions [phases, elements] and energies of the phases of a chemical system, its elements too."""
        columns = np.array(elements) - 1
        others = np.ones((1, _ELEMENTS), dtype=bool)
        others[0, columns] = False
        rows = ((self._bits & _bits(others)) == 0).all(axis=1)
        return self._fractions[rows][:, columns], self._energies[rows]


def _cheapest(x: np.ndarray, energies: np.ndarray, fractions: np.ndarray) -> OptimizeResult:
    """The cheapest mixture of phases that has these fractions."""
    solved = linprog(energies, A_eq=x.T, b_eq=fractions, bounds=(0, None), method="highs")
    assert solved.success, solved.message  # a mixture of the elements is always there
    return solved


def _reduced(composition: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    """Atomic fractions in a canonical, hashable form."""
    total = float(sum(composition.values()))
    return tuple(sorted((int(z), round(n / total, 9)) for z, n in composition.items() if n > 0))


def _bits(present: np.ndarray) -> np.ndarray:
    """Which elements are present, as two 64-bit words a row: fast to compare for 40,000 phases."""
    padded = np.zeros((len(present), 128), dtype=np.uint8)
    padded[:, :_ELEMENTS] = present
    return np.packbits(padded, axis=1).view(np.uint64)
