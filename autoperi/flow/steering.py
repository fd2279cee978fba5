"""What bends trajectories beside the velocity: a guide that pushes, and parts of crystals that are held."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from autoperi.crystals.crystal import CrystalBatch
from autoperi.flow.coupling import nearest_image
from autoperi.flow.ode import Velocity
from autoperi.flow.velocity import LATENT_MANIFOLD
from autoperi.networks.manifold import Point

Guide = Callable[[Tensor, Point, CrystalBatch], Point]
"""``guide(t, (h, s, z), genes) -> tangent``, added to the velocity in the free directions; t is a scalar."""


def guided(velocity: Velocity, guide: Guide, genes: CrystalBatch, masks: Point) -> Velocity:
    """The velocity with the guide's push in the free directions."""

    def steered(t: Tensor, point: Point) -> Point:
        parts = zip(velocity(t, point), guide(t, point, genes), masks, strict=True)
        return tuple(v + push * mask for v, push, mask in parts)

    return steered


@dataclass(frozen=True, eq=False)
class Held:
    """What of the geometry that a gene has is kept while the rest is drawn.

    Attributes:
        sites: whether each site stays where it is, as fractional coordinates.
        cell: whether the cell stays.
    """

    sites: Bool[np.ndarray, "sites"]
    cell: bool = False


@dataclass(frozen=True)
class Hold:
    """Coordinates of a batch that trajectories keep.

    At every time they are as far from noise as all others are: on the straight way from where they began to
    where they are held (replacement, Song et al., arXiv:2011.13456, appendix I.2). Going back and forth again
    lets the rest agree with them (Lugmayr et al., arXiv:2201.09865).

    Attributes:
        mask: of (h, s, z): True where a coordinate is held.
        place: where.
    """

    mask: Point
    place: Point

    @classmethod
    def of(cls, held: Sequence[Held | None], batch: CrystalBatch, place: Point) -> "Hold | None":
        """What is held of each crystal of a batch at a point (h, s, z), h never; None where nothing is."""
        if not any(held):
            return None
        counts = torch.bincount(batch.crystal, minlength=batch.n_crystals).tolist()
        sites = np.concatenate(
            [h.sites if h else np.zeros(n, bool) for h, n in zip(held, counts, strict=True)]
        )
        rows = (np.zeros(len(sites), bool), sites, np.array([bool(h and h.cell) for h in held]))
        masks = (torch.from_numpy(row).to(x.device)[:, None] for row, x in zip(rows, place, strict=True))
        return cls(tuple(m.expand_as(x) for m, x in zip(masks, place, strict=True)), place)

    def put(self, point: Point) -> Point:
        """The point with what is held in its place."""
        return tuple(torch.where(m, a, x) for m, a, x in zip(self.mask, self.place, point, strict=True))

    def field(self, velocity: Velocity, begun: Point, time: float) -> Velocity:
        """The velocity, but what is held goes straight to its place from where it begins at a time."""
        way = tuple(x / (1 - time) for x in LATENT_MANIFOLD.log(begun, self.place))

        def bound(t: Tensor, point: Point) -> Point:
            parts = zip(self.mask, way, velocity(t, point), strict=True)
            return tuple(torch.where(m, u, v) for m, u, v in parts)

        return bound

    @property
    def origin(self) -> bool:
        """Whether a site is held: no other origin describes the crystals as well then."""
        return bool(self.mask[1].any())

    def noised(self, point: Point, crystals: CrystalBatch, noise: Point, time: float) -> Point:
        """The point some way back towards noise, seen from its own origin, equal sites in their order."""
        h, _, z = point
        place = self.put((h, nearest_image(crystals, noise[1]), z))
        way = tuple(time * x for x in LATENT_MANIFOLD.log(noise, place))
        return LATENT_MANIFOLD.exp(noise, way)
