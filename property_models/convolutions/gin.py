"""GIN with bonds: a sum through a network (Xu et al., arXiv:1810.00826; Hu et al., arXiv:1905.12265)."""

from torch import Tensor, nn
from torch_geometric.nn import GINEConv

from autoperi.networks.layers import mlp
from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph


class GIN(Convolution):
    """Sum over bonds of relu(h_j + bond), then a network; by torch-geometric's ``GINEConv``."""

    is_layer = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width = shape.width, shape.edge_width
        self.conv = GINEConv(mlp(width, width, width), train_eps=True, edge_dim=edge_width)
        self.norm = nn.LayerNorm(width)

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        return self.norm(self.conv(sites, graph.edge_index, edges))
