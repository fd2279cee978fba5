"""Energy of the convex hull as a function of a soft composition."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linprog
from torch import Tensor

from autoperi.data.dataset import CrystalDataset
from property_models.potentials.potential import ELEMENTS

_TRACE = 1e-3
"""Atomic fraction up to which an element is left out: soft species hold a trace of every element."""


class SoftHull:
    """Lower convex hull of formation energies over composition, differentiable in the composition.

    The hull at x is the cheapest mixture of phases, min Σ λ_p F_p with Σ λ_p x_p = x and λ >= 0. Its dual
    solution are the chemical potentials μ of the elements in that mixture: E_hull(x) = μ·x, and, the hull
    being piecewise linear, μ is its slope (Ong et al. 2008, doi:10.1021/cm702327g).
    """

    def __init__(
        self, compositions: Sequence[dict[int, float]], energies: Float[np.ndarray, "entries"]
    ) -> None:
        """Take a table of phases; the elements are always there, at 0 eV/atom.

        Args:
            compositions: amounts by atomic number; phases beyond plutonium are left out.
            energies: formation energies, eV/atom; entries with NaN are left out.

        Raises:
            ValueError: not one energy per composition.
        """
        if len(compositions) != len(energies):
            raise ValueError(
                f"expected one energy per phase: got {len(energies)} for {len(compositions)} compositions"
            )
        rows, kept = [np.eye(ELEMENTS)], [np.zeros(ELEMENTS)]
        for amounts, energy in zip(compositions, energies, strict=True):
            if np.isfinite(energy) and max(amounts) <= ELEMENTS:
                row = np.zeros(ELEMENTS)
                row[[z - 1 for z in amounts]] = list(amounts.values())
                rows.append(row[None] / row.sum())
                kept.append(np.array([energy]))
        self._fractions, self._energies = np.concatenate(rows), np.concatenate(kept)
        self._present = self._fractions > 0
        self._phases: dict[bytes, np.ndarray] = {}

    @classmethod
    def from_dataset(cls, dataset: CrystalDataset) -> Self:
        """Hull of the labelled formation energies of a data set."""
        return cls(dataset.compositions(), dataset.labels["formation_energy"])

    def __call__(self, fractions: Float[Tensor, "crystals elements"]) -> Float[Tensor, "crystals"]:
        """Energy of the hull in eV/atom, at most 0; differentiable in the atomic fractions of elements 1-94.

        Elements that make up less than 0.1% of a crystal are left out, and the others fill their place.
        """
        x = fractions.detach().double().cpu().numpy()
        potentials, kept = np.zeros_like(x), x > _TRACE
        for row, mask, mu in zip(x, kept, potentials, strict=True):
            mu[mask] = self._potentials(row[mask] / row[mask].sum(), mask)
        system = fractions * torch.from_numpy(kept).to(fractions)
        return (system * torch.from_numpy(potentials).to(fractions)).sum(-1) / system.sum(-1)

    def _potentials(self, x: np.ndarray, system: np.ndarray) -> np.ndarray:
        """Chemical potentials of the elements of a system at composition x, eV/atom."""
        key = system.tobytes()
        if key not in self._phases:
            self._phases[key] = np.flatnonzero(~self._present[:, ~system].any(1))
        phases = self._phases[key]
        solved = linprog(
            self._energies[phases],
            A_eq=self._fractions[np.ix_(phases, np.flatnonzero(system))].T,
            b_eq=x,
            bounds=(0, None),
            method="highs",
        )
        assert solved.success, solved.message  # a mixture of the elements is always there
        return solved.eqlin.marginals
