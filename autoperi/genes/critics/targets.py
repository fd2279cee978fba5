"""How likely a drawn gene with species has the properties asked for, judged before geometry is paid for.

A histogram of each property, foretold from the gene alone: most of what a band gap depends on is which
elements sit on which sites. It learns from the labels of the training crystals, each of which is told how far
its relatives among the *others* are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.labels import Condition, Window
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.described import LabelledGenes, StandardisedGenes, member
from autoperi.networks.config import check

_BINS = 80
"""Of a property's range; one more holds what lies at or below its low end, as metals have no gap at all."""
_BLUR = 1.5
"""Bins over which a label is spread: neighbouring values are learned together."""
_NEAR = 1 / 32
"""Of a property's range: how near to a value that was asked for counts."""


@dataclass(frozen=True)
class TargetConfig:
    """Size of the ensemble, and what it foretells.

    Attributes:
        conditions: properties by name, with unit and range.
        width: of the hidden layers.
        dropout: in training.
        members: networks whose mean is taken.
    """

    conditions: dict[str, Condition] = field(default_factory=dict)
    width: int = 256
    dropout: float = 0.3
    members: int = 4

    def __post_init__(self) -> None:
        check(self, width=(1, 8192), dropout=(0, 1), members=(1, 64))


class TargetCritic(StandardisedGenes):
    """Distribution of the properties of a gene with species, as histograms.

    Attributes:
        edges: of the bins of each property, [conditions, bins + 1], in its unit.
    """

    edges: Tensor

    def __init__(self, config: TargetConfig) -> None:
        super().__init__()
        self.config = config
        self.names = list(config.conditions)
        ranges = [(c.low, c.high) for c in config.conditions.values()]
        edges = torch.stack([torch.linspace(low, high, _BINS + 1) for low, high in ranges])
        self.register_buffer("edges", edges, persistent=False)
        outputs = len(ranges) * (1 + _BINS)
        self.members = nn.ModuleList(
            member(self.n_inputs, config.width, outputs, config.dropout) for _ in range(config.members)
        )

    def forward(
        self, batch: GeneBatch, kin: Float[Tensor, "crystals kin"]
    ) -> Float[Tensor, "members crystals conditions bins"]:
        """Log-probability of each bin by each member; the first bin is "at the low end of the range".

        Args:
            batch: genes with species, every one known; conditions and hints are not read.
            kin: distances of the nearest relatives, nearest first, infinite where there are no more.
        """
        inputs = self.inputs(batch, kin)
        logits = torch.stack([one(inputs) for one in self.members])
        return logits.unflatten(-1, (len(self.names), -1)).log_softmax(dim=-1)

    @torch.no_grad()
    def histograms(
        self, crystals: Sequence[Crystal], kin: Float[Tensor, "crystals kin"]
    ) -> Float[Tensor, "crystals conditions bins"]:
        """Probability of each bin, mean of the members."""
        batch = GeneBatch.from_crystals([replace(c, properties={}) for c in crystals])
        return self(batch.to(self.edges.device), kin.to(self.mean)).exp().mean(dim=0)

    def chances(
        self,
        crystals: Sequence[Crystal],
        kin: Float[Tensor, "crystals kin"],
        windows: Mapping[str, Window],
    ) -> Float[Tensor, "crystals windows"]:
        """Chance of each window, by name; a single value counts as what is within 1/32 of the range of it."""
        found = self.histograms(crystals, kin)
        columns = [found[:, self.names.index(name)] @ self.inside(name, w) for name, w in windows.items()]
        return torch.stack(columns, dim=1)

    def middles(
        self, histograms: Float[Tensor, "crystals conditions bins"]
    ) -> Float[Tensor, "crystals conditions"]:
        """Median of each property, in its unit, to half a bin."""
        middle = (histograms.cumsum(dim=-1) < 0.5).sum(dim=-1).clamp(max=_BINS)
        centres = (self.edges[:, 1:] + self.edges[:, :-1]) / 2
        values = torch.cat([self.edges[:, :1], centres], dim=1)
        return values.expand(len(histograms), -1, -1).gather(2, middle[..., None]).squeeze(-1)

    def inside(self, name: str, window: Window) -> Float[Tensor, "bins"]:
        """Share of each bin that lies in a window."""
        edges, condition = self.edges[self.names.index(name)], self.config.conditions[name]
        near = _NEAR * (condition.high - condition.low) if window.low == window.high else 0.0
        low, high = window.low - near, window.high + near
        shared = (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0)
        at_low = torch.tensor([float(low <= condition.low <= high)], device=edges.device)
        return torch.cat([at_low, shared / (edges[1] - edges[0])])


def target_loss(critic: TargetCritic, batch: LabelledGenes) -> Float[Tensor, ""]:
    """Cross-entropy of the labels' histograms, nats, mean over members and labels."""
    labels = batch.genes.conditions
    known = ~labels.isnan()
    wanted = spread_labels(labels.nan_to_num(), critic.edges)
    entropy = -(wanted * critic(batch.genes, batch.kin)).sum(dim=-1)
    return (entropy * known).sum() / (known.sum() * len(critic.members)).clamp(min=1)


def spread_labels(
    labels: Float[Tensor, "crystals conditions"], edges: Float[Tensor, "conditions edges"]
) -> Float[Tensor, "crystals conditions bins"]:
    """Labels as histograms: a Gaussian over bins, or the first bin alone at the low end of the range."""
    centres, width = (edges[:, 1:] + edges[:, :-1]) / 2, edges[:, 1:2] - edges[:, :1]
    value = labels.clamp(min=edges[:, 0], max=edges[:, -1])[..., None]
    bells = torch.softmax(-0.5 * ((value - centres) / (_BLUR * width)).square(), dim=-1)
    at_low = (value <= edges[:, :1]).to(labels)
    return torch.cat([at_low, (1 - at_low) * bells], dim=-1)
