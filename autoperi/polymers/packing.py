"""Packings of stiff chains: cells, setting angles, shifts along the axis, and how a second chain stands."""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from autoperi.polymers.conformations import Chain
from autoperi.polymers.force_field import far_energies
from autoperi.polymers.parameters import Parameters

MOST_ATOMS = 120
"""Of a cell with two chains; larger chains stand in cells of one."""
_CUTOFF = 7.0
_PAIRS = 1e6
"""Pairs of atoms that are computed at once."""
_STARTS, _STEPS = 32, 60
_STEP = torch.tensor([0.12, 0.12, 0.02, 0.08, 0.12, 0.12, 0.12])
"""First steps of the search in Å and radians, in the order of `_Search.begun`."""
_STEEPEST = 20.0
"""kcal/mol of a step: where atoms overlap, slopes are cut to this, so that steps stay long afterwards."""
_PRESSURE = 0.03
"""kcal/mol/Å³ (2 GPa), during the search alone, so that chains do not part."""
_APART = 0.05
"""kcal/mol of a unit by which two packings of one arrangement differ."""
VOLUMES = {
    1: 5.1,
    6: 13.9,
    7: 11.8,
    8: 11.4,
    9: 11.2,
    14: 37.3,
    15: 29.5,
    16: 25.2,
    17: 25.8,
    35: 32.7,
    53: 46.2,
}
"""Of atoms in molecular crystals, Å³ (Hofmann, Acta Cryst. B 58, 489, 2002)."""
_ALIKE = [(0, 1), (1, -1), (1, 0), (1, 1), (0, 2), (2, 0)]
_OTHERS = [(i, j) for i in range(-2, 2) for j in range(-2, 2) if i in (-1, 0) or j in (-1, 0)]


@dataclass(frozen=True, eq=False)
class Arrangement:
    """How the second chain of a cell comes from the first.

    Attributes:
        name: of the operation.
        second: the operation without its shift; None where a cell has one chain. [3]: its diagonal
        oblique: whether the base of the cell need not be a rectangle.
        sheared: whether neighbours may be shifted along the axis.
        shifts: along the axis, in periods, that the second chain may have; None for all.
    """

    name: str
    second: tuple[int, int, int] | None
    oblique: bool = False
    sheared: bool = False
    shifts: tuple[float, ...] | None = None

    @property
    def mirrors(self) -> bool:
        """Whether the second chain is a mirror image."""
        return self.second is not None and prod(self.second) < 0


ARRANGEMENTS = (
    Arrangement("one chain", None, oblique=True, sheared=True),
    Arrangement("screw along the chain", (-1, -1, 1), oblique=True),
    Arrangement("inversion", (-1, -1, -1), oblique=True, sheared=True),
    Arrangement("screw across the chain", (1, -1, -1)),
    Arrangement("glide along the chain", (-1, 1, 1), shifts=(0.0, 0.5)),
    Arrangement("glide across the chain", (1, 1, -1), oblique=True),
)


@dataclass(frozen=True, eq=False)
class Packing:
    """Chains in a cell, stiff.

    Attributes:
        cell: rows in Å, the last along z. [3, 3]
        positions: Å, [chains, units, atoms, 3].
        directions: 1 for a chain whose units follow each other up the axis, else -1. [chains]
        energy: between chains, of a unit, kcal/mol.
        arrangement: its name.
    """

    cell: np.ndarray
    positions: np.ndarray
    directions: tuple[int, ...]
    energy: float
    arrangement: str


def packings(chain: Chain, field: Parameters, mirrors: bool, most: int) -> list[Packing]:
    """The packings of least energy, lowest first: the best of each arrangement before any second one.

    Args:
        chain: how it is wound.
        field: its parameters.
        mirrors: whether a mirror image of the chain may stand beside it.
        most: packings of all arrangements together.
    """
    search = _Search(chain, field)
    found = [
        search.lowest(arrangement)
        for arrangement in ARRANGEMENTS
        if (arrangement.second is None or 2 * search.n <= MOST_ATOMS) and (mirrors or not arrangement.mirrors)
    ]
    first = sorted((some[0] for some in found), key=lambda p: p.energy)
    others = sorted((p for some in found for p in some[1:]), key=lambda p: p.energy)
    return sorted([*first, *others][:most], key=lambda p: p.energy)


