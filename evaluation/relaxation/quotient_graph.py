"""The graph of a crystal, modulo the crystal's own symmetry.

Atoms, bonds and angles that an operation maps onto each other have equal features in any invariant
network, so one of each orbit is enough, weighted by how many it stands for. The energy is exactly
that of the full graph (Σ over orbits of |orbit| times the site energy), and so is its gradient once
projected onto the symmetric displacements and strains. With the identity alone the graph is the full
one. Terms as in CHGNet (arXiv:2302.14231): directed edges i → j within a cut-off, bonds (an edge and its
reverse), angles (ordered pairs of edges of one atom, both within a shorter one).
"""

from dataclasses import dataclass

import numpy as np
from pymatgen.optimization.neighbors import find_points_in_spheres

from evaluation.relaxation.operations import Operations

SKIN = 0.4  # Å beyond the cut-offs; the graph serves until something may have crossed it
_MAX_EDGES = 3_000_000
_MAX_ANGLES = 1_000_000  # real porous cells of 600 atoms have 80,000
_ANGLE = 2.6e-6  # gigabytes of an angle in a relaxation


@dataclass(frozen=True)
class QuotientGraph:
    """One of each orbit of atoms, edges, bonds and angles, edges up to `SKIN` beyond the cut-offs.

    Attributes:
        numbers: atomic number of each orbit of atoms. [orbits]
        orbit_size: atoms that it stands for. [orbits]
        tail: atom at which a vector starts. [vectors]
        head: atom at which it ends. [vectors]
        shift: lattice vector of the head; vector = x_head + shift @ cell − x_tail. [vectors, 3]
        center: atom orbit at the start of an edge; edge k has vector k. [edges]
        neighbor: atom orbit at its end. [edges]
        bond: undirected bond of the edge. [edges]
        edge_count: edges of the orbit that start at one atom. [edges]
        bond_vector: a vector along the bond. [bonds]
        angle_center: atom orbit at the apex. [angles]
        angle_bonds: bonds of the first and second leg. [angles, 2]
        angle_vectors: vectors of the two legs, from the apex. [angles, 2]
        angle_count: angles of the orbit at one bond of the first leg's orbit. [angles]
        head_operation: one that sends the head to the first atom of its orbit. [edges]
        fixing: which operations leave the first atom of an orbit where it is. [operations, orbits]
    """

    numbers: np.ndarray
    orbit_size: np.ndarray
    tail: np.ndarray
    head: np.ndarray
    shift: np.ndarray
    center: np.ndarray
    neighbor: np.ndarray
    bond: np.ndarray
    edge_count: np.ndarray
    bond_vector: np.ndarray
    angle_center: np.ndarray
    angle_bonds: np.ndarray
    angle_vectors: np.ndarray
    angle_count: np.ndarray
    head_operation: np.ndarray
    fixing: np.ndarray

    @property
    def sites(self) -> int:
        """Orbits of atoms."""
        return len(self.numbers)

    @property
    def work(self) -> int:
        """Edges and angles."""
        return len(self.center) + len(self.angle_count)

    @property
    def memory(self) -> float:
        """Gigabytes of its angles in a relaxation."""
        return _ANGLE * len(self.angle_count)


