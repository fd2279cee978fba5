"""GraphSAGE: a site and the mean of its neighbours, a matrix each (Hamilton et al., arXiv:1706.02216)."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph


class GraphSAGE(Convolution):
    """Algorithm 1 by torch-geometric's ``SAGEConv``; a bond is a source node: sender and length."""

    is_layer = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width = shape.width, shape.edge_width
        self.bond = nn.Linear(edge_width, width)
        self.conv = SAGEConv((width, width), width)
        self.act = nn.SiLU()

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        sources = self.act(sites[graph.sender] + self.bond(edges))
        index = torch.stack([torch.arange(len(sources), device=sites.device), graph.site])
        return self.act(self.conv((sources, sites), index))
