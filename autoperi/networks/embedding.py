"""Embeddings of gene, species, lattice and time: the inputs of a network beside the geometry."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autoperi.crystals.crystal import MAX_Z, CrystalBatch
from autoperi.crystals.lattice import constrain_lattice
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.networks.layers import sum_by

_FARTHEST = 8.0
"""Standard deviations beyond which a lattice coordinate is held: a bad step must not make a cell flat."""


class LatticeScale(nn.Module):
    """Lattice coordinates as standard numbers: z = (ℓ - mean) / spread, per crystal family.

    The mean of the volume coordinate follows the number of atoms of the conventional cell. The base of the
    flow is the standard normal of z, so this is the base distribution of the flow.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6, 6))
        self.register_buffer("spread", torch.ones(6, 6))

    @torch.no_grad()
    def fit(self, batch: CrystalBatch) -> None:
        """Means and spreads of a training set; families with under 20 members take all crystals'."""
        centred = batch.lattice_coords - self._volume_shift(batch)
        family, mask = batch.family(), batch.lattice_mask()
        overall = (centred * mask).sum(0) / mask.sum(0).clamp_min(1)
        overall_spread = ((centred - overall).square() * mask).sum(0) / mask.sum(0).clamp_min(1)
        for f in range(6):
            own = family == f
            enough = int(own.sum()) >= 20
            mean = centred[own].mean(0) if enough else overall
            variance = centred[own].var(0) if enough else overall_spread
            self.mean[f] = mean.to(self.mean)
            self.spread[f] = variance.sqrt().clamp_min(0.02).to(self.spread)

    def _volume_shift(self, batch: CrystalBatch) -> Float[Tensor, "crystals 6"]:
        """ln(atoms per conventional cell) / 3 in the volume coordinate."""
        cell = wyckoff_table(str(batch.device)).primitive[batch.space_group]
        centring = 1 / torch.linalg.det(cell).abs()
        shift = torch.zeros_like(batch.lattice_coords)
        shift[:, 5] = ((batch.n_atoms() * centring).log() / 3).to(shift)
        return shift

    def to_coords(self, z: Float[Tensor, "crystals 6"], batch: CrystalBatch) -> Float[Tensor, "crystals 6"]:
        """ℓ from z; the family's fixed coordinates are put in."""
        family = batch.family()
        coords = z.clamp(-_FARTHEST, _FARTHEST) * self.spread[family].to(z) + self.mean[family].to(z)
        return constrain_lattice(coords + self._volume_shift(batch).to(z), family)

    def from_coords(
        self, coords: Float[Tensor, "crystals 6"], batch: CrystalBatch
    ) -> Float[Tensor, "crystals 6"]:
        """The z of ℓ, zero where the family fixes the coordinate."""
        family = batch.family()
        z = coords - self._volume_shift(batch).to(coords) - self.mean[family].to(coords)
        return z / self.spread[family].to(coords) * batch.lattice_mask().to(coords)

    def log_volume_change(self, batch: CrystalBatch) -> Float[Tensor, "crystals"]:
        """Log |dz/dℓ|: what a density in z gains when read in ℓ."""
        return -(self.spread[batch.family()].log() * batch.lattice_mask()).sum(-1)


class SiteEmbedding(nn.Module):
    """Wyckoff position, multiplicity, free dimensions and species (0 = unknown) of each site."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        positions = len(wyckoff_table().space_group)
        self.position = nn.Embedding(positions, width)
        self.species = nn.Embedding(MAX_Z + 1, 2 * width)
        self.outputs = 3 * width + 6
        nn.init.normal_(self.position.weight, std=0.3)

    def forward(self, batch: CrystalBatch) -> Float[Tensor, "sites outputs"]:
        """Concatenated features."""
        table = wyckoff_table(str(batch.device))
        dims = nn.functional.one_hot(table.dim[batch.wyckoff], 4).to(self.position.weight.dtype)
        multiplicity = table.multiplicity[batch.wyckoff].to(dims)
        share = multiplicity / batch.n_atoms().to(dims)[batch.crystal]
        extra = torch.stack([multiplicity.log(), share], -1)
        return torch.cat([self.position(batch.wyckoff), self.species(batch.species), dims, extra], -1)


class CrystalEmbedding(nn.Module):
    """Space group, family, size and lattice of each crystal."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.group = nn.Embedding(231, width)
        self.outputs = width + 6 + 2 + 6
        nn.init.normal_(self.group.weight, std=0.3)

    def forward(
        self, batch: CrystalBatch, z: Float[Tensor, "crystals 6"]
    ) -> Float[Tensor, "crystals outputs"]:
        """Concatenated features; z are the standardised lattice coordinates."""
        family = nn.functional.one_hot(batch.family(), 6).to(z)
        sites = sum_by(torch.ones_like(batch.free[:, :1]), batch.crystal, batch.n_crystals)
        size = torch.cat([batch.n_atoms().to(z)[:, None], sites.to(z)], -1).log()
        return torch.cat([self.group(batch.space_group), family, size, z], -1)


def time_features(t: Float[Tensor, "crystals"], count: int = 16) -> Float[Tensor, "crystals features"]:
    """Sines and cosines of t at geometric frequencies, and t itself."""
    frequencies = 2.0 ** torch.arange(count // 2, device=t.device) * math.pi / 2
    phase = t[:, None] * frequencies.to(t)
    return torch.cat([phase.sin(), phase.cos(), t[:, None]], -1)


def start_features(distance: Float[Tensor, "crystals"]) -> Float[Tensor, "crystals features"]:
    """How near the relative is that a trajectory began from: all zero for an infinite distance, noise."""
    return torch.stack([distance.isfinite().to(distance), 1 / (1 + distance)], -1)


START_FEATURES = 2
"""Numbers that `start_features` gives."""


def known_sites(
    species: Int[Tensor, "sites"], crystal: Int[Tensor, "sites"], generator: torch.Generator | None = None
) -> Int[Tensor, "sites"]:
    """Hide species for training: all known on 60% of the crystals, none on 20%, some on the rest."""
    n = int(crystal.max()) + 1
    mode = torch.rand(n, generator=generator)
    rate = torch.rand(n, generator=generator)
    rate = torch.where(mode < 0.6, 1.0, torch.where(mode < 0.8, 0.0, rate))
    keep = torch.rand(len(species), generator=generator) < rate[crystal.cpu()]
    return torch.where(keep.to(species.device), species, 0)
