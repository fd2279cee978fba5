"""What each of the 1,731 Wyckoff positions of the 230 space groups fixes and leaves free.

Conventions (every file of the package follows them)
----------------------------------------------------
* Fractional coordinates are column vectors here, ``x' = W x + w``; Cartesian ones are rows,
  ``cart = frac @ lattice``.
* Everything is expressed in the *primitive standard* cell: ITA standard setting (unique axis b,
  hexagonal axes, origin choice 2) reduced by ``PRIMITIVE[centring]``, whose columns are the primitive
  vectors in conventional coordinates, ``x_conv = P x_prim``.
* A site on Wyckoff position ``p`` sits at ``x = c_p + B_p s`` with ``s`` on the torus [0,1)^d. ``B_p`` is
  an integer basis of all lattice vectors that the site's stabiliser leaves fixed, so that ``s`` and
  ``x`` wrap together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_TABLE_FILE = Path(__file__).with_name("wyckoff.npz")

PRIMITIVE = {
    "P": np.eye(3),
    "A": np.array([[1, 0, 0], [0, 0.5, -0.5], [0, 0.5, 0.5]]),
    "C": np.array([[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]]),
    "I": np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]),
    "F": np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    "R": np.array([[2, -1, -1], [1, 1, -2], [1, 1, 1]]) / 3,
}
"""Columns: primitive vectors in conventional fractional coordinates, by centring letter."""

FAMILIES = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "hexagonal", "cubic")
"""Crystal families, in the order of ``WyckoffTable.family``."""

SYSTEMS = {
    "triclinic": (1, 2),
    "monoclinic": (3, 15),
    "orthorhombic": (16, 74),
    "tetragonal": (75, 142),
    "trigonal": (143, 167),
    "hexagonal": (168, 194),
    "cubic": (195, 230),
}
"""First and last space-group number of each crystal system."""


def crystal_system(space_group: int) -> str:
    """Name of the crystal system of a space-group number (1-230)."""
    for name, (first, last) in SYSTEMS.items():
        if first <= space_group <= last:
            return name
    raise ValueError(f"expected a space-group number from 1 to 230: got {space_group}")


@dataclass(frozen=True)
class WyckoffTable:
    """All Wyckoff positions as flat tensors; a *position index* (0-1730) names one of them.

    ``orbit_*`` rows ``orbit_start[p] : orbit_start[p+1]`` are the operations that carry a site of
    position ``p`` onto every atom of its orbit (the first is the identity). ``image_*`` rows are the
    affine maps ``s -> A s + a`` that give the same orbit from another of its atoms on the same set.

    A group looks the same from ``origins[g]`` origins, its own first. ``move_*`` rows
    ``move_start[p] : move_start[p+1]`` say, origin by origin, what the change does to s of position p; an
    orbit that it carries to another position has ``move_keeps`` 0.
    """

    space_group: Int[Tensor, "positions"]
    letter: Int[Tensor, "positions"]
    """Rank of the letter in the group: 0 is ``a``."""
    multiplicity: Int[Tensor, "positions"]
    """Atoms per primitive cell."""
    dim: Int[Tensor, "positions"]
    """Number of free coordinates d, 0 to 3."""
    origin: Float[Tensor, "positions 3"]
    basis: Float[Tensor, "positions 3 3"]
    """B; columns from ``dim`` on are zero."""
    to_free: Float[Tensor, "positions 3 3"]
    """Inverse of the unimodular completion of B: its first ``dim`` rows give s, the others integers."""
    orbit_start: Int[Tensor, "positions+1"]
    orbit_rotation: Float[Tensor, "operations 3 3"]
    orbit_shift: Float[Tensor, "operations 3"]
    image_start: Int[Tensor, "positions+1"]
    image_linear: Float[Tensor, "images 3 3"]
    image_shift: Float[Tensor, "images 3"]
    origins: Int[Tensor, "231"]
    move_start: Int[Tensor, "positions+1"]
    move_linear: Float[Tensor, "moves 3 3"]
    move_shift: Float[Tensor, "moves 3"]
    move_keeps: Int[Tensor, "moves"]
    group_start: Int[Tensor, "232"]
    """Positions of group g are ``group_start[g] : group_start[g+1]``, in the order a, b, c, ..."""
    family: Int[Tensor, "231"]
    """Index into ``FAMILIES`` by space-group number (row 0 unused)."""
    primitive: Float[Tensor, "231 3 3"]
    """P by space-group number."""
    polar: Float[Tensor, "231 3 3"]
    """Projector (primitive fractional) onto the directions in which the origin is free."""
    relabel_start: Int[Tensor, "232"]
    relabel: Int[Tensor, "relabellings 27"]
    """Rows ``relabel_start[g] : relabel_start[g+1]``: what each rank of letter becomes in another origin or
    order of axes of group g (Wyckoff sets of the normalizer), the identity first."""

    def index(self, space_group: int, letter: str) -> int:
        """Position index of a Wyckoff letter; raises ValueError for a letter the group lacks."""
        first, last = self.group_start[space_group : space_group + 2].tolist()
        rank = LETTERS.find(letter)
        if not 0 <= rank < last - first:
            known = LETTERS[: last - first]
            raise ValueError(
                f"space group {space_group} has Wyckoff letters {known[0]}-{known[-1]}: got {letter!r}"
            )
        return first + rank

    def letters(self, wyckoff: Int[Tensor, "sites"]) -> str:
        """Wyckoff letters of a list of position indices, as one string."""
        return "".join(LETTERS[i] for i in self.letter[wyckoff.cpu()].tolist())

    def to(self, device: torch.device | str) -> "WyckoffTable":
        """The same table on another device."""
        return WyckoffTable(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


LETTERS = "abcdefghijklmnopqrstuvwxyzA"


@cache
def wyckoff_table(device: str = "cpu") -> WyckoffTable:
    """The shipped table (float64), read once per device."""
    if device != "cpu":
        return wyckoff_table().to(device)
    with np.load(_TABLE_FILE) as data:
        return WyckoffTable(**{f.name: _as_tensor(data[f.name]) for f in fields(WyckoffTable)})


@lru_cache(maxsize=100_000)
def relabellings(
    space_group: int, wyckoff: tuple[int, ...]
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """All names of one gene: a change of origin or of the order of axes renames its letters.

    CaTiO3 in group 221 is ``a b c`` or ``a b d``, by the ion at the origin: the same arrangement. The
    alphabetically first name stands for the gene wherever genes are learned or compared.

    Args:
        space_group: its number.
        wyckoff: position index of each site.

    Returns:
        For each name, the first one first, the position indices in ascending order, and for each of them
        the number of the site in ``wyckoff`` that it stands for.
    """
    table = wyckoff_table()
    start = int(table.group_start[space_group])
    first, end = table.relabel_start[space_group : space_group + 2].tolist()
    ranks = table.relabel[first:end].numpy()[:, np.array(wyckoff) - start]
    order = np.argsort(ranks, axis=1, kind="stable")
    names, rows = np.unique(np.take_along_axis(ranks, order, axis=1), axis=0, return_index=True)
    pairs = zip((start + names).tolist(), order[rows].tolist(), strict=True)
    return tuple((tuple(name), tuple(sites)) for name, sites in pairs)


def gene_name(space_group: int, wyckoff: Sequence[int]) -> str:
    """Name of a gene, e.g. ``221:abc``: space group and letters, the same however a crystal was described.

    Args:
        space_group: its number.
        wyckoff: position index of each site, in any order and under any of the gene's names (`relabellings`).
    """
    first, _ = relabellings(int(space_group), tuple(int(p) for p in wyckoff))[0]
    start = int(wyckoff_table().group_start[space_group])
    return f"{space_group}:{''.join(LETTERS[p - start] for p in first)}"


def _as_tensor(array: np.ndarray) -> Tensor:
    kind = np.float64 if array.dtype.kind == "f" or array.ndim == 3 else np.int64
    return torch.from_numpy(array.astype(kind))
