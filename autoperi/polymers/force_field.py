"""The force field of chains that do not end, differentiable: MMFF94 inside a chain, DREIDING between chains.

Bonded terms, charges and pairs three bonds apart are those of MMFF94 (Halgren, J. Comput. Chem. 17, 490,
1996); pairs farther apart and of two chains attract and repel each other as DREIDING has it, which gives
better cells. Charges act by damped shifted forces (Fennell and Gezelter, J. Chem. Phys. 124, 234104, 2006),
which need no sum over the reciprocal lattice. Energies are in kcal/mol.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from autoperi.polymers.parameters import Parameters

CUTOFF = 10.0
"""Å, of all that is not bonded."""
_DAMPING = 0.2
_COULOMB = 332.0716
_BUFFER = 0.05
_DEGREES = 180 / np.pi


@dataclass(frozen=True, eq=False)
class Bonded:
    """Bonded terms on positions of atoms, as index and numbers of each kind."""

    bonds: tuple[Tensor, Tensor]
    angles: tuple[Tensor, Tensor]
    planes: tuple[Tensor, Tensor]
    torsions: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, found: Parameters, firsts: np.ndarray) -> "Bonded":
        """The terms of units whose first atoms stand at these rows of the positions, [units]."""
        kinds = (found.bonds, found.angles, found.planes, found.torsions)
        return cls(
            *(
                (
                    torch.from_numpy((firsts[:, None, None] + index).reshape(-1, index.shape[1])),
                    torch.from_numpy(np.tile(numbers, (len(firsts), 1))),
                )
                for index, numbers in kinds
            )
        )

    def energy(self, x: Tensor) -> Tensor:
        """The sum of all terms; positions in Å, [atoms, 3]."""
        return self._stretched(x) + self._bent(x) + self._out_of_plane(x) + self._turned(x)

    def _stretched(self, x: Tensor) -> Tensor:
        index, numbers = self.bonds
        constant, length = numbers.T
        i, j = _ends(x, index)
        d = (j - i).norm(dim=1) - length
        return (0.5 * 143.9325 * constant * d**2 * (1 - 2 * d + 7 / 3 * d**2)).sum()

    def _bent(self, x: Tensor) -> Tensor:
        index, numbers = self.angles
        constant, angle, linear, first, second, one, two = numbers.T
        i, j, k = _ends(x, index)
        u, v = i - j, k - j
        a, b = u.norm(dim=1), v.norm(dim=1)
        cos = ((u * v).sum(1) / (a * b)).clamp(-1 + 1e-9, 1 - 1e-9)
        d = torch.arccos(cos) * _DEGREES - angle
        bend = 0.5 * 0.043844 * constant * d**2 * (1 - 0.4 / _DEGREES * d)
        mixed = 2.51210 * d * (first * (a - one) + second * (b - two))
        return torch.where(linear > 0, 143.9325 * constant * (1 + cos), bend + mixed).sum()

    def _out_of_plane(self, x: Tensor) -> Tensor:
        index, numbers = self.planes
        i, j, k, l = _ends(x, index)  # noqa: E741
        normal = torch.linalg.cross(i - j, k - j)
        away = l - j
        sine = (normal * away).sum(1) / (normal.norm(dim=1) * away.norm(dim=1))
        d = torch.arcsin(sine.clamp(-1 + 1e-9, 1 - 1e-9)) * _DEGREES
        return (0.5 * 0.043844 * numbers[:, 0] * d**2).sum()

    def _turned(self, x: Tensor) -> Tensor:
        index, numbers = self.torsions
        i, j, k, l = _ends(x, index)  # noqa: E741
        m, n = torch.linalg.cross(i - j, k - j), torch.linalg.cross(j - k, l - k)
        cos = ((m * n).sum(1) / (m.norm(dim=1) * n.norm(dim=1)).clamp(min=1e-9)).clamp(-1, 1)
        first, second, third = numbers.T
        double, triple = 2 * cos**2 - 1, (4 * cos**2 - 3) * cos
        return 0.5 * (first * (1 + cos) + second * (1 - double) + third * (1 + triple)).sum()


def _ends(x: Tensor, index: Tensor) -> tuple[Tensor, ...]:
    """Positions of the atoms of terms, [terms, 3] each."""
    return x.index_select(0, index.flatten()).reshape(*index.shape, 3).unbind(1)


def near_energies(distance: Tensor, radius: Tensor, depth: Tensor, charges: Tensor, near: Tensor) -> Tensor:
    """What pairs of atoms at most three bonds apart have otherwise than those of `far_energies`.

    MMFF94's buffered 14-7 potential and three quarters of the charges at three bonds, nothing nearer; what
    `far_energies` says of the charges is taken away, undamped.

    Args:
        distance: Å.
        radius: of MMFF94's potential, Å.
        depth: of MMFF94's potential, kcal/mol.
        charges: products, e².
        near: bonds between the two.
    """
    ratio = radius / distance
    seventh = ratio**7
    van_der_waals = (
        depth * (1.07 / (1 + 0.07 * ratio)) ** 7 * seventh * (1.12 * seventh / (1 + 0.12 * seventh) - 2)
    )
    third = near == 3
    return torch.where(third, van_der_waals, 0.0) - torch.where(third, 0.25, 1.0) * _COULOMB * charges / (
        distance + _BUFFER
    )


def far_energies(
    distance: Tensor, radius: Tensor, depth: Tensor, charges: Tensor, cutoff: float = CUTOFF
) -> Tensor:
    """Energies of pairs of atoms four bonds apart or more, or of two chains.

    Args:
        distance: Å.
        radius: of DREIDING's 12-6 potential, Å.
        depth: of the same, kcal/mol; 0 where charges alone act.
        charges: products, e².
        cutoff: where charges cease to act, Å.
    """
    sixth = (radius / distance).clamp(max=2.0) ** 6
    d = distance + _BUFFER
    edge = torch.as_tensor(cutoff, dtype=d.dtype)
    at_edge = torch.erfc(_DAMPING * edge) / edge
    slope = at_edge / edge + 2 * _DAMPING / np.pi**0.5 * torch.exp(-((_DAMPING * edge) ** 2)) / edge
    coulomb = torch.erfc(_DAMPING * d) / d - at_edge + slope * (d - edge)
    return depth * (sixth**2 - 2 * sixth) + _COULOMB * charges * coulomb


def tail(found: Parameters, volume_per_unit: Tensor) -> Tensor:
    """What the van der Waals terms beyond the cut-off add to the energy of a unit, on average."""
    strength = float((found.far_depth * found.far_radius**6).sum())
    return -4 * np.pi / 3 * strength / CUTOFF**3 / volume_per_unit


def descended(
    energy: Callable[[Tensor], Tensor], start: np.ndarray, steps: int, force: float = 1e-3
) -> tuple[np.ndarray, float]:
    """Where L-BFGS brings an energy in so many steps, or with no derivative above a force; the energy."""

    def both(values: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(values).requires_grad_()
        total = energy(x)
        (gradient,) = torch.autograd.grad(total, x)
        return float(total.detach()), gradient.numpy()

    found = minimize(
        both, start, jac=True, method="L-BFGS-B", options={"maxiter": steps, "gtol": force, "maxcor": 20}
    )
    return found.x, float(found.fun)
