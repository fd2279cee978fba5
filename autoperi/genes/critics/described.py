"""A whole gene with species as standardised numbers: what critics that foretell properties read."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import one_hot

from autoperi.crystals.crystal import MAX_Z
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.kin import KIN_FEATURES, kin_features
from autoperi.genes.features import GeneDescription

_FARTHEST = 6
"""Spreads from the mean beyond which a number says no more."""


class StandardisedGenes(GeneDescription):
    """Description, composition and distances of relatives, in spreads from the training set's mean."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.n_inputs = self.n_described + 2 * MAX_Z + KIN_FEATURES
        self.register_buffer("mean", torch.zeros(self.n_inputs))
        self.register_buffer("spread", torch.ones(self.n_inputs))

    def inputs(
        self, batch: GeneBatch, kin: Float[Tensor, "crystals kin"]
    ) -> Float[Tensor, "crystals inputs"]:
        """What a network reads; every species must be known, conditions and hints are not read.

        Args:
            batch: genes with species.
            kin: distances of the nearest relatives, nearest first, infinite where there are no more.
        """
        scaled = (self._raw(batch, kin) - self.mean) / self.spread
        return scaled.clamp(-_FARTHEST, _FARTHEST)

    @torch.no_grad()
    def standardise(self, batch: GeneBatch, kin: Float[Tensor, "crystals kin"]) -> None:
        """Take mean and spread from a training set."""
        inputs = self._raw(batch, kin)
        self.mean.copy_(inputs.mean(dim=0))
        self.spread.copy_(inputs.std(dim=0) + 1e-2)

    def _raw(self, batch: GeneBatch, kin: Float[Tensor, "crystals kin"]) -> Float[Tensor, "crystals inputs"]:
        is_site = batch.wyckoff >= 0
        atoms = self.multiplicity[batch.wyckoff.clamp(min=0)] * is_site
        amounts = (one_hot(batch.species, MAX_Z + 1) * atoms[..., None]).sum(dim=1)[:, 1:].to(kin)
        share = amounts / amounts.sum(dim=1, keepdim=True)
        parts = [self.described(batch).to(kin), share, (share > 0).to(kin), kin_features(kin)]
        return torch.cat(parts, dim=1)


def member(inputs: int, width: int, outputs: int, dropout: float) -> nn.Module:
    """One network of an ensemble; half the dropout at its input."""
    return nn.Sequential(
        *(nn.Dropout(dropout / 2), nn.Linear(inputs, width), nn.SiLU()),
        *(nn.Dropout(dropout), nn.Linear(width, width), nn.SiLU()),
        *(nn.Dropout(dropout), nn.Linear(width, outputs)),
    )


@dataclass(frozen=True)
class LabelledGenes:
    """Genes with species and labels, and how far their relatives are."""

    genes: GeneBatch
    """Its conditions are the labels, NaN where there is none."""
    kin: Float[Tensor, "crystals kin"]

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.genes)

    def select(self, index: Tensor) -> "LabelledGenes":
        """Some of them."""
        return type(self)(self.genes.take(index), self.kin[index])

    def to(self, device: torch.device) -> "LabelledGenes":
        """Move everything."""
        return type(self)(self.genes.to(device), self.kin.to(device))
