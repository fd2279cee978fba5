"""Embeddings of elements: one small class for each choice.

Every class turns atomic numbers [sites] (or weights of all elements [sites, elements], where species are
soft) into rows of a table [elements, outputs]; row 0, the unknown species, is zero. Values come from
pymatgen and smact when the table is built.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.crystals.crystal import MAX_Z


class _Table(nn.Module):
    table: Tensor

    def __init__(self, table: Float[Tensor, "elements outputs"]) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.outputs = table.shape[1]

    def forward(self, species: Tensor) -> Float[Tensor, "sites outputs"]:
        """Rows of the table, mixed where species are soft."""
        return species @ self.table if species.is_floating_point() else self.table[species]


class OneHot(_Table):
    """One input per element: nothing is known of chemistry but names (SchNet, arXiv:1706.08566)."""

    def __init__(self) -> None:
        table = torch.eye(MAX_Z + 1)
        table[0] = 0
        super().__init__(table)


class FiveFeatures(_Table):
    """Atomic number, group, period, mass and covalent radius, standardised over the elements."""

    def __init__(self) -> None:
        rows = _element_rows()
        super().__init__(_standardised(rows[:, [_NUMBER, _GROUP, _PERIOD, _MASS, _RADIUS]]))


class ExtendedFeatures(_Table):
    """The five features and what decides bonding, after MEGNet's and Magpie's tables.

    Adds electronegativity, first ionisation energy, electron affinity and valence electrons, each with a flag
    where it has not been measured (arXiv:1812.05055; Ward et al., npj Comput. Mater. 2, 16028).
    """

    def __init__(self) -> None:
        rows = _element_rows()
        missing = rows.isnan()
        flags = missing[:, missing[1:].any(0)].float()
        flags[0] = 0
        super().__init__(torch.cat([_standardised(rows), flags], 1))


class BitFeatures(_Table):
    """Group, period and block, and bins of six properties, one bit each (CGCNN, arXiv:1710.10324)."""

    def __init__(self) -> None:
        rows = _element_rows()
        exact = [_bits(rows[:, column]) for column in (_GROUP, _PERIOD, _BLOCK, _VALENCE)]
        binned = [
            _bits(_bins(rows[:, column], 10))
            for column in (_NEGATIVITY, _RADIUS, _IONISATION, _AFFINITY, _MASS)
        ]
        super().__init__(torch.cat(exact + binned, 1))


class Learned(nn.Module):
    """A vector per element, learned with the rest (SchNet, MEGNet)."""

    def __init__(self, outputs: int = 64) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(MAX_Z + 1, outputs))
        self.outputs = outputs

    def forward(self, species: Tensor) -> Float[Tensor, "sites outputs"]:
        """Rows of the table, mixed where species are soft."""
        return species @ self.table if species.is_floating_point() else self.table[species]


_NUMBER, _GROUP, _PERIOD, _BLOCK, _MASS, _RADIUS, _NEGATIVITY, _IONISATION, _AFFINITY, _VALENCE = range(10)


def _element_rows() -> Float[Tensor, "elements 10"]:
    """Number, group, period, block, u, Å, electronegativity, eV, eV, valence electrons; NaN if missing."""
    import smact
    from pymatgen.core import Element

    rows = [[math.nan] * 10]
    for number in range(1, MAX_Z + 1):
        element = Element.from_Z(number)
        other = smact.Element(element.symbol)
        values = (
            number,
            element.group,
            element.row,
            "spdf".index(element.block),
            element.atomic_mass,
            other.covalent_radius,
            element.data.get("X"),
            element.ionization_energy,
            element.electron_affinity,
            other.num_valence,
        )
        rows.append([math.nan if v is None else float(v) for v in values])
    return torch.tensor(rows)


def _standardised(rows: Tensor) -> Tensor:
    """Mean 0 and spread 1 over the elements; what is missing is the mean."""
    known = rows[1:]
    mean = known.nanmean(0)
    spread = (known - mean).square().nanmean(0).sqrt()
    return ((rows - mean) / spread).nan_to_num(0.0)


def _bins(values: Tensor, count: int) -> Tensor:
    """Index of equal-width bins between the smallest and the largest value; NaN stays NaN."""
    low, high = values[~values.isnan()].min(), values[~values.isnan()].max()
    return ((values - low) / (high - low) * count).floor().clamp(max=count - 1)


def _bits(values: Tensor) -> Tensor:
    """One column per distinct value; no bit where the value is missing."""
    return (values[:, None] == torch.unique(values[~values.isnan()])).float()
