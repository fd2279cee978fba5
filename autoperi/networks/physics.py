"""The generator's side of physics in training: what a recipe may weigh, and the callable it is handed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import CrystalBatch
from autoperi.networks.config import check

Physics = Callable[[CrystalBatch, Float[Tensor, "sites 101"]], Float[Tensor, "crystals"]]
"""Weighted physics loss of crystals as a network believes in them.

The batch has their geometry and what is known of their species (0 = unknown), the logits the others; it is
differentiable in both. Comes from the room of property models.
"""


@dataclass(frozen=True)
class PhysicsWeights:
    """Weight of each physics loss; those at zero are not computed.

    Attributes:
        hull: of the energy above the hull, per eV/atom.
        force: of the root mean square force, per eV/Å.
        stress: of the norm of the stress, per eV/Å³.
        pressure: of the distance from zero pressure, per eV/Å³.
        barrier: of the minimum-distance barrier.
    """

    hull: float = 0.0
    force: float = 0.0
    stress: float = 0.0
    pressure: float = 0.0
    barrier: float = 0.0

    def __post_init__(self) -> None:
        losses = ("hull", "force", "stress", "pressure", "barrier")
        check(self, **dict.fromkeys(losses, (0.0, math.inf)))
