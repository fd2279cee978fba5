"""Energy of the convex hull as a function of a soft composition."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.hull import Hull
from autoperi.data.dataset import CrystalDataset

_TRACE = 1e-3
"""Atomic fraction up to which an element is left out: soft species hold a trace of every element."""


class SoftHull:
    """Lower convex hull of formation energies over composition, differentiable in the composition.

    The hull is piecewise linear, E_hull(x) = μ·x, and the chemical potentials μ are its slope (`Hull`).
    """

    def __init__(
        self, compositions: Sequence[dict[int, float]], energies: Float[np.ndarray, "entries"]
    ) -> None:
        """Take a table of phases, as ``Hull`` does; raises ValueError for not one energy per composition."""
        self._hull = Hull(compositions, energies)

    @classmethod
    def from_dataset(cls, dataset: CrystalDataset) -> "SoftHull":
        """Hull of the labelled formation energies of a data set."""
        return cls(dataset.compositions(), dataset.labels["formation_energy"])

    def __call__(self, fractions: Float[Tensor, "crystals elements"]) -> Float[Tensor, "crystals"]:
        """Energy of the hull in eV/atom, at most 0; differentiable in the atomic fractions of elements 1-94.

        Elements that make up less than 0.1% of a crystal are left out, and the others fill their place; 0
        where there are none.
        """
        x = fractions.detach().double().cpu().numpy()
        potentials, kept = np.zeros_like(x), x > _TRACE
        for row, mask, mu in zip(x, kept, potentials, strict=True):
            if not (elements := tuple((np.flatnonzero(mask) + 1).tolist())):
                continue
            mu[mask] = self._hull.potentials(elements, row[mask] / row[mask].sum())
        system = fractions * torch.from_numpy(kept).to(fractions)
        total = system.sum(-1).clamp_min(_TRACE)
        return (system * torch.from_numpy(potentials).to(fractions)).sum(-1) / total
