"""Embedding of scalar conditions, with a null for "not asked", and the targets of a draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.crystals.labels import DEFAULT_CONDITIONS, Condition, condition_row


@dataclass(frozen=True)
class Targets:
    """What crystals are steered to.

    Attributes:
        values: a row for each crystal, a column for each condition; NaN where nothing is asked.
        guidance: strength, as in classifier-free guidance; 1 is the plain conditional model.
    """

    values: Float[Tensor, "crystals scalars"]
    guidance: float = 1.0

    @property
    def guided(self) -> bool:
        """Whether the unconditional model is needed beside the conditional one."""
        return self.guidance != 1.0 and bool((~self.values.isnan()).any())

    def select(self, crystals: Sequence[int]) -> "Targets":
        """Those of some crystals."""
        return type(self)(self.values[torch.as_tensor(crystals, dtype=torch.long)], self.guidance)


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

    def __init__(
        self,
        width: int,
        conditions: Mapping[str, Condition] = DEFAULT_CONDITIONS,
        resolution: int = 24,
    ) -> None:
        super().__init__()
        self.conditions = dict(conditions)
        ranges = torch.tensor([[c.low, c.high] for c in conditions.values()]).view(-1, 2)
        centres = ranges[:, :1] + (ranges[:, 1:] - ranges[:, :1]) * torch.linspace(0, 1, resolution)
        self.register_buffer("centres", centres, persistent=False)
        self.project = nn.Parameter(torch.randn(len(conditions), resolution + 1, width) / resolution**0.5)
        self.null = nn.Parameter(torch.zeros(len(conditions), width))

    def targets(self, asked: Sequence[Mapping[str, float]], guidance: float = 1.0) -> Targets:
        """Targets of crystals from values by name; raises ValueError for unknown names."""
        unknown = {name for values in asked for name in values} - set(self.conditions)
        if unknown:
            raise ValueError(
                f"expected conditions among {sorted(self.conditions)}: got {sorted(unknown)}, which this "
                "model has not learned"
            )
        rows = [condition_row(values, self.conditions) for values in asked]
        return Targets(torch.tensor(rows).view(len(asked), len(self.conditions)), guidance)

    @torch.no_grad()
    def keep(self, older: "ConditionEmbedding") -> None:
        """Take over what another embedding has learned; a condition that it has not says nothing as yet."""
        others = list(older.conditions)
        self.project.zero_()
        for i, name in enumerate(self.conditions):
            if name in others:
                j = others.index(name)
                self.project[i], self.null[i] = older.project[j], older.null[j]

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
