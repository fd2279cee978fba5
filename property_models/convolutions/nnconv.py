"""Continuous-kernel convolution: a network gives each bond's filter matrix (arXiv:1704.01212)."""

from torch import Tensor, nn
from torch_geometric.nn import NNConv

from autoperi.networks.layers import mlp
from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph

CHANNELS = 24
"""A filter has CHANNELS² entries per bond: more than this is memory, not accuracy."""


class ContinuousKernel(Convolution):
    """Mean over bonds of ``A(bond) h_j``, A = Linear, SiLU, Linear; by torch-geometric's ``NNConv``."""

    is_layer = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width = shape.width, shape.edge_width
        self.down = nn.Linear(width, CHANNELS)
        self.conv = NNConv(CHANNELS, CHANNELS, mlp(edge_width, CHANNELS, CHANNELS**2), aggr="mean")
        self.up = nn.Sequential(nn.SiLU(), nn.Linear(CHANNELS, width))

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        return self.up(self.conv(self.down(sites), graph.edge_index, edges))