def quotient_graph(
    cell: np.ndarray,
    cart: np.ndarray,
    numbers: np.ndarray,
    operations: Operations,
    cutoff: float,
    angle_cutoff: float,
) -> QuotientGraph:
    """Build the graph.

    Args:
        cell: lattice vectors as rows, Å. [3, 3]
        cart: Cartesian positions, Å; need not lie inside the cell. [atoms, 3]
        numbers: atomic numbers. [atoms]
        operations: of exactly this crystal, or the identity.
        cutoff: of edges, Å.
        angle_cutoff: of the edges of angles, Å; 0 for a network without angles.

    Raises:
        ValueError: when an atom has no neighbour within the cut-off, or the crystal is so dense that its
            angles would not fit in memory.
    """
    orbits = _Orbits(operations)
    edges = _Edges(cell, cart, orbits, cutoff)
    directed = np.unique(edges.label)
    number_of = np.full(len(edges.label), -1)
    number_of[directed] = np.arange(len(directed))
    edge_orbit = number_of[edges.label]
    edge_count = np.bincount(edge_orbit, minlength=len(directed))

    reverse = edge_orbit[edges.reverse(directed)]
    forward = np.arange(len(directed))
    first = np.minimum(forward, reverse)
    bond_vector, bond = np.unique(first, return_inverse=True)

    pairs, pair_count = edges.angles(directed, angle_cutoff)
    legs = edge_orbit[pairs]
    # Edge k of the orbits is vector k; the other second legs are appended.
    extra = np.setdiff1d(pairs[:, 1], directed)
    rows = np.concatenate([directed, extra])
    row_of = np.full(len(edges.label), -1)
    row_of[rows] = np.arange(len(rows))
    # A bond whose two directions are one orbit has that orbit's angles at both of its ends.
    two_sided = np.where(reverse == forward, 2, 1)[legs[:, 0]]
    return QuotientGraph(
        numbers=numbers[orbits.first_atoms],
        orbit_size=orbits.sizes,
        tail=orbits.first_atoms[edges.center[rows]],
        head=edges.head[rows],
        shift=edges.shift[rows],
        center=edges.center[directed],
        neighbor=orbits.orbit_of[edges.head[directed]],
        bond=bond,
        edge_count=edge_count,
        bond_vector=bond_vector,
        angle_center=edges.center[pairs[:, 0]],
        angle_bonds=bond[legs],
        angle_vectors=row_of[pairs],
        angle_count=pair_count * two_sided,
        head_operation=orbits.to_first[edges.head[directed]],
        fixing=operations.images[:, orbits.first_atoms] == orbits.first_atoms,
    )


