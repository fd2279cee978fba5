"""Chains of least strain: conformations relaxed under their screw or glide, then made to repeat."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from autoperi.polymers.conformations import SHORTEST_RISE, Chain, conformations, repeated
from autoperi.polymers.force_field import CUTOFF, Bonded, descended, far_energies, near_energies
from autoperi.polymers.parameters import Parameters
from autoperi.polymers.repeat_unit import PolymerError, RepeatUnit

MOST_UNITS, MOST_ATOMS = 15, 120
"""Of a helix before it repeats."""
_CLOSE = np.radians(3)
"""A helix takes the shortest repeat whose turn a unit is nearer than this, radians."""
_NEAR = np.radians(20)
"""A conformation whose turn a unit is nearer to that of a known helix is wound as that one, radians."""
_QUICK, _STEPS = 30, 300
"""Steps of all conformations, and of the few that are lowest after these."""
_LOWEST, _LONGEST = 3, 2
_STRAIN = 0.1
"""kcal/mol by which the energies of the two conformations must differ, else they are one."""


def chains(unit: RepeatUnit, field: Parameters, helix: str = "") -> list[Chain]:
    """The conformation of least strain and, where that is another one, the longest that repeats at once.

    Args:
        unit: what is repeated.
        field: its parameters.
        helix: units and turns of a helix that is known, such as 15/7; only what winds so is kept.

    Raises:
        PolymerError: no conformation that goes on along an axis, or winds as it should.
    """
    quick = sorted(
        (relaxed_chain(start, field, _QUICK) for start in conformations(unit)), key=lambda chain: chain.energy
    )
    if helix:
        found = list(_wound_as(helix, quick, field))
    else:
        chosen = [*quick[:_LOWEST], *sorted(quick, key=lambda chain: -chain.rise)[:_LONGEST]]
        found = [_repeating(relaxed_chain(chain, field, _STEPS), field) for chain in chosen]
    good = [chain for chain in found if chain.rise > SHORTEST_RISE * len(unit.backbone)]
    if not good:
        wanted = f" as {helix}" if helix else ""
        raise PolymerError(
            f"expected a conformation that goes on along an axis{wanted}: got none of {len(quick)} tried of "
            f"{unit.smiles}"
        )
    lowest = min(good, key=lambda chain: (round(chain.energy, 1), chain.units))
    plain = [chain for chain in good if chain.units <= 2]
    longest = max(plain, key=lambda chain: round(chain.rise, 2) - 1e-4 * chain.energy, default=lowest)
    same = abs(longest.rise - lowest.rise) < 0.02 or longest.energy - lowest.energy < _STRAIN
    return [lowest] if same else [lowest, longest]


def relaxed_chain(chain: Chain, field: Parameters, steps: int, free: bool = True) -> Chain:
    """The chain after a descent of its energy; its turn is kept where it is not free."""
    n, span = field.n_atoms, field.span
    bonded = Bonded.of(field, np.array([0]))
    reach = max(span, int(np.ceil((CUTOFF + np.ptp(chain.unit[:, 2]) + 1) / max(chain.rise, 1.0))))
    bonds = np.full((n, 2 * reach + 1, n), 4)
    bonds[:, reach - span : reach + span + 1] = field.near.transpose(1, 0, 2)
    near = torch.from_numpy(bonds)
    radius, depth, far_radius, far_depth = (
        torch.from_numpy(v)[:, None] for v in (field.radius, field.depth, field.far_radius, field.far_depth)
    )
    charges = torch.from_numpy(field.charges[:, None] * field.charges)[:, None]
    far_depth = torch.where(near > 3, far_depth, 0.0)
    few = (near > 0) & (near < 4)
    of_few = tuple(v.expand(near.shape)[few] for v in (radius, depth, charges, near))
    freely = free and not chain.glide

    def energy(p: Tensor) -> Tensor:
        x, rise = p[: 3 * n].reshape(n, 3), p[3 * n]
        turn = p[3 * n + 1] if freely else torch.tensor(chain.turn, dtype=p.dtype)
        around = repeated(x, rise, turn, chain.glide, range(-reach, reach + 1))
        d = (x[:, None, None] - around).square().sum(3).clamp(min=1e-6).sqrt()
        far = far_energies(d, far_radius, far_depth, charges)
        pairs = torch.where((d < CUTOFF) & (near > 0), far, 0.0).sum() + near_energies(d[few], *of_few).sum()
        return bonded.energy(around[reach : reach + span + 1].reshape(-1, 3)) + 0.5 * pairs

    start = np.concatenate([chain.unit.ravel(), [chain.rise], [chain.turn] * freely])
    p, found = descended(energy, start, steps)
    turn = float(p[-1]) if freely else chain.turn
    return replace(chain, unit=p[: 3 * n].reshape(n, 3), rise=float(p[3 * n]), turn=turn, energy=found)


def _wound_as(helix: str, quick: list[Chain], field: Parameters) -> Iterator[Chain]:
    """Conformations that are near to a known helix, at its turn."""
    units, turns = _helix(helix)
    turn = 2 * np.pi * turns / units
    for chain in quick:
        off = abs(abs((chain.turn + np.pi) % (2 * np.pi) - np.pi) - turn)
        if not chain.glide and off < _NEAR:
            sign = 1 if np.sin(chain.turn) >= 0 else -1
            wound = replace(chain, turn=sign * turn, units=units)
            yield relaxed_chain(wound, field, _STEPS, free=False)


def _helix(text: str) -> tuple[int, int]:
    units, _, turns = text.partition("/")
    if not (units.isdigit() and turns.isdigit() and 0 < 2 * int(turns) <= int(units)):
        raise PolymerError(f"expected units and turns of a helix such as 15/7: got {text!r}")
    return int(units), int(turns)


def _repeating(chain: Chain, field: Parameters) -> Chain:
    """The chain with the nearest turn by which it repeats after a few units, relaxed again."""
    if chain.glide:
        return replace(chain, units=2)
    most = max(1, min(MOST_UNITS, MOST_ATOMS // field.n_atoms))
    wanted = [(units, 2 * np.pi * turns / units) for units in range(1, most + 1) for turns in range(units)]
    off = [abs((turn - chain.turn + np.pi) % (2 * np.pi) - np.pi) for _, turn in wanted]
    close = [k for k, angle in enumerate(off) if angle < _CLOSE]
    units, turn = wanted[close[0] if close else int(np.argmin(off))]
    return relaxed_chain(replace(chain, turn=turn, units=units), field, _STEPS, free=False)
