"""Layers that need nothing but sites and bonds, with residuals and, if asked, bonds that learn."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.networks.layers import mlp
from property_models.graph.site_graph import SiteGraph


class LayerStack(nn.Module):
    """``sites + layer(norm(sites))`` for each layer; bonds are updated between them where asked.

    A layer is called as ``layer(sites, edges, graph)``. Norms are per site, so that no crystal sees another.
    """

    def __init__(self, layers: Sequence[nn.Module], width: int, edge_width: int, learn_edges: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in layers)
        self.edge_updates = nn.ModuleList(EdgeUpdate(width, edge_width) for _ in layers[1:] if learn_edges)

    def forward(
        self, sites: Float[Tensor, "sites width"], edges: Float[Tensor, "edges edge_width"], graph: SiteGraph
    ) -> Float[Tensor, "sites width"]:
        """Run all layers."""
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if i and self.edge_updates:
                edges = self.edge_updates[i - 1](sites, edges, graph)
            sites = sites + layer(norm(sites), edges, graph)
        return sites


class EdgeUpdate(nn.Module):
    """A bond's embedding learns from both its ends (MEGNet, arXiv:1812.05055, eq. 3, without the state)."""

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.update = mlp(2 * width + edge_width, edge_width, edge_width)

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Float[Tensor, "edges edge_width"]:
        """The bonds after one update."""
        return edges + self.update(torch.cat([sites[graph.site], sites[graph.sender], edges], -1))
