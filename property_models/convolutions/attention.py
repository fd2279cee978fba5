"""Graph attention with bonds: GAT (arXiv:1710.10903) and GATv2 (arXiv:2105.14491).

Softmax over the bonds of a site is the same on every atom of an orbit, so the sites alone suffice. Self-loops
are not added: a site may be its own periodic neighbour, and the stack keeps the site anyway.
"""

from torch import Tensor, nn
from torch_geometric.nn import GATConv, GATv2Conv

from property_models.graph.site_graph import SiteGraph

_HEADS = 4


class GATLayer(nn.Module):
    """Static attention, bond features in the logits; by torch-geometric's ``GATConv``."""

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.conv = GATConv(width, width // _HEADS, _HEADS, edge_dim=edge_width, add_self_loops=False)
        self.act = nn.SiLU()

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        return self.act(self.conv(sites, graph.edge_index, edges))


class GATv2Layer(nn.Module):
    """Attention that depends on both ends; by torch-geometric's ``GATv2Conv``."""

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.conv = GATv2Conv(width, width // _HEADS, _HEADS, edge_dim=edge_width, add_self_loops=False)
        self.act = nn.SiLU()

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        return self.act(self.conv(sites, graph.edge_index, edges))
