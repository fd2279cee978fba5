"""Scalar conditions: what a crystal is asked to be worth, embedded with a null for "not asked"."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.crystals.labels import SCALARS


def drop_conditions(
    conditions: Float[Tensor, "crystals scalars"], generator: torch.Generator | None = None
) -> Float[Tensor, "crystals scalars"]:
    """Hide conditions for classifier-free training: all of them on half the crystals, each at random else.

    Ho and Salimans, arXiv:2207.12598.
    """
    keep_any = torch.rand(len(conditions), 1, generator=generator) < 0.5
    keep_each = torch.rand(conditions.shape, generator=generator) < 0.6
    keep = (keep_any & keep_each).to(conditions.device)
    return torch.where(keep, conditions, torch.nan)


class ConditionEmbedding(nn.Module):
    """Sum over scalars of a Gaussian-basis embedding, or of a learned null where the value is NaN.

    Zero is resolved apart from small values, so that "metal" is not "small gap".
    """

    centres: Tensor

    def __init__(self, width: int, resolution: int = 24) -> None:
        super().__init__()
        ranges = torch.tensor(list(SCALARS.values()))
        centres = ranges[:, :1] + (ranges[:, 1:] - ranges[:, :1]) * torch.linspace(0, 1, resolution)
        self.register_buffer("centres", centres, persistent=False)
        self.project = nn.Parameter(torch.randn(len(SCALARS), resolution + 1, width) / resolution**0.5)
        self.null = nn.Parameter(torch.zeros(len(SCALARS), width))

    def forward(self, conditions: Float[Tensor, "crystals scalars"]) -> Float[Tensor, "crystals width"]:
        """Embed one row per crystal; NaN means the condition is absent."""
        absent = conditions.isnan()
        value = conditions.nan_to_num()
        spacing = self.centres[:, 1] - self.centres[:, 0]
        low, high = self.centres[:, 0], self.centres[:, -1]
        distance = (torch.minimum(torch.maximum(value, low), high)[..., None] - self.centres) / spacing[
            :, None
        ]
        at_zero = (value.abs() < 1e-3).to(value)[..., None]
        basis = torch.cat([torch.exp(-0.5 * distance.square()), at_zero], dim=-1)
        embedded = torch.einsum("csr,srw->csw", basis, self.project)
        return torch.where(absent[..., None], self.null, embedded).sum(dim=1)
