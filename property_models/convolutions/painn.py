"""PaiNN: scalars and vectors (Schuett et al., arXiv:2102.03150)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.networks.layers import mlp, sum_by
from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph

_NEIGHBOURS = 7.0
"""Square root of a typical number of bonds: keeps sums of the order of one."""


class PaiNN(Convolution):
    """Message (eqs. 7-8) and update (eq. 9) blocks; vectors of an atom are its site's, turned.

    The bonds must vanish at the cutoff (Bessel) for the result to be smooth, as in the paper.
    """

    needs_smooth_bonds = True
    is_smooth = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width, layers = shape.width, shape.edge_width, shape.layers
        self.messages = nn.ModuleList(_Message(width, edge_width) for _ in range(layers))
        self.updates = nn.ModuleList(_Update(width, shape.dropout) for _ in range(layers))

    def forward(
        self, sites: Float[Tensor, "sites width"], edges: Float[Tensor, "edges edge_width"], graph: SiteGraph
    ) -> Float[Tensor, "sites width"]:
        """All blocks."""
        vectors = sites.new_zeros(len(sites), 3, sites.shape[1])
        unit = graph.vector / graph.distance[:, None]
        for message, update in zip(self.messages, self.updates, strict=True):
            sites, vectors = message(sites, vectors, edges, unit, graph)
            sites, vectors = update(sites, vectors)
        return sites


class _Message(nn.Module):
    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.send = mlp(width, width, 3 * width)
        self.filter = nn.Linear(edge_width, 3 * width, bias=False)

    def forward(
        self, sites: Tensor, vectors: Tensor, edges: Tensor, unit: Tensor, graph: SiteGraph
    ) -> tuple[Tensor, Tensor]:
        answer = self.send(self.norm(sites))[graph.sender] * self.filter(edges) / _NEIGHBOURS
        scalar, copied, direct = answer.chunk(3, dim=-1)
        turned = (graph.rotation @ vectors[graph.atom_site])[graph.atom]
        arrows = turned * copied[:, None] + unit[:, :, None] * direct[:, None]
        return (
            sites + sum_by(scalar, graph.site, len(sites)),
            vectors + sum_by(arrows, graph.site, len(sites)),
        )


class _Update(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.mix = nn.Linear(width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.gates = mlp(2 * width, width, 3 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, sites: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.mix(vectors).chunk(2, dim=-1)
        length = (left.square().sum(1) + 1e-6).sqrt()
        joined = torch.cat([self.norm(sites), length], -1)
        first, act, last = self.gates
        plain, inner, gate = last(self.dropout(act(first(joined)))).chunk(3, dim=-1)
        sites = sites + plain + inner * (left * right).sum(1) / (1 + length)
        return sites, vectors + right * gate[:, None]