class _Orbits:
    """Orbits of atoms: the first atom of each, and an operation that leads there from every atom."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        first = operations.images.min(axis=0)
        self.to_first = operations.images.argmin(axis=0)
        self.first_atoms, self.orbit_of = np.unique(first, return_inverse=True)
        self.sizes = np.bincount(self.orbit_of)


class _Edges:
    """Every edge that starts at the first atom of an orbit, and how the stabilisers permute them."""

    def __init__(self, cell: np.ndarray, cart: np.ndarray, orbits: _Orbits, cutoff: float) -> None:
        self._orbits = orbits
        self._n_atoms = len(cart)
        sphere = 4 / 3 * np.pi * (cutoff + SKIN) ** 3
        expected = sphere * len(cart) / max(abs(np.linalg.det(cell)), 1e-9) * len(orbits.first_atoms)
        if expected > _MAX_EDGES:
            raise ValueError(
                f"about {expected:.0f} edges within {cutoff:g} Å, at most {_MAX_EDGES}: too dense"
            )
        center, head, shift, length = find_points_in_spheres(
            np.ascontiguousarray(cart),
            np.ascontiguousarray(cart[orbits.first_atoms]),
            r=cutoff + SKIN,
            pbc=np.ones(3, dtype=np.int64),
            lattice=np.ascontiguousarray(cell),
            tol=1e-8,
        )
        shift = np.round(shift).astype(np.int64)
        keep = (orbits.first_atoms[center] != head) | (shift != 0).any(axis=1)
        near = np.bincount(center[keep & (length <= cutoff)], minlength=len(orbits.first_atoms))
        if (near == 0).any():
            raise ValueError(
                f"{int(orbits.sizes[near == 0].sum())} atoms without a neighbour within {cutoff:g} Å"
            )
        if len(length) and length[keep].min() < 1e-3:
            raise ValueError("two atoms at one place")
        self._set(center[keep], head[keep], shift[keep], length[keep])
        self._merge()

    def _set(self, center: np.ndarray, head: np.ndarray, shift: np.ndarray, length: np.ndarray) -> None:
        self._reach = int(np.abs(shift).max()) + 1
        keys = self._keys(center, head, shift)
        order = np.argsort(keys)
        self._sorted = keys[order]
        self.center, self.head = center[order], head[order]
        self.shift, self.length = shift[order], length[order]

    def _keys(self, center: np.ndarray, head: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """One integer per edge; −1 where the lattice vector is longer than any that occurs."""
        width = 2 * self._reach + 1
        digits = shift + self._reach
        key = center * self._n_atoms + head
        for axis in range(3):
            key = key * width + digits[:, axis]
        return np.where((np.abs(shift) <= self._reach).all(axis=1), key, -1)

    def _find(self, center: np.ndarray, head: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Position of edges, −1 for those that are not there."""
        keys = self._keys(center, head, shift)
        place = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        return np.where(self._sorted[place] == keys, place, -1)

    def _merge(self) -> None:
        """Label every edge by the first of its orbit; orbits cut at the rim of the skin are dropped."""
        while True:
            self._maps = self._stabiliser_maps()
            lost = np.asarray((self._maps < 0).any(axis=0))
            lost |= self.reverse(np.arange(len(lost))) < 0
            if not lost.any():
                break
            kept = ~lost
            self._set(self.center[kept], self.head[kept], self.shift[kept], self.length[kept])
        self.label = self._maps.min(axis=0)

    def _stabiliser_maps(self) -> np.ndarray:
        """Edge that each operation makes of each edge; the edge itself where its atom is moved."""
        own = np.arange(len(self.center))
        operations, orbits = self._orbits.operations, self._orbits
        if len(operations) == 1:
            return own[None]
        atom = orbits.first_atoms[self.center]
        maps = np.repeat(own[None], len(operations), axis=0)
        for k in range(len(operations)):
            stays = np.flatnonzero(operations.images[k, atom] == atom)
            maps[k, stays] = self._find(self.center[stays], *self._image(np.full(len(stays), k), stays))
        return np.unique(maps, axis=0)

    def _image(self, operation: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Head and lattice vector of edges under one operation each that keeps their first atom."""
        ops, head = self._orbits.operations, self.head[edge]
        atom = self._orbits.first_atoms[self.center[edge]]
        turned = np.einsum("eij,ej->ei", ops.rotations[operation], self.shift[edge])
        return ops.images[operation, head], turned + ops.shifts[operation, head] - ops.shifts[operation, atom]

    def reverse(self, edge: np.ndarray) -> np.ndarray:
        """The edges walked backwards, moved to the first atom of the orbit they then start in."""
        ops, head = self._orbits.operations, self.head[edge]
        atom = self._orbits.first_atoms[self.center[edge]]
        back = self._orbits.to_first[head]
        turned = np.einsum("eij,ej->ei", ops.rotations[back], -self.shift[edge])
        shift = turned + ops.shifts[back, atom] - ops.shifts[back, head]
        return self._find(self._orbits.orbit_of[head], ops.images[back, atom], shift)

    def angles(self, directed: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
        """One of each orbit of ordered pairs of short edges, the first leg the first of its orbit.

        Returns:
            pairs of edges [angles, 2], and how many second legs each stands for.
        """
        short = np.flatnonzero(self.length <= cutoff + SKIN if cutoff else np.zeros(len(self.length), bool))
        per_center = np.bincount(self.center[short], minlength=len(self._orbits.first_atoms))
        start = np.concatenate([[0], np.cumsum(per_center)])
        first = directed[np.isin(directed, short)]
        repeats = per_center[self.center[first]]
        if repeats.sum() > _MAX_ANGLES:
            raise ValueError(f"{repeats.sum()} angles within {cutoff:g} Å, at most {_MAX_ANGLES}: too dense")
        leg_1 = np.repeat(first, repeats)
        within = np.arange(len(leg_1)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        leg_2 = short[start[self.center[leg_1]] + within]
        distinct = leg_1 != leg_2
        leg_1, leg_2 = leg_1[distinct], leg_2[distinct]
        if len(self._maps) == 1:
            return np.stack([leg_1, leg_2], axis=1), np.ones(len(leg_1), dtype=np.int64)
        label = leg_2.copy()
        for mapping in self._maps:
            fixed = mapping[leg_1] == leg_1
            label[fixed] = np.minimum(label[fixed], mapping[leg_2[fixed]])
        merged, count = np.unique(np.stack([leg_1, label], axis=1), axis=0, return_counts=True)
        return merged.reshape(-1, 2), count