class _Search:
    def __init__(self, chain: Chain, field: Parameters) -> None:
        self.chain, self.units = chain, chain.units
        x = torch.from_numpy(chain.positions().reshape(-1, 3))
        self.x, self.period = x.float(), float(chain.period)
        self.n = len(x)
        tiled = lambda v: torch.from_numpy(np.tile(v, (chain.units, chain.units))).float()  # noqa: E731
        charges = np.tile(field.charges, chain.units)
        self.radius, self.depth = tiled(field.far_radius), tiled(field.far_depth)
        self.charges = torch.from_numpy(charges[:, None] * charges).float()
        self.repeats = max(0, int(np.ceil(_CUTOFF / self.period - 0.5)))
        volume = sum(VOLUMES[int(z)] for z in field.numbers) * chain.units
        self.area = 1.05 * volume / self.period
        self.reach = _CUTOFF + 2 * float(self.x[:, :2].norm(dim=1).max())
        pairs = self.n**2 * (2 * self.repeats + 1) * (len(_ALIKE) + len(_OTHERS))
        self.starts = int(np.clip(_PAIRS / pairs, 6, _STARTS))

    def lowest(self, arrangement: Arrangement) -> list[Packing]:
        """The lowest and, where there is one, the next that differs."""
        sheared, shifted = arrangement.sheared, arrangement.second is not None and arrangement.shifts is None
        step = _STEP * torch.tensor([1, 1, arrangement.oblique, 1, sheared, sheared, shifted])
        start = self.begun(arrangement)
        moved = torch.zeros_like(start, requires_grad=True)
        optimizer = torch.optim.Adam([moved], lr=1.0, betas=(0.8, 0.9))
        for number in range(_STEPS):
            done = number / _STEPS
            optimizer.param_groups[0]["lr"] = 1.0 if done < 0.5 else 2 * (1 - done) + 0.02
            optimizer.zero_grad()
            values = start + moved * step
            volume = values[:, 0] * values[:, 1] * torch.sin(values[:, 2]) * self.period
            pressed = _PRESSURE * volume / (1 if arrangement.second is None else 2)
            (self.energies(values, arrangement) + pressed).sum().backward()
            steep = moved.grad.norm(dim=1, keepdim=True)  # type: ignore[union-attr]
            moved.grad *= (_STEEPEST / steep.clamp(min=1e-9)).clamp(max=1.0)  # type: ignore[operator]
            optimizer.step()
        with torch.no_grad():
            values = start + moved * step
            energies = self.energies(values, arrangement)
        order = torch.argsort(energies).tolist()
        apart = [k for k in order if float(energies[k] - energies[order[0]]) > _APART * self.units]
        return [self.packing(values[k], float(energies[k]), arrangement) for k in (order[0], *apart[:1])]

    def begun(self, arrangement: Arrangement) -> Tensor:
        """Sides of the base, its angle, setting angle, both shears and shift, at random, [starts, 7]."""
        n, chains, random = self.starts, 1 if arrangement.second is None else 2, np.random.default_rng(0)
        gamma = np.full(n, np.pi / 2)
        if arrangement.oblique:
            gamma = random.uniform(np.radians(65), np.radians(115), n)
        aspect = np.exp(random.uniform(-0.6, 0.6, n))
        base = np.sqrt(self.area * chains / np.sin(gamma))
        shear = random.uniform(-0.5, 0.5, (2, n)) * self.period * arrangement.sheared
        if arrangement.second is None:
            shift = np.zeros(n)
        elif arrangement.shifts is None:
            shift = random.uniform(0, self.period, n)
        else:
            shift = random.choice(arrangement.shifts, n) * self.period
        turn = random.uniform(0, 2 * np.pi, n)
        columns = [base * aspect, base / aspect, gamma, turn, *shear, shift]
        return torch.from_numpy(np.stack(columns, axis=1)).float()

    def energies(self, values: Tensor, arrangement: Arrangement) -> Tensor:
        """Between chains, of a chain, [starts]."""
        a, b, gamma, turn, shear_a, shear_b, shift = values.T
        zero = torch.zeros_like(a)
        first = torch.stack([a, zero, shear_a], 1)
        second = torch.stack([b * torch.cos(gamma), b * torch.sin(gamma), shear_b], 1)
        here = self.turned(turn)
        ways, weights = torch.tensor(_ALIKE, dtype=a.dtype), [1.0] * len(_ALIKE)
        away = ways @ torch.stack([first, second], 1)
        there = here[:, None] + away[:, :, None]
        if arrangement.second is not None:
            up = torch.stack([zero, zero, shift], 1)[:, None]
            ways = torch.tensor(_OTHERS, dtype=a.dtype) + 0.5
            weights += [0.5] * len(_OTHERS)
            others = ways @ torch.stack([first, second], 1) + up
            image = here * torch.tensor(arrangement.second, dtype=here.dtype)
            away = torch.cat([away, others], 1)
            there = torch.cat([there, image[:, None] + others[:, :, None]], 1)
        start, way = torch.nonzero(away[..., :2].norm(dim=2) < self.reach, as_tuple=True)
        between = self.between(here[start], there[start, way]) * torch.tensor(weights)[way]
        return torch.zeros_like(a).index_add(0, start, between)

    def turned(self, turn: Tensor) -> Tensor:
        cos, sin = torch.cos(turn)[:, None], torch.sin(turn)[:, None]
        x, y, z = self.x.T
        return torch.stack([cos * x - sin * y, sin * x + cos * y, z + 0 * cos], 2)

    def between(self, here: Tensor, there: Tensor) -> Tensor:
        """Of two chains each, [rows]; positions [rows, atoms, 3]."""
        d = there[:, None] - here[:, :, None]
        across = d[..., 0] ** 2 + d[..., 1] ** 2
        up = d[..., 2] - self.period * torch.round(d[..., 2].detach() / self.period)
        along = up[..., None] + self.period * torch.arange(-self.repeats, self.repeats + 1)
        square = (across[..., None] + along**2).flatten()
        close = torch.nonzero(square < _CUTOFF**2).flatten()
        distance = square.index_select(0, close).clamp(min=0.25).sqrt()
        row, kind = close // (square.numel() // len(here)), close // along.shape[-1] % self.n**2
        radius, depth, charges = (v.flatten()[kind] for v in (self.radius, self.depth, self.charges))
        pairs = far_energies(distance, radius, depth, charges, _CUTOFF)
        return torch.zeros(len(here)).index_add(0, row, pairs)

    def packing(self, values: Tensor, energy: float, arrangement: Arrangement) -> Packing:
        a, b, gamma, turn, shear_a, shear_b, shift = values.double().tolist()
        cell = np.array(
            [[a, 0, shear_a], [b * np.cos(gamma), b * np.sin(gamma), shear_b], [0, 0, self.period]]
        )
        wound = self.chain.positions()
        spin = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        chains, directions = [wound @ spin], [1]
        if arrangement.second is not None:
            away = 0.5 * (cell[0] + cell[1]) + [0, 0, shift]
            chains.append(chains[0] * arrangement.second + away)
            directions.append(arrangement.second[2])
        return Packing(cell, np.stack(chains), tuple(directions), energy / self.units, arrangement.name)
