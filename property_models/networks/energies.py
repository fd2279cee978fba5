"""What the shipped potential says before a network learns, and the hull that energies stand above."""

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import layer_norm, one_hot

from autoperi.crystals.crystal import MAX_Z
from autoperi.crystals.hull import Hull
from autoperi.data.dataset import CrystalDataset
from autoperi.networks.checkpoint import Arrays
from autoperi.networks.layers import sum_by
from property_models.graph.site_graph import SiteGraph
from property_models.potentials import distilled
from property_models.potentials.hull import SoftHull
from property_models.potentials.potential import ELEMENTS
from property_models.potentials.references import element_references

CUTOFF = distilled.DistilledConfig.cutoff
"""Of the shipped potential, Å; graphs must reach as far."""
_STABLE = 1e-6
"""eV/atom up to which a phase counts as one of the hull."""


def fractions(graph: SiteGraph) -> Float[Tensor, "crystals elements"]:
    """Atomic fractions of the elements 1-94, differentiable in soft species."""
    return sum_by(_weights(graph) * graph.share[:, None], graph.crystal, len(graph))


class Surroundings:
    """What the shipped potential makes of a site's surroundings before it reads an energy off them.

    It has learned from energies, forces and stresses of far more disturbed crystals than have other
    labels. Frozen, and not saved with the networks that read it.
    """

    outputs = distilled.DistilledConfig.width

    @cached_property
    def potential(self) -> distilled.DistilledPotential:
        """Read when it is first asked."""
        return distilled.load().requires_grad_(False)

    @property
    def sha256(self) -> str:
        """Of the potential's weights."""
        return str(self.potential.about["sha256"])

    def __call__(self, graph: SiteGraph) -> Float[Tensor, "sites outputs"]:
        """Mean 0 and spread 1 on each site, differentiable in bonds and soft species; no unit."""
        self.potential.to(graph.vector)
        sites = self.potential.sites(_weights(graph), graph.within(CUTOFF))
        return layer_norm(sites, sites.shape[1:])


class PotentialEnergy:
    """Formation energies of the shipped potential: where networks that learn energies may start from.

    It was taught by CHGNet on disturbed crystals, so it has seen what does not hold. Colliding atoms would
    drown what a network adds: from 1 eV/atom on, x counts as 1 + log x.
    """

    def __init__(self) -> None:
        self.potential = distilled.load()

    @property
    def sha256(self) -> str:
        """Of the potential's weights."""
        return str(self.potential.about["sha256"])

    def __call__(self, graph: SiteGraph) -> Float[Tensor, "crystals"]:
        """eV/atom, differentiable in bonds and soft species; elements beyond plutonium count as nothing."""
        self.potential.to(graph.vector)
        near, weights = graph.within(CUTOFF), _weights(graph)
        sites = self.potential.site_energies(weights, near, near.vector)  # pyright: ignore[reportArgumentType]
        sites = sites - weights @ element_references().to(weights)
        energy = sum_by(sites * graph.share, graph.crystal, len(graph))
        return torch.where(energy > 1, 1 + energy.clamp_min(1).log(), energy)


class Phases(Arrays):
    """The phases of a convex hull inside a checkpoint; empty where none are told.

    ``elements`` and ``amounts`` [phases, most elements of one], 0 where there are fewer; ``energies`` are
    formation energies, eV/atom.
    """

    def learn(self, dataset: CrystalDataset) -> None:
        """Keep those crystals of a data set that are on the hull of its formation energies."""
        compositions, energies = dataset.compositions(), dataset.labels["formation_energy"]
        hull = Hull(compositions, energies)
        rows = [
            k
            for k in np.flatnonzero(np.isfinite(energies))
            if hull.above(compositions[k], energies[k]) < _STABLE
        ]
        most = max(len(compositions[k]) for k in rows)
        elements, amounts = (
            torch.zeros(len(rows), most, dtype=torch.uint8),
            torch.zeros(len(rows), most).half(),
        )
        for row, k in enumerate(rows):
            for column, (number, amount) in enumerate(compositions[k].items()):
                elements[row, column], amounts[row, column] = number, amount
        self.put(
            {"elements": elements, "amounts": amounts, "energies": torch.from_numpy(energies[rows]).float()}
        )

    @property
    def known(self) -> bool:
        """Whether there are any."""
        return bool(self.state_dict())

    @cached_property
    def hull(self) -> SoftHull:
        """Of the phases; the elements are at 0."""
        names = ("elements", "amounts", "energies")
        elements, amounts, energies = (self.get_buffer(name).cpu().numpy() for name in names)
        compositions = [
            {int(z): float(n) for z, n in zip(*row, strict=True) if z}
            for row in zip(elements, amounts, strict=True)
        ]
        return SoftHull(compositions, energies.astype(float))


def _weights(graph: SiteGraph) -> Float[Tensor, "sites elements"]:
    """Weights of the elements 1-94 on each site."""
    species = graph.species
    if not species.is_floating_point():
        species = one_hot(species.long(), MAX_Z + 1).to(graph.vector)
    return species[:, 1 : ELEMENTS + 1]
