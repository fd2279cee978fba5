"""Residual stacks of single layers, with bonds that learn where asked."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.networks.layers import mlp
from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph


class LayerStack(Convolution):
    """``sites + layer(norm(sites))`` for each layer; bonds are updated between them where asked.

    A layer is called as ``layer(sites, edges, graph)``. Norms are per site, so that no crystal sees another.
    """

    def __init__(self, layer: type[Convolution], shape: Shape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(shape) for _ in range(shape.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(shape.width) for _ in range(shape.layers))
        updates = shape.layers - 1 if shape.learn_edges else 0
        self.edge_updates = nn.ModuleList(EdgeUpdate(shape.width, shape.edge_width) for _ in range(updates))

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
