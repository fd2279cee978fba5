"""Predictive distributions: the median that is told, and how likely a value lies in a window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_TENTH = 1.6448536 / math.log(10)
"""Laplace scale over the standard deviation of a normal distribution, if both leave a tenth outside."""


@dataclass(frozen=True)
class Distribution:
    """Laplace around a size; of gated targets with a share at zero, to which goes what would lie below.

    Attributes:
        size: centre, in working units; of gated targets that of a non-zero value.
        scale: mean absolute deviation from it.
        nonzero: probability of a non-zero value; 1 for targets that are not gated.
        gated: which targets are.
    """

    size: Float[Tensor, "crystals targets"]
    scale: Float[Tensor, "crystals targets"]
    nonzero: Float[Tensor, "crystals targets"]
    gated: Bool[Tensor, "targets"]

    @classmethod
    def around(cls, value: Tensor, uncertainty: Tensor) -> "Distribution":
        """Of targets that are not gated: nine tenths lie within ± 1.645 of the uncertainty."""
        none = torch.zeros(value.shape[1], dtype=torch.bool, device=value.device)
        return cls(value, _TENTH * uncertainty, torch.ones_like(value), none)

    def or_around(self, value: Tensor, uncertainty: Tensor) -> "Distribution":
        """The same, where targets are not gated with the scale of their uncertainty."""
        scale = torch.where(self.gated, self.scale, Distribution.around(value, uncertainty).scale)
        return replace(self, scale=scale)

    @classmethod
    def joined(cls, parts: "Sequence[Distribution]") -> "Distribution":
        """Those of several batches of crystals."""
        names = ("size", "scale", "nonzero")
        told = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return cls(**told, gated=parts[0].gated)

    @property
    def median(self) -> Float[Tensor, "crystals targets"]:
        """The value of least expected absolute error; differentiable, zero where zero is the likelier."""
        above = 2 - 1 / self.nonzero.clamp_min(1e-6)  # twice the share of the Laplace distribution below it
        told = self.size + self.scale * above.clamp_min(1e-6).log()
        return torch.where(self.gated, torch.where(above > 0, told, 0.0).clamp_min(0), told)

    def within(self, low: float, high: float) -> Float[Tensor, "crystals targets"]:
        """The probability of a value from ``low`` to ``high``, ends included."""
        return self._below(high, ends=True) - self._below(low, ends=False)

    def _below(self, value: float, *, ends: bool) -> Tensor:
        """The probability of less than a value, or of it too."""
        offset = (value - self.size) / self.scale
        tail = 0.5 * torch.exp(-offset.abs())
        laplace = torch.where(offset > 0, 1 - tail, tail)
        if value < 0 or (value == 0 and not ends):
            return torch.where(self.gated, 0.0, laplace)
        return 1 - self.nonzero * (1 - laplace)
