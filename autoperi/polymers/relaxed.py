"""Crystals of chains after a descent of all atoms and the cell by MMFF94."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoperi.polymers.force_field import CUTOFF, Bonded, descended, far_energies, near_energies, tail
from autoperi.polymers.packing import Packing
from autoperi.polymers.parameters import Parameters

ROUNDS = (50, 100, 200)
"""Steps, after each of which neighbours are listed anew."""
_FORCE = 3e-3
"""kcal/mol/Å of a unit, at which a descent ends."""
_STRAINED = 3.0
"""Å that a strain of one counts as."""


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A crystal of chains at rest.

    Attributes:
        cell: rows in Å, the last along the chains. [3, 3]
        positions: Å, [chains, units, atoms, 3].
        energy: of a unit, kcal/mol, with all that acts in it and between.
    """

    cell: np.ndarray
    positions: np.ndarray
    energy: float


def relaxed(packing: Packing, field: Parameters, rounds: Sequence[int] = ROUNDS) -> Relaxed:
    """A packing after descent in so many rounds of steps; positions and cell are free."""
    cell, x = packing.cell, packing.positions
    shape, energy = x.shape, np.inf
    for steps in rounds:
        crystal = _Crystal(cell, x, packing.directions, field)
        before = energy
        start = np.zeros(6 + x.size)
        p, energy = descended(crystal.energy, start, steps, _FORCE)
        strained, moved = (v.numpy() for v in crystal.geometry(torch.from_numpy(p)))
        cell, x = strained, moved.reshape(shape)
        if abs(before - energy) < 1e-3:
            break
    return Relaxed(cell, x, energy)


class _Crystal:
    def __init__(
        self, cell: np.ndarray, x: np.ndarray, directions: tuple[int, ...], field: Parameters
    ) -> None:
        self.cell, self.x, self.field = torch.from_numpy(cell), torch.from_numpy(x.reshape(-1, 3)), field
        self.shape = chains, units, atoms, _ = x.shape
        self.count = chains * units
        number = np.arange(units + field.span)
        rows = np.arange(chains)[:, None] * units + number % units
        self.rows = torch.from_numpy(rows.ravel())
        over = np.array(directions)[:, None] * (number // units)
        self.over = torch.from_numpy(over.ravel().astype(float))
        firsts = (np.arange(chains)[:, None] * len(number) + np.arange(units)) * atoms
        self.bonded = Bonded.of(field, firsts.ravel())
        self.pairs(cell, x.reshape(-1, 3), np.array(directions))

    def pairs(self, cell: np.ndarray, x: np.ndarray, directions: np.ndarray) -> None:
        """All pairs within the cut-off, once each, with what acts between them."""
        chains, units, atoms, _ = self.shape
        first, second, image = near_pairs(cell, x, CUTOFF)
        chain, unit, atom = (np.unravel_index(np.arange(len(x)), (chains, units, atoms))[k] for k in range(3))
        apart = unit[second] + units * image[:, 2] * directions[chain[first]] - unit[first]
        span = self.field.span
        same = (chain[first] == chain[second]) & (image[:, :2] == 0).all(1) & (np.abs(apart) <= span)
        bonds = self.field.near[np.clip(apart, -span, span) + span, atom[first], atom[second]]
        near = np.where(same, bonds, 4)
        a, b, few = atom[first], atom[second], near < 4
        charges = self.field.charges[a] * self.field.charges[b]
        depth = np.where(few, 0.0, self.field.far_depth[a, b])
        self.of_pair: tuple[Tensor, Tensor, Tensor] = tuple(  # type: ignore
            map(torch.from_numpy, (self.field.far_radius[a, b], depth, charges))
        )
        of_few = self.field.radius[a, b], self.field.depth[a, b], charges, near
        self.few, self.of_few = torch.from_numpy(few), tuple(torch.from_numpy(v[few]) for v in of_few)
        self.first, self.second = torch.from_numpy(first), torch.from_numpy(second)
        self.image = torch.from_numpy(image.astype(float))

    def geometry(self, p: Tensor) -> tuple[Tensor, Tensor]:
        xx, yy, zz, yz, xz, xy = p[:6] / _STRAINED / len(self.x) ** 0.5
        strain = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz]).reshape(3, 3)
        deformed = torch.eye(3, dtype=p.dtype) + strain
        return self.cell @ deformed, (self.x + p[6:].reshape(-1, 3)) @ deformed

    def energy(self, p: Tensor) -> Tensor:
        """Of a unit."""
        cell, x = self.geometry(p)
        atoms = x.reshape(self.count, -1, 3)
        along = (atoms.index_select(0, self.rows) + self.over[:, None, None] * cell[2]).reshape(-1, 3)
        apart = x.index_select(0, self.second) - x.index_select(0, self.first)
        d = (apart + self.image @ cell).square().sum(1).clamp(min=1e-6).sqrt()
        pairs = far_energies(d, *self.of_pair).sum() + near_energies(d[self.few], *self.of_few).sum()
        return (self.bonded.energy(along) + pairs) / self.count + tail(
            self.field, torch.linalg.det(cell).abs() / self.count
        )


def near_pairs(cell: np.ndarray, x: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of atoms within a distance, once each: first, second, and the cell vectors to the second."""
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    frac = x @ np.linalg.inv(cell)
    wide = np.ceil(cutoff / heights + np.ptp(frac, axis=0)).astype(int)
    images = np.stack(np.meshgrid(*(np.arange(-w, w + 1) for w in wide), indexing="ij"), -1).reshape(-1, 3)
    found = []
    for image in images:
        d = x[None] + image @ cell - x[:, None]
        close = (d**2).sum(2) < cutoff**2
        close &= np.triu(np.ones_like(close), 0 if tuple(image) > (0, 0, 0) else 1)
        first, second = np.nonzero(close)
        found.append((first, second, np.broadcast_to(image, (len(first), 3))))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))  # type: ignore[return-value]
