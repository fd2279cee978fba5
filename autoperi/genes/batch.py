"""Genes and species of many crystals as padded tensors: what the gene network reads."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from autoperi.crystals.crystal import MAX_Z, Crystal
from autoperi.crystals.labels import condition_row
from autoperi.crystals.wyckoff import relabellings

_RATIOS = 8
HINT_SIZE = 3 + 2 * (MAX_Z + 1) + _RATIOS
"""Length of a composition hint."""


@dataclass(frozen=True)
class GeneBatch:
    """Genes of many crystals under their first names (`relabellings`), padded with position -1, species 0."""

    space_group: Int[Tensor, "crystals"]
    wyckoff: Int[Tensor, "crystals sites"]
    species: Int[Tensor, "crystals sites"]
    conditions: Float[Tensor, "crystals scalars"]
    """NaN where nothing is asked."""
    hint: Float[Tensor, "crystals hint"]
    """See `composition_hint`; zero where nothing is told."""

    @classmethod
    def from_crystals(cls, crystals: Sequence[Crystal], conditions: Collection[str] = ()) -> "GeneBatch":
        """Collate, with properties of the crystals as conditions; raises ValueError for an empty list.

        Genes go by their first name (`relabellings`), sites in its order.
        """
        if not crystals:
            raise ValueError("expected at least one crystal to make a batch: got none")
        sites = max(c.n_sites for c in crystals)
        wyckoff = torch.full((len(crystals), sites), -1)
        species = torch.zeros(len(crystals), sites, dtype=torch.long)
        for i, c in enumerate(crystals):
            named, order = relabellings(c.space_group, tuple(c.wyckoff.tolist()))[0]
            wyckoff[i, : c.n_sites] = torch.tensor(named)
            species[i, : c.n_sites] = torch.from_numpy(c.species).long()[list(order)]
        values = [condition_row(c.properties, conditions) for c in crystals]
        return cls(
            space_group=torch.tensor([c.space_group for c in crystals]),
            wyckoff=wyckoff,
            species=species,
            conditions=torch.tensor(values).view(len(crystals), len(conditions)),
            hint=torch.zeros(len(crystals), HINT_SIZE),
        )

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.space_group)

    def take(self, index: Int[Tensor, "chosen"]) -> "GeneBatch":
        """Some of the crystals, padded no further than they need."""
        part = self.select(index)
        sites = int((part.wyckoff >= 0).sum(dim=1).max())
        return replace(part, wyckoff=part.wyckoff[:, :sites], species=part.species[:, :sites])

    def select(self, index: Int[Tensor, "chosen"]) -> "GeneBatch":
        """Some of the crystals, with the same padding."""
        return GeneBatch(
            space_group=self.space_group[index],
            wyckoff=self.wyckoff[index],
            species=self.species[index],
            conditions=self.conditions[index],
            hint=self.hint[index],
        )

    def to(self, device: torch.device | str) -> "GeneBatch":
        """The same batch on another device."""
        return GeneBatch(
            *(
                t.to(device)
                for t in (self.space_group, self.wyckoff, self.species, self.conditions, self.hint)
            )
        )


def composition_hint(
    species: Int[Tensor, "crystals sites"],
    atoms: Int[Tensor, "crystals sites"],
    kind: Int[Tensor, "crystals"],
) -> Float[Tensor, "crystals hint"]:
    """Tell the network about a composition: nothing (kind 0), its elements (1), formula (2) or ratios (3).

    One-hot of the kind, elements present, atomic fractions, and fractions without names, largest first.
    """
    counts = (one_hot(species, MAX_Z + 1) * atoms[..., None]).sum(dim=1).float()
    counts = counts.index_fill(1, torch.zeros(1, dtype=torch.long, device=counts.device), 0.0)
    fraction = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    ratios = fraction.sort(dim=1, descending=True).values[:, :_RATIOS]
    column = kind[:, None]
    return torch.cat(
        [
            one_hot(kind, 4)[:, 1:].float(),
            (fraction > 0) * ((column == 1) | (column == 2)),
            fraction * (column == 2),
            ratios * (column >= 2),
        ],
        dim=1,
    )
