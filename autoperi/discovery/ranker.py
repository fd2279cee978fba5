"""The learned ranker: which gene a formula has, from the training crystals that are like it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import softplus

from autoperi.crystals.crystal import MAX_Z
from autoperi.discovery.templates import MOST_ELEMENTS, Exchanges, Templates
from autoperi.networks.checkpoint import half_precision, restore, write_checkpoint
from autoperi.networks.config import check

SHIPPED = Path(__file__).parents[1] / "pretrained" / "mp_20" / "ranker"
"""Weights beside the generator's."""
_SHARES = (0.12, 0.2, 0.3, 0.45, 0.62)
"""Between these, elements weigh as much as has been learned for their share of the atoms."""
_WIDTHS = (0.05, 0.15, 0.4)
"""Of the kernels by which templates vote for their genes, in units of distance."""
_FAR = 3.0
"""Distance beyond which all is equally unlike."""
_NEVER = -1e9
_UNSTABLE = 0.5
"""eV/atom: beyond, a candidate is as bad as any; so is one without energy."""
_PLAIN, _ENERGIES = 10, 5
"""Numbers that the last networks read."""


@dataclass(frozen=True)
class RankerConfig:
    """Size of the networks.

    Attributes:
        heads, dim: embeddings of elements, and numbers of each.
        width: of the hidden layers.
        dropout: in training.
    """

    heads: int = 4
    dim: int = 8
    width: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check(self, heads=(1, 64), dim=(1, 256), width=(1, 8192), dropout=(0, 1))


@dataclass(frozen=True)
class ExchangeBatch:
    """The exchanges of many formulas, padded.

    Attributes:
        own, other, share, gene, distance, known: as in `Exchanges`; ``gene`` is -1 where there is none.
        facts: of the templates (`Templates`), their space groups last.
    """

    own: Int[Tensor, "formulas exchanges elements"]
    other: Int[Tensor, "formulas exchanges elements"]
    share: Float[Tensor, "formulas elements"]
    gene: Int[Tensor, "formulas exchanges"]
    distance: Float[Tensor, "formulas exchanges"]
    known: Bool[Tensor, "formulas exchanges"]
    facts: Float[Tensor, "formulas exchanges facts"]

    @classmethod
    def of(cls, exchanges: Sequence[Exchanges], templates: Templates) -> "ExchangeBatch":
        """Collate; formulas of more than seven elements are no crystals of the training set."""
        shape = len(exchanges), max(map(len, exchanges))
        facts = np.concatenate([templates.facts, templates.space_group[:, None]], axis=1)
        own, other = np.zeros((*shape, MOST_ELEMENTS), int), np.zeros((*shape, MOST_ELEMENTS), int)
        share, gene = np.zeros((shape[0], MOST_ELEMENTS), np.float32), np.full(shape, -1)
        distance, known = np.full(shape, _FAR, np.float32), np.zeros(shape, bool)
        told = np.ones((*shape, facts.shape[1]), np.float32)
        for i, some in enumerate(exchanges):
            n, k = some.own.shape
            own[i, :n, :k], other[i, :n, :k], share[i, :k] = some.own, some.other, some.share
            gene[i, :n], distance[i, :n], known[i, :n] = some.gene, some.distance, some.known
            told[i, :n] = facts[some.row]
        return cls(*map(torch.from_numpy, (own, other, share, gene, distance, known, told)))

    def select(self, index: Int[Tensor, "chosen"]) -> "ExchangeBatch":
        """Some of the formulas."""
        return type(self)(*(value[index] for value in vars(self).values()))


