"""Two crystals of one gene side by side: every origin, order of axes and order of sites is one of it too."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.flow.relatives import element_distances

UNLIKE = 10.0
"""What a unit of element distance costs, where a move by the spacing of atoms costs 1."""
_CELLS = 48
"""Descriptions of the cell that are tried, those of least strain."""
_TWELFTHS = np.array(list(product(np.arange(12) / 12, repeat=3)))
"""Among them are all shifts of origin that carry a group onto itself, where the origin is not free."""
_ON = 1e-4
"""Part of a lattice vector within which an atom is where it should be."""

_NEVER = 1e6
"""Cost of what cannot be."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """A second crystal in the basis and with the atoms of a first one (`expand`), the straight way there.

    Attributes:
        lattice: of the second, rows in Å, those into which the vectors of the first go.
        moves: from the atoms of the first to those of the second, fractional.
        atoms: the atom of the second for each of the first.
        cost: mean squares of moves over spacing and of strain, and how unlike the elements are.
        operations: of the first, how many the second has too, with the same effect on the atoms: these hold
            at every point of the straight way.
    """

    lattice: Float[np.ndarray, "3 3"]
    moves: Float[np.ndarray, "atoms 3"]
    atoms: Int[np.ndarray, "atoms"]
    cost: float
    operations: int = 0


def group_operations(space_group: int) -> tuple[Float[np.ndarray, "ops 3 3"], Float[np.ndarray, "ops 3"]]:
    """Rotations and shifts in the primitive cell, on fractional columns: those of the general position."""
    table = wyckoff_table()
    general = int(table.group_start[space_group + 1]) - 1
    rows = slice(*table.orbit_start[general : general + 2].tolist())
    return table.orbit_rotation[rows].numpy(), table.orbit_shift[rows].numpy()


@cache
def unimodular() -> Float[np.ndarray, "cells 3 3"]:
    """Integer matrices of determinant 1 with entries -1, 0 and 1: the hand of a crystal is kept."""
    every = np.array(list(product((-1.0, 0.0, 1.0), repeat=9))).reshape(-1, 3, 3)
    return every[np.round(np.linalg.det(every)) == 1]


def strain(
    cell: Float[np.ndarray, "3 3"], others: Float[np.ndarray, "cells 3 3"]
) -> Float[np.ndarray, "cells"]:
    """Squared norm of the logarithmic strain from one cell (rows) to each of some others."""
    root = np.linalg.inv(np.linalg.cholesky(cell @ cell.T))
    values = np.linalg.eigvalsh(root @ (others @ others.transpose(0, 2, 1)) @ root.T)
    return np.square(np.log(values) / 2).sum(axis=1)


def aligned_in_gene(first: Crystal, second: Crystal) -> Alignment | None:
    """The shortest way between two crystals of one gene on which it holds; None where none is found."""
    search = _Search(first, second)
    ways = (way for cell in search.cells() for way in search.ways(cell))
    return min(ways, key=lambda way: way.cost, default=None)


class _Search:
    def __init__(self, first: Crystal, second: Crystal) -> None:
        self.first, self.second = first, second
        self.cell, self.frac, _ = first.expand()
        self.other, self.places, _ = second.expand()
        self.turns, self.shifts = group_operations(first.space_group)
        table = wyckoff_table()
        self.to_free, self.basis = (x.numpy()[first.wyckoff] for x in (table.to_free, table.basis))
        self.fixed = np.arange(3) >= table.dim.numpy()[first.wyckoff][:, None]
        self.atom = np.cumsum(first.multiplicities) - first.multiplicities
        self.orbit = np.repeat(np.arange(second.n_sites), second.multiplicities)
        self.rotation = CrystalBatch.from_crystals([first]).atoms().rotation.numpy()
        self.unlike = UNLIKE * element_distances()[first.species[:, None], second.species[None]]
        self.weight = first.multiplicities / first.n_atoms
        self.spacing = (abs(np.linalg.det(self.cell)) / first.n_atoms) ** (1 / 3)

    def cells(self) -> Float[np.ndarray, "cells 3 3"]:
        """Matrices that name the second's vectors by those of the first, with the same rotations.

        Of those that differ by a rotation of the group one is kept.
        """
        every = unimodular()
        columns = every.transpose(0, 2, 1)
        turned = (np.linalg.inv(columns)[:, None] @ self.turns @ columns[:, None]).round() + 0.0
        own = {tuple(w.ravel()) for w in self.turns.round() + 0.0}
        every = every[[{tuple(w.ravel()) for w in ops} == own for ops in turned]]
        every = every[np.argsort(strain(self.cell, every @ self.other), kind="stable")]
        found: dict[tuple, np.ndarray] = {}
        for cell in every:
            alike = (np.linalg.inv(cell) @ self.turns.transpose(0, 2, 1)).round() + 0.0
            found.setdefault(min(tuple(one.ravel()) for one in alike), cell)
        return np.array(list(found.values())[:_CELLS])

    def ways(self, cell: Float[np.ndarray, "3 3"]) -> Iterator[Alignment]:
        """Alignments in one description of the cell, from every origin of the group."""
        lattice, places = cell @ self.other, self.places @ np.linalg.inv(cell)
        metric = (self.cell @ self.cell.T + lattice @ lattice.T) / 2
        bent = float(strain(self.cell, lattice[None])[0])
        for origin in self._origins(cell, places):
            if found := self._sites(places + origin, metric):
                moves, atoms, cost = found
                yield Alignment(lattice, moves, atoms, cost + bent, len(self.turns))

    def _origins(
        self, cell: Float[np.ndarray, "3 3"], places: Float[np.ndarray, "atoms 3"]
    ) -> Float[np.ndarray, "origins 3"]:
        """Shifts after which the second's operations, in the first's basis, are the first's.

        Where the origin is free, those that put an atom beside one of the first of which there are few.
        """
        column = np.linalg.inv(cell).T
        turned = (column @ self.turns @ np.linalg.inv(column)).round()
        match = np.abs(turned[:, None] - self.turns[None]).sum(axis=(2, 3)).argmin(axis=1)
        left = self.shifts @ column.T - self.shifts[match]
        gap = left + _TWELFTHS[:, None] - np.einsum("oij,tj->toi", turned, _TWELFTHS)
        found = _TWELFTHS[np.abs(gap - gap.round()).max(axis=(1, 2)) < _ON]
        free = self.turns.mean(axis=0).T
        along = (self.frac[self.atom[self.first.multiplicities.argmin()]] - places) @ free
        bound, along = (np.unique(x.round(6), axis=0) for x in (found - found @ free, along))
        return (bound[:, None] + along[None]).reshape(-1, 3)

    def _sites(
        self, places: Float[np.ndarray, "atoms 3"], metric: Float[np.ndarray, "3 3"]
    ) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Moves and atoms of the best correspondence of sites, each on its own position, and its cost."""
        sites = self.frac[self.atom]
        away = np.einsum("kij,kaj->kai", self.to_free, places[None] - sites[:, None])
        off = np.abs(np.where(self.fixed[:, None], away - away.round(), 0.0)).max(axis=-1)
        step = np.where(self.fixed[:, None], 0.0, away - away.round())
        moves = np.einsum("kij,kaj->kai", self.basis, step)
        square = ((moves @ metric) * moves).sum(axis=-1) / self.spacing**2
        same = self.first.multiplicities[:, None] == self.second.multiplicities[self.orbit]
        square = np.where((off < _ON) & same, square, _NEVER)
        cost = np.full((self.first.n_sites, self.second.n_sites), _NEVER)
        np.minimum.at(cost.T, self.orbit, square.T)
        rows, columns = linear_sum_assignment((cost + self.unlike) * self.weight[:, None])
        if cost[rows, columns].max() >= _NEVER:
            return None
        atom = np.where(self.orbit == columns[:, None], square, np.inf).argmin(axis=1)
        own = moves[rows, atom]
        drift = self.turns.mean(axis=0) @ (self.weight @ own)  # along directions in which the origin is free
        own = own - drift
        every = np.einsum("aij,aj->ai", self.rotation, own[np.repeat(rows, self.first.multiplicities)])
        gap = (self.frac + every)[:, None] - (places - drift)[None]
        gap = np.abs(gap - gap.round()).max(axis=-1)
        if gap.min(axis=1).max() > _ON:
            return None
        squares = ((own @ metric) * own).sum(axis=-1) / self.spacing**2
        return every, gap.argmin(axis=1), float(((squares + self.unlike[rows, columns]) * self.weight).sum())
