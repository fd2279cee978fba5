"""Kin: the nearest relatives of every crystal of a set, from which the flow learns to begin."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.flow.loss import RelativeStarts
from autoperi.flow.relatives import Relatives
from autoperi.networks.autoencoder import Encoder

_MOST = 2
"""Relatives of each crystal that are kept."""
_SHARE = 0.4
"""Of the crystals that have a relative: how many begin from one, the others from noise."""
_SEARCHED = 6
"""Nearest relatives among which those described as the crystal itself are looked for."""


@dataclass(frozen=True)
class Kin:
    """Geometries of relatives in the places of the crystals of a set, nearest first.

    Where a crystal has fewer, the distance is infinite and the geometry its own.
    """

    free: Float[Tensor, "sites most 3"]
    lattice_coords: Float[Tensor, "crystals most 6"]
    distance: Float[Tensor, "crystals most"]
    latents: Float[Tensor, "sites most latent"] | None = None
    """Means of q(h), with the crystals' own species, once encoded."""

    @classmethod
    def of(cls, crystals: Sequence[Crystal], relatives: Relatives, themselves: bool) -> "Kin":
        """Look up the relatives of a set.

        Args:
            crystals: the set.
            relatives: of the training set.
            themselves: whether the set is that very one, in its order: no crystal is its own relative.
        """
        batch = CrystalBatch.from_crystals(crystals).to(dtype=torch.float32)
        free = batch.free[:, None].repeat(1, _MOST, 1)
        lattice = batch.lattice_coords[:, None].repeat(1, _MOST, 1)
        distance = torch.full((len(crystals), _MOST), torch.inf)
        ends = torch.bincount(batch.crystal, minlength=len(crystals)).cumsum(0).tolist()
        for i, crystal in enumerate(crystals):
            found = relatives.ranked(crystal, _SEARCHED, i if themselves else None)
            alike = [own for own in found if np.array_equal(own.crystal.wyckoff, crystal.wyckoff)]
            sites = slice(ends[i] - crystal.n_sites, ends[i])
            for k, own in enumerate(alike[:_MOST]):
                free[sites, k] = torch.from_numpy(own.crystal.free).to(free)
                lattice[i, k] = torch.from_numpy(own.crystal.lattice_coords).to(lattice)
                distance[i, k] = own.distance
        return cls(free, lattice, distance)

    @torch.no_grad()
    def encoded(self, batch: CrystalBatch, encoder: Encoder, chunk: int) -> "Kin":
        """The same with latents, found where the encoder is; ``batch`` are the crystals of the set."""
        device, latents = next(encoder.parameters()).device, []
        for k in range(_MOST):
            place = replace(batch, free=self.free[:, k], lattice_coords=self.lattice_coords[:, k])
            parts = torch.arange(batch.n_crystals).split(chunk)
            means = [encoder(place.select(part).to(device)).mean.cpu() for part in parts]
            latents.append(torch.cat(means))
        return replace(self, latents=torch.stack(latents, 1))

    def select(self, sites: Tensor, crystals: Tensor) -> "Kin":
        """Those of some crystals, by the numbers of their sites and their own."""
        latents = None if self.latents is None else self.latents[sites]
        return Kin(self.free[sites], self.lattice_coords[crystals], self.distance[crystals], latents)

    def to(self, device: torch.device | str) -> "Kin":
        """The same on another device."""
        latents = None if self.latents is None else self.latents.to(device)
        free, lattice = self.free.to(device), self.lattice_coords.to(device)
        return Kin(free, lattice, self.distance.to(device), latents)

    def draw(self, crystal: Tensor, generator: torch.Generator | None = None) -> RelativeStarts:
        """One relative of some of the crystals, any that they have; the others begin from noise.

        Args:
            crystal: of each site.
            generator: of the choice.

        Raises:
            ValueError: they were not encoded.
        """
        if self.latents is None:
            raise ValueError("expected encoded relatives: call TrainingSet.encoded(encoder) first")
        had = self.distance.isfinite().sum(-1).clamp_min(1)
        row = torch.arange(len(had), device=had.device)
        k = (torch.rand(len(had), generator=generator).to(had.device) * had).long()
        site = torch.arange(len(self.free), device=had.device)
        of_site = k[crystal]
        noise = (torch.rand(len(had), generator=generator) >= _SHARE).to(had.device)
        return RelativeStarts(
            self.free[site, of_site],
            self.lattice_coords[row, k],
            self.latents[site, of_site],
            self.distance[row, k].masked_fill(noise, torch.inf),
        )
