"""FIRE over the atoms and cells of many crystals at once, each with its own time step.

The variables and forces are those of ASE's FrechetCellFilter, the integrator is that of ASE's FIRE
with its default parameters (Bitzek et al. 2006, doi:10.1103/PhysRevLett.97.170201), so a crystal
moves here as it would in ASE, alone or in company.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_DT, _DT_MAX, _MAX_STEP = 0.1, 1.0, 0.2
_GROW, _SHRINK, _PATIENCE = 1.1, 0.5, 5
_MIX, _MIX_DECAY = 0.1, 0.99


class CellDescent:
    """Positions and cells of some crystals on their way down.

    A crystal of n atoms has n + 3 rows: its atoms in the undeformed frame, and n times the matrix
    logarithm U of its deformation F, with cell = cell₀ Fᵀ and position = row Fᵀ.
    """

    def __init__(self) -> None:
        self._cells = np.zeros((0, 3, 3))
        self._atoms = np.zeros(0, dtype=np.int64)
        self._x = np.zeros((0, 3))
        self._v = np.zeros((0, 3))
        self._dt, self._mix = np.zeros(0), np.zeros(0)
        self._downhill = np.zeros(0, dtype=np.int64)
        self.steps = np.zeros(0, dtype=np.int64)
        self._lay_out()

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self._cells)

    def enter(self, cell: np.ndarray, cart: np.ndarray) -> None:
        """Append a crystal at rest: lattice vectors as rows [3, 3], positions [atoms, 3], Å."""
        rows = np.concatenate([cart, np.zeros((3, 3))])
        self._cells = np.concatenate([self._cells, cell[None]])
        self._atoms = np.append(self._atoms, len(cart))
        self._x = np.concatenate([self._x, rows])
        self._v = np.concatenate([self._v, np.zeros_like(rows)])
        self._dt, self._mix = np.append(self._dt, _DT), np.append(self._mix, _MIX)
        self._downhill, self.steps = np.append(self._downhill, 0), np.append(self.steps, 0)
        self._lay_out()

    def keep(self, kept: np.ndarray) -> None:
        """Let the crystals go that are False, [crystals]."""
        rows = kept[self._owner]
        self._x, self._v = self._x[rows], self._v[rows]
        for name in ("_cells", "_atoms", "_dt", "_mix", "_downhill", "steps"):
            setattr(self, name, getattr(self, name)[kept])
        self._lay_out()

    def geometry(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Cartesian positions of each crystal, and cells [crystals, 3, 3], Å."""
        transposed = self._deformations().transpose(0, 2, 1)
        turned = np.einsum("ra,rab->rb", self._x[self._is_atom], transposed[self._owner[self._is_atom]])
        return np.split(turned, np.cumsum(self._atoms)[:-1]), self._cells @ transposed

    def forces(self, gradients: np.ndarray, virials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forces on the rows, and the largest of each crystal, both eV/Å.

        Args:
            gradients: dE/dx of all atoms, eV/Å. [atoms, 3]
            virials: dE/dε of the crystals, symmetric, eV. [crystals, 3, 3]
        """
        deformations = self._deformations()
        rows = np.empty_like(self._x)
        owner = self._owner[self._is_atom]
        rows[self._is_atom] = -np.einsum("ra,rab->rb", gradients, deformations[owner])
        slope = -virials @ np.linalg.inv(deformations.transpose(0, 2, 1))
        logarithm = torch.from_numpy(self._logarithms()).requires_grad_()
        weighted = (_exponential(logarithm) * torch.from_numpy(slope)).sum()
        (cell_rows,) = torch.autograd.grad(weighted, logarithm)
        rows[~self._is_atom] = (cell_rows.numpy() / self._atoms[:, None, None]).reshape(-1, 3)
        return rows, np.maximum.reduceat(np.linalg.norm(rows, axis=1), self._start)

    def step(self, forces: np.ndarray) -> None:
        """One FIRE step of every crystal along the forces on its rows."""
        power, velocity2 = self._dot(forces, self._v), self._dot(self._v, self._v)
        up = power > 0
        scale = self._mix * np.sqrt(velocity2 / np.maximum(self._dot(forces, forces), 1e-300))
        self._v = np.where(
            up[self._owner, None],
            (1 - self._mix)[self._owner, None] * self._v + scale[self._owner, None] * forces,
            0.0,
        )
        grow, turn = up & (self._downhill > _PATIENCE), ~up & (self.steps > 0)
        self._dt = np.where(grow, np.minimum(self._dt * _GROW, _DT_MAX), self._dt)
        self._dt = np.where(turn, self._dt * _SHRINK, self._dt)
        self._mix = np.where(turn, _MIX, np.where(grow, self._mix * _MIX_DECAY, self._mix))
        self._downhill = np.where(up, self._downhill + 1, 0)
        dt = self._dt[self._owner, None]
        self._v = self._v + dt * forces
        move = dt * self._v
        length = np.sqrt(self._dot(move, move))
        self._x = self._x + move * np.minimum(1, _MAX_STEP / np.maximum(length, 1e-300))[self._owner, None]
        self.steps = self.steps + 1

    def _dot(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.add.reduceat((a * b).sum(axis=1), self._start)

    def _logarithms(self) -> np.ndarray:
        return self._x[~self._is_atom].reshape(-1, 3, 3) / self._atoms[:, None, None]

    def _deformations(self) -> np.ndarray:
        return _exponential(torch.from_numpy(self._logarithms())).numpy()

    def _lay_out(self) -> None:
        rows = self._atoms + 3
        self._start = np.cumsum(rows) - rows
        self._owner = np.repeat(np.arange(len(rows)), rows)
        within = np.arange(len(self._owner)) - self._start[self._owner]
        self._is_atom = within < self._atoms[self._owner]


def _exponential(matrices: Float[Tensor, "crystals 3 3"]) -> Float[Tensor, "crystals 3 3"]:
    """Of each matrix, the same to the last bit in any company: torch treats a single one otherwise."""
    return torch.matrix_exp(torch.cat([matrices, matrices.new_zeros(1, 3, 3)]))[:-1]
