"""DimeNet++: messages between bonds, with angles (Gasteiger et al., arXiv:2003.03123, arXiv:2011.14115)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.nn.models.dimenet import (
    BesselBasisLayer,
    InteractionPPBlock,
    OutputPPBlock,
    SphericalBasisLayer,
)

from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph

_SPHERICAL, _RADIAL = 5, 6


class DimeNetPlusPlus(Convolution):
    """torch-geometric's blocks of DimeNet++ on periodic bonds; the bases are the paper's own.

    A message lives on the bond j -> i. What arrives at atom j is what arrives at j's site, turned: so the
    bonds into the sites suffice, and the angle is between ``v(i <- j)`` and the turned ``v(site of j <- k)``.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width, layers = shape.width, shape.edge_width, shape.layers
        act = nn.functional.silu
        self.radial = BesselBasisLayer(_RADIAL, shape.cutoff)
        self.spherical = SphericalBasisLayer(_SPHERICAL, _RADIAL, shape.cutoff)
        self.embed = nn.Linear(2 * width + edge_width, width)
        self.interactions = nn.ModuleList(
            InteractionPPBlock(width, width // 2, 8, _SPHERICAL, _RADIAL, 1, 2, act) for _ in range(layers)
        )
        self.outputs = nn.ModuleList(
            OutputPPBlock(_RADIAL, width, width, width, 2, act, "glorot_orthogonal")
            for _ in range(layers + 1)
        )

    def forward(
        self, sites: Float[Tensor, "sites width"], edges: Float[Tensor, "edges edge_width"], graph: SiteGraph
    ) -> Float[Tensor, "sites width"]:
        """All blocks; each adds to the sites."""
        outer, inner, angle = bond_angles(graph)
        radial = self.radial(graph.distance)
        spherical = self.spherical(graph.distance, angle, inner)
        ends = [sites[graph.site], sites[graph.sender], edges]
        messages = nn.functional.silu(self.embed(torch.cat(ends, -1)))
        answer = self.outputs[0](messages, radial, graph.site, len(sites))
        for interaction, output in zip(self.interactions, self.outputs[1:], strict=True):
            messages = interaction(messages, radial, spherical, inner, outer)
            answer = answer + output(messages, radial, graph.site, len(sites))
        return sites + answer


def bond_angles(
    graph: SiteGraph,
) -> tuple[Int[Tensor, "angles"], Int[Tensor, "angles"], Float[Tensor, "angles"]]:
    """Pairs of bonds k -> j -> i with k other than i: the bond j -> i, the bond k -> j, radians at j."""
    degree = torch.bincount(graph.site, minlength=graph.n_sites)
    order = graph.site.argsort(stable=True)
    first = degree.cumsum(0) - degree
    counts = degree[graph.sender]
    outer = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    within = torch.arange(len(outer), device=counts.device) - (counts.cumsum(0) - counts)[outer]
    inner = order[first[graph.sender[outer]] + within]
    turned = torch.einsum("eij,ej->ei", graph.rotation[graph.atom[outer]], graph.vector[inner])
    back = graph.vector[outer]
    other = ((turned + back).square().sum(-1) > 1e-4).nonzero().squeeze(-1)
    outer, inner, turned, back = outer[other], inner[other], turned[other], back[other]
    # at j: towards i is -v(i <- j), towards k is v(j <- k)
    normal = torch.linalg.cross(turned, -back).square().sum(-1).clamp_min(1e-10).sqrt()
    return outer, inner, torch.atan2(normal, -(turned * back).sum(-1))
