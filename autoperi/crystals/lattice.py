r"""Lattice coordinates: a cell as six unconstrained, rotation-invariant numbers.

With ``G`` the Gram matrix of the conventional cell, ``½ log G = Σ ℓ_i E_i`` over six symmetric matrices.
The crystal family fixes some of the ℓ_i; the trace coordinate is the volume, ``ℓ_6 = ln(V)/3``. The same
parametrisation of symmetric matrices is used by Jiao et al., arXiv:2402.03992 (section 4.1).
"""

import math

import torch
from ase.units import create_units
from jaxtyping import Bool, Float, Int
from torch import Tensor

DENSITY_UNIT = create_units("2018")["_amu"] * 1e27
"""One atomic mass unit per Å³ in g/cm³."""
_E = torch.tensor(
    [
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]],
        [[0, 0, 1], [0, 0, 0], [1, 0, 0]],
        [[0, 0, 0], [0, 0, 1], [0, 1, 0]],
        [[1, 0, 0], [0, -1, 0], [0, 0, 0]],
        [[1, 0, 0], [0, 1, 0], [0, 0, -2]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    ],
    dtype=torch.float64,
)
_SQUARED_NORMS = _E.square().sum((1, 2))

# rows in the order of wyckoff.FAMILIES
_FREE = torch.tensor(
    [
        [1, 1, 1, 1, 1, 1],
        [0, 1, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 1],
    ],
    dtype=torch.bool,
)
_HEXAGONAL_SHEAR = -math.log(3) / 4
"""ℓ_1 of every cell with a = b and γ = 120°."""

VOLUME = 5
"""Index of the volume coordinate."""


def free_lattice_mask(family: Int[Tensor, "crystals"]) -> Bool[Tensor, "crystals 6"]:
    """Which lattice coordinates the crystal family leaves free (1 cubic ... 6 triclinic)."""
    return _FREE.to(family.device)[family]


def constrain_lattice(
    coords: Float[Tensor, "crystals 6"], family: Int[Tensor, "crystals"]
) -> Float[Tensor, "crystals 6"]:
    """Set the coordinates that the family fixes: zero, but for the hexagonal shear."""
    fixed = torch.zeros_like(coords)
    fixed[family == 4, 0] = _HEXAGONAL_SHEAR
    return torch.where(free_lattice_mask(family), coords, fixed)


def lattice_from_coords(coords: Float[Tensor, "crystals 6"]) -> Float[Tensor, "crystals 3 3"]:
    """Conventional cell, rows in Å, in the orientation in which the matrix is symmetric."""
    return torch.linalg.matrix_exp(torch.einsum("ci,ijk->cjk", coords, _E.to(coords)))


def coords_from_lattice(lattice: Float[Tensor, "crystals 3 3"]) -> Float[Tensor, "crystals 6"]:
    """Inverse of ``lattice_from_coords`` up to rotation; raises ValueError for a flat cell."""
    gram = lattice @ lattice.transpose(-1, -2)
    values, vectors = torch.linalg.eigh(gram)
    if not bool((values > 1e-8).all()):
        raise ValueError("expected cells with a volume: got a singular lattice")
    log = vectors @ torch.diag_embed(values.log() / 2) @ vectors.transpose(-1, -2)
    return torch.einsum("cjk,ijk->ci", log, _E.to(log)) / _SQUARED_NORMS.to(log)


def lattice_from_parameters(
    lengths: Float[Tensor, "crystals 3"], angles: Float[Tensor, "crystals 3"]
) -> Float[Tensor, "crystals 3 3"]:
    """Cells (rows, Å) from lengths in Å and angles in radians: a along x, b in the xy plane."""
    cos_a, cos_b, cos_c = angles.cos().unbind(-1)
    sin_c = angles[..., 2].sin()
    a, b, c = lengths.unbind(-1)
    zero = torch.zeros_like(a)
    x = cos_b
    y = (cos_a - cos_b * cos_c) / sin_c
    z = (1 - x.square() - y.square()).clamp_min(0).sqrt()
    rows = [a, zero, zero, b * cos_c, b * sin_c, zero, c * x, c * y, c * z]
    return torch.stack(rows, -1).reshape(*a.shape, 3, 3)


def parameters_from_lattice(
    lattice: Float[Tensor, "crystals 3 3"],
) -> tuple[Float[Tensor, "crystals 3"], Float[Tensor, "crystals 3"]]:
    """Lengths (Å) and angles (radians) of cells given as rows."""
    lengths = lattice.norm(dim=-1)
    unit = lattice / lengths[..., None]
    cosines = (unit.roll(-1, -2) * unit.roll(-2, -2)).sum(-1)
    return lengths, cosines.clamp(-1, 1).acos()
