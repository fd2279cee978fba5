"""MEGNet: bonds, atoms and a state of the crystal, updated in turn (Chen et al., arXiv:1812.05055)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.networks.layers import mean_by, mlp, sum_by
from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph


class MEGNet(Convolution):
    """Blocks of eqs. 3-8 with residuals. The state starts at zero: temperature and the like are not given.

    torch-geometric's ``MetaLayer`` is the same three steps; they are written out because means over a crystal
    weigh each site by its atoms, for which ``MetaLayer`` has no place.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width, layers = shape.width, shape.edge_width, shape.layers
        self.blocks = nn.ModuleList(_Block(width, edge_width) for _ in range(layers))
        self.width = width

    def forward(
        self, sites: Float[Tensor, "sites width"], edges: Float[Tensor, "edges edge_width"], graph: SiteGraph
    ) -> Float[Tensor, "sites width"]:
        """All blocks."""
        state = sites.new_zeros(len(graph), self.width)
        for block in self.blocks:
            sites, edges, state = block(sites, edges, state, graph)
        return sites + state[graph.crystal]


class _Block(nn.Module):
    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.site_norm, self.state_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.bond = mlp(3 * width + edge_width, width, edge_width)
        self.atom = mlp(2 * width + edge_width, width, width)
        self.whole = mlp(2 * width + edge_width, width, width)

    def forward(
        self, sites: Tensor, edges: Tensor, state: Tensor, graph: SiteGraph
    ) -> tuple[Tensor, Tensor, Tensor]:
        h, u = self.site_norm(sites), self.state_norm(state)
        ends = [h[graph.site], h[graph.sender], u[graph.crystal][graph.site]]
        edges = edges + self.bond(torch.cat([*ends, edges], -1))
        bonds = mean_by(edges, graph.site, len(sites))
        sites = sites + self.atom(torch.cat([h, bonds, u[graph.crystal]], -1))
        # the mean over a crystal's bonds weighs each site by its atoms and its number of bonds
        degree = torch.bincount(graph.site, minlength=len(sites)).to(bonds) * graph.multiplicity
        total = sum_by(degree, graph.crystal, len(graph)).clamp_min(1)
        all_bonds = sum_by(bonds * degree[:, None], graph.crystal, len(graph)) / total[:, None]
        all_atoms = sum_by(sites * graph.share[:, None], graph.crystal, len(graph))
        return sites, edges, state + self.whole(torch.cat([all_atoms, all_bonds, u], -1))