class GeneRanker(nn.Module):
    """How likely each gene with species is that of a formula.

    Templates vote for the genes that they make by a learned distance of elements; a second network reads the
    votes of each gene beside how near, how many, how large and how common its templates are.
    """

    shares: Tensor

    def __init__(self, config: RankerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RankerConfig()
        self.embedding = nn.Parameter(0.05 * torch.randn(config.heads, MAX_Z + 1, config.dim))
        self.weight = nn.Parameter(torch.ones(config.heads, len(_SHARES) + 1))
        self.register_buffer("shares", torch.tensor(_SHARES))
        drop, width = config.dropout, config.width
        self.head = nn.Sequential(
            *(nn.Linear(17 + len(_WIDTHS), width), nn.SiLU(), nn.Dropout(drop)),
            *(nn.Linear(width, width), nn.SiLU(), nn.Dropout(drop), nn.Linear(width, 1)),
        )

    def likeness(self, batch: ExchangeBatch) -> Float[Tensor, "formulas exchanges"]:
        """Minus the learned distance of each exchange; very low where there is none."""
        pair = batch.own * (MAX_Z + 1) + batch.other
        distances = torch.cdist(self.embedding, self.embedding, p=1).flatten(1)
        weights = softplus(self.weight)[:, torch.bucketize(batch.share, self.shares)] * batch.share.sqrt()
        parts = (d[pair] * w[:, None] for d, w in zip(distances, weights, strict=True))
        total = torch.stack([part.sum(dim=-1) for part in parts]).sum(dim=0)
        return (-total).masked_fill(batch.gene < 0, _NEVER)

    def forward(self, batch: ExchangeBatch) -> Float[Tensor, "formulas genes"]:
        """Logits of the genes by their number in `Exchanges`; very low where there is none."""
        genes, there = batch.gene.clamp(min=0), batch.gene >= 0
        shape = batch.gene.shape

        def total(values: Tensor) -> Tensor:
            return torch.zeros(shape).scatter_add(1, genes, values * there)

        def votes(logits: Tensor) -> Tensor:
            share = logits.masked_fill(~there, _NEVER).softmax(dim=1)
            return (total(share) + 1e-6).log()

        def least(values: Tensor) -> Tensor:
            held = values.masked_fill(~there, _FAR)
            return torch.full(shape, _FAR).scatter_reduce(1, genes, held, "amin")

        count = total(there.float())
        exists = count > 0
        learned = votes(self.likeness(batch))
        near = batch.distance.clamp(max=_FAR)
        strange = near.masked_fill(batch.known, _FAR)
        nearest, known = least(near), total(batch.known.float()) > 0
        places = torch.arange(shape[1]).expand(shape).masked_fill(~there, shape[1] - 1)
        first = torch.full(shape, shape[1] - 1).scatter_reduce(1, genes, places, "amin")
        facts = batch.facts.gather(1, first[..., None].expand(-1, -1, batch.facts.shape[-1]))
        atoms, sites, free, common, group = facts.unbind(dim=-1)
        chance = learned.exp() * exists
        alike = [x[:, :, None] == x[:, None] for x in (atoms, group)]
        of_formula = [
            known.sum(dim=1).clamp(max=4),
            (batch.share > 0).sum(dim=1),
            strange.amin(dim=1),
            exists.sum(dim=1).log1p(),
        ]
        inputs = [
            learned / 3,
            (learned - learned.masked_fill(~exists, _NEVER).amax(dim=1, keepdim=True)) / 3,
            *(votes(-near / width) / 3 for width in _WIDTHS),
            count.log1p(),
            nearest,
            nearest - strange.amin(dim=1, keepdim=True),
            known.float(),
            atoms.log(),
            sites.log(),
            free.log1p(),
            common.log() / 3,
            group / 100,
            *(((same * chance[:, None]).sum(dim=-1) + 1e-3).log() for same in alike),
            *(x.float()[:, None].expand(shape) for x in of_formula),
        ]
        scores = self.head(torch.stack(inputs, dim=-1)).squeeze(-1) + learned
        return scores.masked_fill(~exists, _NEVER)


@dataclass(frozen=True)
class Facts:
    """What the ranker reads of a candidate.

    Attributes:
        chance: of its gene among those that templates make, less for a second geometry of it; or its share of
            the learned prior's draws.
        support: the same summed with less likely ones that match it.
        distance: of the template.
        known: whether it is a training crystal.
        drawn: whether it is the learned prior's.
        atoms: in the primitive cell.
        nearest: distance of the nearest template of another formula.
        above: energy above the lowest of the formula's candidates after relaxation, eV/atom; None where
            there is none.
    """

    chance: float
    support: float
    distance: float
    known: bool
    drawn: bool
    atoms: int
    nearest: float
    above: float | None = None


class CandidateRanker(nn.Module):
    """Probability that a candidate is the crystal of its formula, with and without energies.

    It learned from held-out crystals: none of them is a training crystal, so that what is ``known`` counts
    as an answer already given, and a formula's other crystals are looked for.

    Attributes:
        genes: ranks genes by templates.
        about: provenance of the weights.
    """

    def __init__(self, config: RankerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RankerConfig()
        self.genes = GeneRanker(config)
        self.plain = nn.Sequential(nn.Linear(_PLAIN, 32), nn.SiLU(), nn.Linear(32, 1))
        self.relaxed = nn.Sequential(nn.Linear(1 + _ENERGIES, 1))
        self.about: dict[str, Any] = {}

    def forward(
        self,
        inputs: Float[Tensor, "candidates inputs"],
        energies: Float[Tensor, "candidates energies"] | None = None,
    ) -> Float[Tensor, "candidates"]:
        """Logits of candidates from `plain_inputs`, and `energy_inputs` where they are to be read."""
        plain = self.plain(inputs)
        if energies is None:
            return plain.squeeze(-1)
        return (plain + self.relaxed(torch.cat([plain / 3, energies], dim=1))).squeeze(-1)

    @torch.no_grad()
    def probabilities(self, facts: Sequence[Facts]) -> list[float]:
        """That each candidate of a formula is its crystal, with energies where any is known."""
        energies = energy_inputs(facts) if any(f.above is not None for f in facts) else None
        return self(plain_inputs(facts), energies).double().sigmoid().tolist()


def plain_inputs(facts: Sequence[Facts]) -> Float[Tensor, "candidates inputs"]:
    """The candidates of one formula in numbers, without energies."""
    chance = torch.tensor([f.chance for f in facts]).clamp(min=1e-4).log()
    support = torch.tensor([f.support for f in facts]).clamp(min=1e-4).log()
    best = support.topk(min(2, len(facts))).values
    rival = torch.where(support == best[0], best[-1], best[0])
    rows = [(f.distance, f.known, f.drawn, np.log(f.atoms), f.nearest) for f in facts]
    told = torch.tensor(np.array(rows, dtype=np.float32))
    among = torch.full((len(facts), 1), float(np.log(len(facts))))
    known = told[:, 1:2].amax(dim=0).expand(len(facts), 1)
    return torch.cat([torch.stack([chance, support, support - rival], dim=1) / 3, told, among, known], dim=1)


def energy_inputs(facts: Sequence[Facts]) -> Float[Tensor, "candidates energies"]:
    """The energies of the candidates of one formula in numbers."""
    missing = torch.tensor([f.above is None for f in facts])
    above = torch.tensor([_UNSTABLE if f.above is None else min(f.above, _UNSTABLE) for f in facts])
    order = above.sort().values
    gap = order[min(1, len(order) - 1)] - order[0]
    steps = [above * 5, *((-above / width).exp() for width in (0.005, 0.03, 0.1))]
    return torch.stack([*steps, torch.where(missing, -1.0, gap * 10)], dim=1)


def save(ranker: CandidateRanker, folder: Path, about: dict[str, Any]) -> str:
    """Write a ranker, its matrices in float16; returns the weights' sha256."""
    return write_checkpoint(folder, half_precision(ranker), ranker.config, about)


def load(folder: Path = SHIPPED) -> CandidateRanker:
    """A trained ranker, by default the shipped one; raises CheckpointError for a damaged one."""
    ranker, content = restore(folder, RankerConfig, CandidateRanker)
    ranker.about = {"sha256": content["sha256"], **content["about"]}
    return ranker.eval()
