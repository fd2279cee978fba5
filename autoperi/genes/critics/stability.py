"""How far above the hull a drawn gene will relax to, judged before geometry is paid for.

It learns from draws of the generator itself, relaxed with their symmetry kept: known crystals hold no
failures. What it reads is the gene with its species and how unlike the nearest training crystals of the same
pattern are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from autoperi.crystals.crystal import Crystal
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.described import LabelledGenes, StandardisedGenes, member
from autoperi.networks.config import check

_LEVELS, _FEWEST = 200, 50
_LANTHANIDES = range(57, 72)
_ANIONS = ((9, 17, 35, 53), (8,), (16, 34, 52), (7, 15, 33), (1, 5, 6, 14, 32, 51))
"""Halides, oxides, chalcogenides, pnictides, other compounds of what is no metal: the first that fits."""
KINDS = 2 * (len(_ANIONS) + 1)
_CENTRE, _SCALE, _ROBUST = 0.06, 0.15, 0.1
"""eV/atom: middle and spread of labels, and the error from which it counts by its size alone."""
_LOWEST, _HIGHEST = -0.2, 0.6
"""eV/atom: beyond, a crystal is as good or bad as any."""


@dataclass(frozen=True)
class StabilityConfig:
    """Size of the ensemble.

    Attributes:
        width: of the hidden layers.
        dropout: in training.
        members: networks whose mean is taken.
        refused: share of draws that are refused where nothing else is asked.
    """

    width: int = 128
    dropout: float = 0.3
    members: int = 4
    refused: float = 0.5

    def __post_init__(self) -> None:
        check(self, width=(1, 8192), dropout=(0, 1), members=(1, 64), refused=(0, 1))


class StabilityCritic(StandardisedGenes):
    """Expected energy above the hull of a gene with species, eV/atom.

    Attributes:
        levels: expected energies of the generator's own draws of each kind of chemistry (`kinds`), ascending,
            [kinds, levels]: the same share is refused in each, or easy chemistry would crowd out the rest.
    """

    levels: Tensor

    def __init__(self, config: StabilityConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or StabilityConfig()
        self.register_buffer("levels", torch.full((KINDS, _LEVELS), torch.inf))
        self.members = nn.ModuleList(
            member(self.n_inputs, config.width, 1, config.dropout) for _ in range(config.members)
        )

    def forward(
        self, batch: GeneBatch, kin: Float[Tensor, "crystals kin"]
    ) -> Float[Tensor, "members crystals"]:
        """What each member expects, eV/atom; every species must be known.

        Args:
            batch: genes with species; conditions and hints are not read.
            kin: distances of the nearest relatives, nearest first, infinite where there are no more.
        """
        scaled = self.inputs(batch, kin)
        found = torch.stack([one(scaled).squeeze(-1) for one in self.members])
        return found * _SCALE + _CENTRE

    @torch.no_grad()
    def expected(self, crystals: Sequence[Crystal], kin: Float[Tensor, "crystals kin"]) -> list[float]:
        """Mean of the members for each crystal, eV/atom."""
        batch = GeneBatch.from_crystals([replace(c, properties={}) for c in crystals])
        device = self.multiplicity.device
        return self(batch.to(device), kin.to(self.mean)).mean(dim=0).tolist()

    def thresholds(self, crystals: Sequence[Crystal], refused: float) -> list[float]:
        """Expected energy, eV/atom, that this share of unconditional draws of a crystal's kind exceeds."""
        limits = torch.quantile(self.levels.double(), 1 - refused, dim=1)
        return limits[kinds(crystals).to(limits.device)].tolist()

    @torch.no_grad()
    def calibrate(self, crystals: Sequence[Crystal], kin: Float[Tensor, "crystals kin"]) -> None:
        """Take the levels from unconditional draws; kinds of under 50 take those of all."""
        expected, kind = torch.tensor(self.expected(crystals, kin), dtype=torch.float64), kinds(crystals)
        share = torch.linspace(0, 1, _LEVELS, dtype=torch.float64)
        for k, levels in enumerate(self.levels):
            own = expected[kind == k]
            levels.copy_(torch.quantile(own if len(own) >= _FEWEST else expected, share))


def kinds(crystals: Sequence[Crystal]) -> Int[Tensor, "crystals"]:
    """Kind of chemistry of each crystal: its anions, and whether it holds a lanthanide."""
    found = []
    for crystal in crystals:
        species = set(crystal.species.tolist())
        anion = next((k for k, own in enumerate(_ANIONS) if species & set(own)), len(_ANIONS))
        found.append(2 * anion + bool(species & set(_LANTHANIDES)))
    return torch.tensor(found, dtype=torch.long)


def stability_loss(critic: StabilityCritic, batch: LabelledGenes) -> Float[Tensor, ""]:
    """Huber loss of every member, in units of the labels' spread; labels: heights above the hull, eV/atom."""
    found = critic(batch.genes, batch.kin)
    labels = batch.genes.conditions[:, 0].clamp(_LOWEST, _HIGHEST).expand_as(found)
    return huber_loss(found, labels, delta=_ROBUST) / (_SCALE * _ROBUST)
