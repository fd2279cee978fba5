"""GraphSAGE: a site and the mean of its neighbours, a matrix each (Hamilton et al., arXiv:1706.02216)."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from property_models.graph.site_graph import SiteGraph


class SAGELayer(nn.Module):
    """Algorithm 1 by torch-geometric's ``SAGEConv``; a bond is a source node: sender and length."""

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.bond = nn.Linear(edge_width, width)
        self.conv = SAGEConv((width, width), width)
        self.act = nn.SiLU()

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        sources = self.act(sites[graph.sender] + self.bond(edges))
        index = torch.stack([torch.arange(len(sources), device=sites.device), graph.site])
        return self.act(self.conv((sources, sites), index))
