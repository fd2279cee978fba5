"""How near a crystal's relatives in the training set are, as numbers that critics read."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import Crystal

KIN = 5
"""Nearest relatives whose distances are read."""
KIN_FEATURES = 2 * KIN + 1
_FARTHEST = 3.0
"""Distance of a relative that is not there."""

KinDistances = Callable[[Sequence[Crystal]], Float[Tensor, "crystals kin"]]
"""Distances of the nearest relatives of crystals, nearest first, infinite where there are no more."""


def kin_features(kin: Float[Tensor, "crystals kin"]) -> Float[Tensor, "crystals features"]:
    """Distances as they are and on a logarithmic scale, and how many relatives there are."""
    near = kin.clamp(max=_FARTHEST)
    known = (kin < torch.inf).sum(dim=1, keepdim=True).to(near)
    return torch.cat([near, (near + 0.02).log(), known], dim=1)
