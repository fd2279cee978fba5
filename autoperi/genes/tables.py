"""Fixed numbers about positions and elements as buffers of a network that reads genes."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.genes.features import count_features, element_features, position_features

_MAX_COUNT = 512


class GeneTables(nn.Module):
    """A network that reads genes; its tables are found again by the networks built on it."""

    multiplicity: Tensor
    dim: Tensor
    group_start: Tensor
    counts: Tensor
    position_features: Tensor
    element_features: Tensor

    def __init__(self) -> None:
        super().__init__()
        table = wyckoff_table()
        self.register_buffer("multiplicity", table.multiplicity.clone(), persistent=False)
        self.register_buffer("dim", table.dim.clone(), persistent=False)
        self.register_buffer("group_start", table.group_start.clone(), persistent=False)
        counts = torch.from_numpy(count_features(np.arange(_MAX_COUNT + 1))).float()
        self.register_buffer("counts", counts, persistent=False)
        positions = torch.from_numpy(position_features())
        self.register_buffer("position_features", positions, persistent=False)
        # kept in the checkpoint: a later periodic table must not change a trained network
        self.register_buffer("element_features", torch.from_numpy(element_features()))

    def count(self, number: Int[Tensor, "..."]) -> Float[Tensor, "... features"]:
        """Features of a number of atoms, sites or elements; as of 512 beyond that."""
        return self.counts[number.clamp(max=_MAX_COUNT)]
