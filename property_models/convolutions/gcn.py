"""GCN: neighbours averaged with normalised weights (Kipf and Welling, arXiv:1609.02907)."""

from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph


class GCN(Convolution):
    """Eq. 2 by torch-geometric's ``GCNConv``, with a learned positive weight for each bond.

    No self-loops are added: a site may be its own periodic neighbour, and the stack keeps the site anyway.
    """

    is_layer = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width = shape.width, shape.edge_width
        self.weight = nn.Linear(edge_width, 1)
        self.conv = GCNConv(width, width, add_self_loops=False)
        self.act = nn.SiLU()

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        weight = self.weight(edges).sigmoid().squeeze(-1)
        return self.act(self.conv(sites, graph.edge_index, weight))
