"""CGCNN: gated bonds (Xie and Grossman, arXiv:1710.10324)."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import CGConv

from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph


class CGCNN(Convolution):
    """Eq. 5 by torch-geometric's ``CGConv``: sum over bonds of sigmoid(gate) * softplus(core), then softplus.

    The paper's batch norms are replaced by the norm of the stack, which does not mix crystals.
    """

    is_layer = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width = shape.width, shape.edge_width
        self.conv = CGConv(width, edge_width)
        self.norm = nn.LayerNorm(width)

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        gathered = self.conv(sites, graph.edge_index, edges) - sites  # CGConv adds its input itself
        return self.norm(torch.nn.functional.softplus(gathered))
