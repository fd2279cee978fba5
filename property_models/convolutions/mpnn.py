"""MPNN: messages through an edge network, sites updated by a GRU (Gilmer et al., arXiv:1704.01212)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import NNConv

from autoperi.networks.layers import mlp
from property_models.convolutions.interface import Convolution, Shape
from property_models.convolutions.nnconv import CHANNELS
from property_models.graph.site_graph import SiteGraph


class MPNN(Convolution):
    """The same message and GRU at every step, as in section 5 of the paper."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width, layers = shape.width, shape.edge_width, shape.layers
        self.steps = layers
        self.down = nn.Linear(width, CHANNELS)
        network = mlp(edge_width, CHANNELS, CHANNELS**2)
        self.conv = NNConv(CHANNELS, CHANNELS, network, aggr="mean", root_weight=False)
        self.gru = nn.GRUCell(CHANNELS, width)

    def forward(
        self, sites: Float[Tensor, "sites width"], edges: Float[Tensor, "edges edge_width"], graph: SiteGraph
    ) -> Float[Tensor, "sites width"]:
        """All steps."""
        for _ in range(self.steps):
            message = self.conv(self.down(sites), graph.edge_index, edges).relu()
            sites = self.gru(message, sites)
        return sites
