"""From sites to a crystal: one small class for each choice, [sites, width] -> [crystals, outputs].

A site stands for all atoms of its orbit, so each read-out weighs it by them: the result is that of the whole
cell. torch-geometric's aggregations have no such weights, hence the few lines here.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.utils import softmax

from autoperi.networks.layers import mlp, sum_by
from property_models.graph.site_graph import SiteGraph


class MeanReadout(nn.Module):
    """Mean over atoms: right for what does not grow with the cell (CGCNN, arXiv:1710.10324, eq. 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.outputs = width

    def forward(self, sites: Float[Tensor, "sites width"], graph: SiteGraph) -> Tensor:
        """One row per crystal."""
        return sum_by(sites * graph.share[:, None], graph.crystal, len(graph))


class SumReadout(nn.Module):
    """Sum over the atoms of the primitive cell: right for what grows with it (SchNet, arXiv:1706.08566)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.outputs = width

    def forward(self, sites: Float[Tensor, "sites width"], graph: SiteGraph) -> Tensor:
        """One row per crystal."""
        return sum_by(sites * graph.multiplicity[:, None], graph.crystal, len(graph))


class AttentionReadout(nn.Module):
    """Mean over atoms with learned weights (global attention of gated networks, arXiv:1511.05493, eq. 7)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = mlp(width, width, 1)
        self.value = nn.Linear(width, width)
        self.outputs = width

    def forward(self, sites: Float[Tensor, "sites width"], graph: SiteGraph) -> Tensor:
        """One row per crystal."""
        weight = _orbit_softmax(self.gate(sites).squeeze(-1), graph)
        return sum_by(weight * self.value(sites), graph.crystal, len(graph))


class Set2SetReadout(nn.Module):
    """An LSTM asks the atoms a few questions in turn (Vinyals et al., arXiv:1511.06391; MPNN, MEGNet)."""

    def __init__(self, width: int, steps: int = 3) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(2 * width, width)
        self.steps, self.width = steps, width
        self.outputs = 2 * width

    def forward(self, sites: Float[Tensor, "sites width"], graph: SiteGraph) -> Tensor:
        """One row per crystal."""
        answer = sites.new_zeros(len(graph), 2 * self.width)
        state = (sites.new_zeros(len(graph), self.width), sites.new_zeros(len(graph), self.width))
        for _ in range(self.steps):
            state = self.lstm(answer, state)
            weight = _orbit_softmax((sites * state[0][graph.crystal]).sum(-1), graph)
            found = sum_by(weight * sites, graph.crystal, len(graph))
            answer = torch.cat([state[0], found], -1)
        return answer


def _orbit_softmax(logits: Float[Tensor, "sites"], graph: SiteGraph) -> Float[Tensor, "sites 1"]:
    """Softmax over the atoms of each crystal, summed over each orbit."""
    return softmax(logits + graph.multiplicity.log(), graph.crystal, num_nodes=len(graph))[:, None]
