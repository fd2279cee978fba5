"""The velocity of the flow: what the orbit-reduced network answers in the free directions only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import MAX_Z, CrystalBatch
from autoperi.crystals.labels import DEFAULT_CONDITIONS, Condition
from autoperi.flow.ode import Velocity
from autoperi.networks.condition import ConditionEmbedding
from autoperi.networks.config import check
from autoperi.networks.embedding import START_FEATURES, LatticeScale, start_features, time_features
from autoperi.networks.layers import mlp
from autoperi.networks.manifold import Euclidean, FlatTorus, Point, Product
from autoperi.networks.orbit_network import OrbitNetworkConfig
from autoperi.networks.trunk import GeometryNetwork

LATENT_MANIFOLD = Product((Euclidean(), FlatTorus(), Euclidean()))
"""(h, s, z): chemical latents, free coordinates, standardised lattice coordinates."""

_TIME_FEATURES = 17


@dataclass(frozen=True)
class VelocityConfig:
    """Size of the velocity network.

    Attributes:
        latent: channels of the chemical latent h.
        condition_width: channels of the embedded scalar conditions.
        network: the message-passing trunk.
    """

    latent: int = 8
    condition_width: int = 32
    network: OrbitNetworkConfig = field(
        default_factory=lambda: OrbitNetworkConfig(width=192, vectors=48, layers=8)
    )

    def __post_init__(self) -> None:
        check(self, latent=(1, 1024), condition_width=(1, 8192))


_LAST = 0.02
"""Time to data below which the velocity no longer grows: it would be 0/0 at t = 1."""


@dataclass(frozen=True)
class VelocityOutput:
    """What the network says at one time."""

    displacement: Point
    """Expected way from here to the data."""
    velocity: Point
    """The displacement over the time that is left."""
    logits: Float[Tensor, "sites 101"]
    """Species of each site, as read from the noisy crystal."""


@runtime_checkable
class LatentVelocity(Protocol):
    """What the flow-matching loss needs of a velocity network."""

    scale: LatticeScale

    def __call__(
        self,
        t: Float[Tensor, "crystals"],
        point: Point,
        genes: CrystalBatch,
        conditions: Float[Tensor, "crystals scalars"],
        distance: Float[Tensor, "crystals"] | None = None,
    ) -> VelocityOutput:
        """Displacement, velocity and logits at times t, of trajectories that began so far from the gene."""
        ...


class VelocityNetwork(GeometryNetwork):
    """(t, h, s, z | gene, known species, conditions) -> (dh, ds, dz)/dt.

    The Cartesian arrow of each site is projected onto its Wyckoff set and the lattice rate is masked by
    the crystal family, so a symmetric crystal stays symmetric along the whole trajectory.

    What is predicted is the clean crystal, and the velocity is the way there over the time left,
    ``v = (E[x_1 | x_t] - x_t) / (1 - t)``: trajectories then close in on what the network believes, however
    steep the field becomes towards t = 1.
    """

    def __init__(
        self, config: VelocityConfig, conditions: Mapping[str, Condition] = DEFAULT_CONDITIONS
    ) -> None:
        more = _TIME_FEATURES + config.condition_width + START_FEATURES
        super().__init__(config.network, config.latent, more)
        self.config = config
        width = config.network.width
        self.conditions = ConditionEmbedding(config.condition_width, conditions)
        self.latent = mlp(width + config.latent, width, config.latent)
        self.species = mlp(width, width, MAX_Z + 1)

    def forward(
        self,
        t: Float[Tensor, "crystals"],
        point: Point,
        genes: CrystalBatch,
        conditions: Float[Tensor, "crystals scalars"],
        distance: Float[Tensor, "crystals"] | None = None,
    ) -> VelocityOutput:
        """Velocity at time t; the geometry in ``genes`` is ignored, its species are what is known.

        Args:
            t: time of each crystal.
            point: (h, s, z) there.
            genes: space groups, positions and known species.
            conditions: NaN where nothing is asked.
            distance: of the relative that each trajectory began from; infinite, or not given: noise.
        """
        h, _, z = point
        if distance is None:
            distance = torch.full_like(t, torch.inf)
        told = [time_features(t), self.conditions(conditions), start_features(distance)]
        batch, features = self.features(point, genes, told)
        displacement = (
            self.latent(torch.cat([features.scalars, h], -1)) - h,
            batch.tangent(self.arrows(features) * _spacing(batch)[batch.crystal]),
            (self.lattice_row(features, z) - z) * batch.lattice_mask(),
        )
        left = (1 - t).clamp_min(_LAST)
        velocity = (x / left[row][:, None] for x, row in zip(displacement, latent_rows(batch), strict=True))
        return VelocityOutput(displacement, tuple(velocity), self.species(features.scalars))

    def field(
        self,
        genes: CrystalBatch,
        conditions: Float[Tensor, "crystals scalars"],
        guidance: float = 1.0,
        distance: Float[Tensor, "crystals"] | None = None,
    ) -> Velocity:
        """The velocity as the flow wants it: a callable of scalar t and point.

        ``guidance`` mixes conditional and unconditional velocities, v = v_∅ + g (v_c - v_∅) (Ho and
        Salimans, arXiv:2207.12598); 1 is the plain conditional field.
        """
        null = torch.full_like(conditions, torch.nan)
        guided = guidance != 1.0 and bool((~conditions.isnan()).any())

        def velocity(t: Tensor, point: Point) -> Point:
            times = t.expand(genes.n_crystals)
            asked = self(times, point, genes, conditions, distance).velocity
            if not guided:
                return asked
            free = self(times, point, genes, null, distance).velocity
            return tuple(u + guidance * (c - u) for u, c in zip(free, asked, strict=True))

        return velocity


def latent_rows(batch: CrystalBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Crystal of each row of h, s and z."""
    crystals = torch.arange(batch.n_crystals, device=batch.device)
    return batch.crystal, batch.crystal, crystals


def base_point(batch: CrystalBatch, latent: int, generator: torch.Generator | None = None) -> Point:
    """Noise for the batch's genes: normal h, uniform s, normal z, zero where nothing is free."""
    shapes = ((batch.n_sites, latent), (batch.n_sites, 3), (batch.n_crystals, 6))
    draws = (m.sample(n, generator) for m, n in zip(LATENT_MANIFOLD.factors, shapes, strict=True))
    return tuple(x.to(m) * m for x, m in zip(draws, latent_masks(batch, latent), strict=True))


def latent_masks(batch: CrystalBatch, latent: int) -> Point:
    """1 for every coordinate of (h, s, z) that is free, else 0."""
    return batch.free.new_ones(batch.n_sites, latent), batch.free_mask(), batch.lattice_mask()


def _spacing(batch: CrystalBatch) -> Float[Tensor, "crystals 1"]:
    """(V / N)^(1/3) in Å: the length in which arrows are predicted."""
    volume = torch.linalg.det(batch.lattice()).abs()
    return (volume / batch.n_atoms()).pow(1 / 3)[:, None]
