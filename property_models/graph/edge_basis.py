"""Embeddings of bonds: one small class for each choice, [edges] -> [edges, outputs].

All are invariant under rotation, origin, choice of cell and supercell.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.crystals.crystal import MAX_Z
from autoperi.networks.layers import RadialBasis, sum_by
from property_models.graph.site_graph import SiteGraph


class GaussianBasis(nn.Module):
    """Gaussians on an even grid from 0 to the cutoff (SchNet, arXiv:1706.08566; CGCNN, arXiv:1710.10324)."""

    centres: Tensor

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(0, cutoff, count))
        self.inverse_width = (count - 1) / cutoff
        self.outputs = count

    def forward(self, graph: SiteGraph) -> Float[Tensor, "edges outputs"]:
        """Values of every edge."""
        return torch.exp(-0.5 * ((graph.distance[:, None] - self.centres) * self.inverse_width).square())


class BesselBasis(nn.Module):
    """Spherical Bessel functions that vanish smoothly at the cutoff (DimeNet, arXiv:2003.03123)."""

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.radial = RadialBasis(count, cutoff)
        self.outputs = count

    def forward(self, graph: SiteGraph) -> Float[Tensor, "edges outputs"]:
        """Values of every edge."""
        return self.radial(graph.distance)[0]


class WeightedGaussianBasis(nn.Module):
    """Gaussians of learned centre, width and weight under a cosine cutoff (PhysNet, arXiv:1902.08408)."""

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.centres = nn.Parameter(torch.linspace(0, cutoff, count))
        self.log_inverse_width = nn.Parameter(torch.full((count,), math.log((count - 1) / cutoff)))
        self.weights = nn.Parameter(torch.ones(count))
        self.outputs = count

    def forward(self, graph: SiteGraph) -> Float[Tensor, "edges outputs"]:
        """Values of every edge."""
        return self.weights * self.of(graph.distance)

    def of(self, distance: Tensor) -> Tensor:
        """Gaussians under the cutoff, without their weights."""
        scaled = (distance[:, None] - self.centres) * self.log_inverse_width.exp()
        inside = 0.5 * (torch.cos(math.pi * distance / self.cutoff) + 1) * (distance < self.cutoff)
        return torch.exp(-0.5 * scaled.square()) * inside[:, None]


class PairGaussianBasis(nn.Module):
    """Gaussians of a distance stretched and shifted per pair of species (Graphormer, arXiv:2203.04810).

    A bond is short or long for its two elements, not in Å. Soft species mix the factors of their elements.
    """

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.gaussians = GaussianBasis(count, cutoff)
        # a pair's factors come from its two elements, so that rare pairs are learned from common ones
        self.receive = nn.Parameter(torch.zeros(MAX_Z + 1, 8))
        self.send = nn.Parameter(torch.zeros(MAX_Z + 1, 8))
        self.affine = nn.Bilinear(8, 8, 2)
        nn.init.normal_(self.receive, std=0.3)
        nn.init.normal_(self.send, std=0.3)
        self.outputs = count

    def forward(self, graph: SiteGraph) -> Float[Tensor, "edges outputs"]:
        """Values of every edge."""
        species = graph.species
        soft = species.is_floating_point()
        receive = species @ self.receive if soft else self.receive[species]
        send = species @ self.send if soft else self.send[species]
        factors = self.affine(receive[graph.site], send[graph.sender])
        distance = graph.distance * (1 + 0.1 * factors[:, 0]) + factors[:, 1]
        offset = (distance[:, None] - self.gaussians.centres) * self.gaussians.inverse_width
        return torch.exp(-0.5 * offset.square())


class PeriodicGaussianBasis(nn.Module):
    """A bond's weighted Gaussians beside those of all periodic images of its species around the site.

    The second half is the partial radial density that the site sees: a sum over the whole lattice instead of
    one bond (the periodic sums of PotNet, arXiv:2306.10045, with a finite range).
    """

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.gaussians = WeightedGaussianBasis(count // 2, cutoff)
        self.outputs = 2 * (count // 2)

    def forward(self, graph: SiteGraph) -> Float[Tensor, "edges outputs"]:
        """Values of every edge."""
        own = self.gaussians(graph)
        species = graph.species.argmax(-1) if graph.species.is_floating_point() else graph.species
        kind = graph.site * (MAX_Z + 1) + species[graph.sender]
        distinct, kind = torch.unique(kind, return_inverse=True)
        density = sum_by(own, kind, len(distinct))
        return torch.cat([own, torch.asinh(density)[kind]], -1)
