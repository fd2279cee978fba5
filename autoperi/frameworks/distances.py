"""Distance least squares with the symmetry kept: geometry that comes nearest to wanted distances.

The method of DLS-76 (Baerlocher, Hepp and Meier, ETH Zürich 1977), by which the framework types of the IZA
database were brought to their idealised cells: free coordinates and cell are what is varied, so that no step
leaves the space group.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.graph import orbit_graph
from autoperi.crystals.lattice import lattice_from_coords

_STRAIN = 1e-5
"""Change of a lattice coordinate by which the cell is differentiated."""
_FARTHEST, _WIDEST = 0.3, 0.05
"""Longest step of a site (Å) and of a lattice coordinate."""


class FrameworkError(ValueError):
    """A net or a geometry that is no framework; the text says why."""


@dataclass(frozen=True)
class Wishes:
    """Distances that are wanted between atoms, a row each.

    Attributes:
        first, second: atoms of the primitive cell, [rows].
        shift: lattice vectors by which the second is moved, [rows, 3].
        distance: what is wanted, Å, [rows].
        weight: of the misfit, [rows].
        least: whether more is as good, [rows].
    """

    first: np.ndarray
    second: np.ndarray
    shift: np.ndarray
    distance: np.ndarray
    weight: np.ndarray
    least: np.ndarray


@dataclass(frozen=True)
class Contacts:
    """Neighbours of the sites, the nearest of each site first.

    Attributes:
        site: whose neighbours, [contacts].
        centre: the atom that is that site, [contacts].
        atom: of the primitive cell, [contacts].
        shift: lattice vectors by which it is moved, [contacts, 3].
        vector: from the site to the atom, Å, [contacts, 3].
        distance: its length, Å, [contacts].
        kind: site that the atom is an image of, [contacts].
    """

    site: np.ndarray
    centre: np.ndarray
    atom: np.ndarray
    shift: np.ndarray
    vector: np.ndarray
    distance: np.ndarray
    kind: np.ndarray


def contacts(crystal: Crystal, cutoff: float) -> Contacts:
    """All neighbours within ``cutoff`` Å; raises FrameworkError for a cell too flat to list them."""
    batch = CrystalBatch.from_crystals([crystal])
    try:
        graph = orbit_graph(batch, cutoff)
    except ValueError as error:
        raise FrameworkError(f"a cell has collapsed: {error}") from error
    frac = graph.atoms.positions(batch.site_positions())
    inverse = torch.linalg.inv(graph.lattice[0])
    offset = graph.vector @ inverse - frac[graph.atom] + frac[graph.atoms.first[graph.site]]
    order = np.lexsort((graph.distance.numpy(), graph.site.numpy()))
    atom, site = graph.atom.numpy()[order], graph.site.numpy()[order]
    return Contacts(
        site=site,
        centre=graph.atoms.first.numpy()[site],
        atom=atom,
        shift=offset.numpy().round()[order],
        vector=graph.vector.numpy()[order],
        distance=graph.distance.numpy()[order],
        kind=graph.atoms.site.numpy()[atom],
    )


def fitted(
    crystal: Crystal,
    wishes: Wishes | Callable[[Crystal], Wishes],
    rounds: int,
    steps: int,
    gain: float = 1e-6,
) -> tuple[Crystal, float]:
    """The crystal after steps of Levenberg and Marquardt, and the root mean square of its weighted misfits.

    Args:
        crystal: where it begins.
        wishes: what is wanted, or what is wanted of a geometry, asked anew in each round.
        rounds: of steps.
        steps: of one round at most.
        gain: misfit, Å, by which two rounds differ when it ends.
    """
    space = _Space(crystal)
    p, misfit = space.start, np.inf
    for _ in range(rounds):
        before = misfit
        wanted = wishes if isinstance(wishes, Wishes) else wishes(space.crystal(p))
        p, misfit = _descended(space, p, wanted, steps)
        if abs(before - misfit) < gain:
            break
    found = space.crystal(p)
    return replace(found, free=found.free % 1.0), misfit


def _descended(space: "_Space", p: np.ndarray, wanted: Wishes, steps: int) -> tuple[np.ndarray, float]:
    damping = 1e-2
    r, jacobian = space.misfits(p, wanted)
    for _ in range(steps):
        square = jacobian.T @ jacobian
        scale = np.diag(square) + 1e-6
        step = space.bounded(p, -np.linalg.solve(square + damping * np.diag(scale), jacobian.T @ r))
        r_new, jacobian_new = space.misfits(p + step, wanted)
        if r_new @ r_new < r @ r:
            gain = 1 - (r_new @ r_new) / (r @ r)
            p, r, jacobian, damping = p + step, r_new, jacobian_new, max(damping / 5, 1e-8)
            if gain < 1e-5:
                break
        else:
            damping *= 6
            if damping > 1e6:
                break
    return p, float(np.sqrt(np.mean(r**2)))


class _Space:
    """The free coordinates of a crystal, of its sites and then of its cell, as one vector."""

    def __init__(self, crystal: Crystal) -> None:
        batch = CrystalBatch.from_crystals([crystal])
        atoms, table = batch.atoms(), batch._table
        self._crystal = crystal
        self._origin, self._basis = table.origin[batch.wyckoff].numpy(), batch.basis().numpy()
        self._kind, self._rotation = atoms.site.numpy(), atoms.rotation.numpy()
        self._shift = atoms.shift.numpy()
        self._primitive = table.primitive[crystal.space_group].numpy().T
        self._sites = batch.free_mask().numpy().astype(bool)
        self._cell = batch.lattice_mask().numpy()[0].astype(bool)
        self.start = np.concatenate([crystal.free[self._sites], crystal.lattice_coords[self._cell]])

    def crystal(self, p: np.ndarray) -> Crystal:
        free, coords = self._parts(p)
        return replace(self._crystal, free=free, lattice_coords=coords)

    def _parts(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n = int(self._sites.sum())
        free, coords = np.zeros(self._sites.shape), self._crystal.lattice_coords.copy()
        free[self._sites], coords[self._cell] = p[:n], p[n:]
        return free, coords

    def _lattice(self, coords: np.ndarray) -> np.ndarray:
        """Cells of lattice coordinates, [cells, 3, 3]."""
        return self._primitive @ lattice_from_coords(torch.from_numpy(coords)).numpy()

    def bounded(self, p: np.ndarray, step: np.ndarray) -> np.ndarray:
        """The step, shortened where it is too long to be linear."""
        free, _ = self._parts(p)
        n = int(self._sites.sum())
        moves = np.zeros(free.shape)
        moves[self._sites] = step[:n]
        cell = self._lattice(self._parts(p)[1][None])[0]
        far = np.linalg.norm(np.einsum("sij,sj->si", self._basis, moves) @ cell, axis=1).max(initial=0.0)
        wide = np.abs(step[n:]).max(initial=0.0)
        return step / max(1.0, far / _FARTHEST, wide / _WIDEST)

    def misfits(self, p: np.ndarray, wanted: Wishes) -> tuple[np.ndarray, np.ndarray]:
        """Weighted misfits [rows] and their derivatives [rows, coordinates]."""
        free, coords = self._parts(p)
        around = coords + _STRAIN * np.concatenate([np.zeros((1, 6)), np.eye(6), -np.eye(6)])
        cells = self._lattice(around)
        cell, slopes = cells[0], (cells[1:7] - cells[7:]) / (2 * _STRAIN)
        x = self._origin + np.einsum("sij,sj->si", self._basis, free)
        atoms = np.einsum("aij,aj->ai", self._rotation, x[self._kind]) + self._shift
        f = atoms[wanted.second] + wanted.shift - atoms[wanted.first]
        v = f @ cell
        d = np.linalg.norm(v, axis=1).clip(1e-6)
        u = v / d[:, None]
        r = d - wanted.distance
        weight = wanted.weight * ~(wanted.least & (r > 0))
        q = u @ cell.T
        slope = np.zeros((len(d), *self._sites.shape))
        rows = np.arange(len(d))
        for end, sign in ((wanted.second, 1.0), (wanted.first, -1.0)):
            moved = np.einsum("ai,aij,ajk->ak", q, self._rotation[end], self._basis[self._kind[end]])
            np.add.at(slope, (rows, self._kind[end]), sign * moved)
        strained = np.einsum("ai,aj,mji->am", u, f, slopes)
        jacobian = np.concatenate([slope[:, self._sites], strained[:, self._cell]], axis=1)
        return weight * r, weight[:, None] * jacobian
