"""One crystal described as another is: which vectors of its lattice, which origin, which atom for which."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from pymatgen.core import Lattice
from scipy.optimize import linear_sum_assignment

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.discovery.seeded.normalizer import (
    UNLIKE,
    Alignment,
    aligned_in_gene,
    group_operations,
    strain,
    unimodular,
)
from autoperi.flow.relatives import element_distances

_CELLS = 48
"""Descriptions of the cell that are tried, those of least strain."""
_ROUNDS = 4
"""Of finding the atoms of an origin and the origin of the atoms."""
_SAME = 1e-4
"""Å, and part of a squared length, within which an operation of one crystal is one of the other too."""
_WORSE = 1.2
"""Cost over the least one beyond which more symmetry is not worth it, where the groups differ."""


def aligned(first: Crystal, second: Crystal) -> Alignment:
    """The nearest description of a crystal in the basis of another one; elements go to like elements.

    Of two crystals of one gene the way that keeps it is taken, however long (`aligned_in_gene`).

    Raises:
        ValueError: primitive cells with different numbers of atoms.
    """
    if first.n_atoms != second.n_atoms:
        raise ValueError(
            f"expected primitive cells with one number of atoms: got {first.formula} with {first.n_atoms} "
            f"and {second.formula} with {second.n_atoms}, which have no common subgroup without a supercell"
        )
    if first.gene == second.gene and (found := aligned_in_gene(first, second)):
        return found
    search = _Search(first, second)
    ways = [way for cell in search.cells() for way in search.ways(cell)]
    least = min(way.cost for way in ways)
    near = [way for way in ways if way.cost <= _WORSE * least + 1e-9]
    return min(map(search.symmetric, near), key=lambda way: (-way.operations, way.cost))


class _Search:
    def __init__(self, first: Crystal, second: Crystal) -> None:
        self.cell, self.frac, self.species = first.expand()
        self.other, self.places, self.elements = second.expand()
        self.turns, self.shifts = group_operations(first.space_group)
        self.unlike = UNLIKE * element_distances()[self.species[:, None], self.elements[None]]
        self.spacing = (abs(np.linalg.det(self.cell)) / len(self.frac)) ** (1 / 3)
        # an atom of which there are few, bound to its place: those like it take that place in turn
        rarity = first.multiplicities * 4 + wyckoff_table().dim.numpy()[first.wyckoff]
        self.anchor = int(first.multiplicities[: int(np.argmin(rarity))].sum())

    def cells(self) -> Float[np.ndarray, "cells 3 3"]:
        """Matrices that name the vectors of the second lattice by those of the first, little strain first."""
        turn = [np.linalg.solve(cell.T, _reduced(cell).T).T.round() for cell in (self.cell, self.other)]
        every = np.linalg.inv(turn[0]) @ unimodular() @ turn[1]
        return every[np.argsort(self.strain(every), kind="stable")[:_CELLS]]

    def strain(self, cells: Float[np.ndarray, "cells 3 3"]) -> Float[np.ndarray, "cells"]:
        """Squared norm of the logarithmic strain from the first cell to each description of the second."""
        return strain(self.cell, cells @ self.other)

    def ways(self, cell: Float[np.ndarray, "3 3"]) -> Iterator[Alignment]:
        """Alignments in one description of the cell, from every likely origin."""
        lattice, places = cell @ self.other, self.places @ np.linalg.inv(cell)
        gram = (self.cell @ self.cell.T + lattice @ lattice.T) / 2
        bent, rows = float(self.strain(cell[None])[0]), np.arange(len(places))
        like = np.flatnonzero(self.unlike[self.anchor] <= self.unlike[self.anchor].min() + 1e-9)
        for start in places[like]:
            origin, atoms, moves = self.frac[self.anchor] - start, rows, places
            for _ in range(_ROUNDS):
                away = places[None] + origin - self.frac[:, None]
                away -= away.round()
                square = ((away @ gram) * away).sum(axis=-1) / self.spacing**2
                _, atoms = linear_sum_assignment(square + self.unlike)
                drift = away[rows, atoms].mean(axis=0)
                origin, moves = origin - drift, away[rows, atoms] - drift
                if np.abs(drift).max() < 1e-9:
                    break
            square = ((moves @ gram) * moves).sum(axis=-1) / self.spacing**2
            yield Alignment(lattice, moves, atoms, float((square + self.unlike[rows, atoms]).mean()) + bent)

    def symmetric(self, way: Alignment) -> Alignment:
        """The alignment with its operations counted, the origin such that they are the first's exactly.

        An operation x -> W x + w of the first carries atom i onto atom j. With moves u the second has it too,
        from some origin, where W u_i - u_j is one vector c for all atoms; of operations that form a group the
        mean of c is the shift between the origins, since (W - 1) mean(c) = -c.
        """
        elements, metric = self.elements[way.atoms], way.lattice @ way.lattice.T
        shifts = []
        for turn, shift in zip(self.turns, self.shifts, strict=True):
            away = (self.frac @ turn.T + shift)[:, None] - self.frac[None]
            onto = np.abs(away - away.round()).max(axis=-1).argmin(axis=1)
            own = way.moves @ turn.T - way.moves[onto]
            apart = np.linalg.norm((own - own.mean(axis=0)) @ way.lattice, axis=1).max()
            bent = np.abs(turn.T @ metric @ turn - metric).max() / np.abs(metric).max()
            if apart < _SAME and bent < _SAME and (elements[onto] == elements).all():
                shifts.append(own.mean(axis=0))
        return replace(way, moves=way.moves + np.mean(shifts, axis=0), operations=len(shifts))


def _reduced(cell: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """A cell with short vectors, of the same hand."""
    short = Lattice(cell).get_lll_reduced_lattice().matrix
    return short * np.sign(np.linalg.det(short) * np.linalg.det(cell))
