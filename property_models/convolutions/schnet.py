"""SchNet: continuous filters of the distance (Schuett et al., arXiv:1706.08566)."""

from torch import Tensor, nn
from torch_geometric.nn.models.schnet import InteractionBlock

from property_models.graph.site_graph import SiteGraph


class SchNetLayer(nn.Module):
    """The interaction block of torch-geometric's SchNet (``CFConv``) on periodic bonds.

    The filter sum is halved by the square root of ten: a crystal has some fifty neighbours, a molecule a few.
    """

    def __init__(self, width: int, edge_width: int, cutoff: float) -> None:
        super().__init__()
        self.block = InteractionBlock(width, edge_width, width, cutoff)
        self.out = nn.Linear(width, width)

    def forward(self, sites: Tensor, edges: Tensor, graph: SiteGraph) -> Tensor:
        """One layer."""
        return self.out(self.block(sites, graph.edge_index, graph.distance, edges))
