"""SchNet: continuous filters of the distance (Schuett et al., arXiv:1706.08566)."""

from torch import Tensor, nn
from torch_geometric.nn.models.schnet import InteractionBlock

from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph


class SchNet(Convolution):
    """The interaction block of torch-geometric's SchNet (``CFConv``) on periodic bonds."""

    is_layer = True
    is_smooth = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width = shape.width, shape.edge_width
        self.block = InteractionBlock(width, edge_width, width, shape.cutoff)
        self.out = nn.Linear(width, width)

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        return self.out(self.block(sites, graph.edge_index, graph.distance, edges))
