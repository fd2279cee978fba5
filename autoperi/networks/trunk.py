"""Trunks, the equivariant networks of sites inside decoder and velocity, and the heads on top of one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.crystals.crystal import CrystalBatch
from autoperi.networks.embedding import CrystalEmbedding, LatticeScale, SiteEmbedding
from autoperi.networks.layers import mlp
from autoperi.networks.manifold import Point

TENSORS = 4
"""Cartesian tensors of each crystal that a trunk gives."""


@dataclass(frozen=True)
class OrbitFeatures:
    """Features of each site and each crystal, as a trunk answers."""

    scalars: Float[Tensor, "sites width"]
    vectors: Float[Tensor, "sites 3 vectors"]
    """Cartesian, invariant under the site's stabiliser."""
    crystal: Float[Tensor, "crystals width"]
    strain: Float[Tensor, "crystals tensors 3 3"]
    """Symmetric Cartesian tensors, invariant under the space group: what pulls on the cell."""


class Trunk(nn.Module, ABC):
    """Equivariant network of sites: inputs of sites and crystals, and a geometry -> `OrbitFeatures`."""

    @abstractmethod
    def forward(
        self,
        batch: CrystalBatch,
        site_inputs: Float[Tensor, "sites site_inputs"],
        crystal_inputs: Float[Tensor, "crystals crystal_inputs"],
    ) -> OrbitFeatures:
        """Run on the geometry of ``batch``; species enter through ``site_inputs`` alone."""


@runtime_checkable
class TrunkConfig(Protocol):
    """Sizes of a trunk, and how it is made."""

    @property
    def width(self) -> int:
        """Scalar channels per site and per crystal."""
        ...

    @property
    def vectors(self) -> int:
        """Vector channels per site."""
        ...

    def trunk(self, site_inputs: int, crystal_inputs: int) -> Trunk:
        """The network, for inputs of so many channels."""
        ...


class GeometryNetwork(nn.Module):
    """A trunk on a latent point of given genes, read out as an arrow per site and six numbers per lattice.

    Args:
        trunk: sizes of the trunk.
        latent: channels of h.
        more: channels of further inputs of each crystal.
    """

    def __init__(self, trunk: TrunkConfig, latent: int, more: int = 0) -> None:
        super().__init__()
        self.scale = LatticeScale()
        self.sites = SiteEmbedding()
        self.crystals = CrystalEmbedding()
        self.trunk = trunk.trunk(self.sites.outputs + latent, self.crystals.outputs + more)
        self.arrow = nn.Linear(trunk.vectors, 1, bias=False)
        self.arrow_scale = mlp(trunk.width, trunk.width, 1)
        self.lattice = mlp(trunk.width + 6 + 6 * TENSORS, trunk.width, 6)

    def features(
        self, point: Point, genes: CrystalBatch, more: Sequence[Float[Tensor, "crystals _"]] = ()
    ) -> tuple[CrystalBatch, OrbitFeatures]:
        """Crystals of these genes at (h, s, z), and what the trunk says of them."""
        h, s, z = point
        batch = genes.with_geometry(s, self.scale.to_coords(z, genes))
        sites = torch.cat([self.sites(batch), h], -1)
        return batch, self.trunk(batch, sites, torch.cat([self.crystals(batch, z), *more], -1))

    def arrows(self, features: OrbitFeatures) -> Float[Tensor, "sites 3"]:
        """A Cartesian vector per site, invariant under its stabiliser."""
        return self.arrow(features.vectors).squeeze(-1) * self.arrow_scale(features.scalars)

    def lattice_row(
        self, features: OrbitFeatures, z: Float[Tensor, "crystals 6"]
    ) -> Float[Tensor, "crystals 6"]:
        """Six numbers per crystal, from its state, its lattice and its Cartesian tensors."""
        strain = features.strain.flatten(2)[..., [0, 4, 8, 5, 2, 1]].flatten(1)
        return self.lattice(torch.cat([features.crystal, z, strain], -1))
