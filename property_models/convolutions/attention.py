"""Graph attention with bonds: GAT (arXiv:1710.10903) and GATv2 (arXiv:2105.14491).

Softmax over the bonds of a site is the same on every atom of an orbit, so the sites alone suffice. Self-loops
are not added: a site may be its own periodic neighbour, and the stack keeps the site anyway.
"""

from torch import Tensor, nn
from torch_geometric.nn import GATConv, GATv2Conv

from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph

_HEADS = 4


class GAT(Convolution):
    """Static attention, bond features in the logits; by torch-geometric's ``GATConv``."""

    is_layer = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width = shape.width, shape.edge_width
        self.conv = GATConv(width, width // _HEADS, _HEADS, edge_dim=edge_width, add_self_loops=False)
        self.act = nn.SiLU()

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        return self.act(self.conv(sites, graph.edge_index, edges))


class GATv2(Convolution):
    """Attention that depends on both ends; by torch-geometric's ``GATv2Conv``."""

    is_layer = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width = shape.width, shape.edge_width
        self.conv = GATv2Conv(width, width // _HEADS, _HEADS, edge_dim=edge_width, add_self_loops=False)
        self.act = nn.SiLU()

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        return self.act(self.conv(sites, graph.edge_index, edges))
