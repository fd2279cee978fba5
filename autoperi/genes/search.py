"""Exact searches for what is still reachable while orbits and species are drawn one by one.

A request is honoured by construction: every choice from which it could no longer be met is removed. Which
orbit combinations meet it is an integer programme over multiplicities: a position without freedom is used
at most once, others any number of times.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod

import numpy as np

from autoperi.crystals.crystal import MAX_Z
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.genes.request import GeneRequest

_MAX_STATES = 2_000_000


class OrbitSearch:
    """Which orbits may follow which, so that the request stays reachable; exact, without rejection.

    A state is, per goal (a number of formula units, or just atoms and sites), the set of ways in which the
    orbits so far can be shared among the elements, as the bits of an integer.
    """

    def __init__(self, request: GeneRequest, n_max: int) -> None:
        """Search within ``request.n_atoms``, or 1 to ``n_max`` atoms; raises ValueError if nothing fits."""
        self.request = request
        self.n_atoms = request.n_atoms or (1, n_max)
        self._goals = _goals(request, self.n_atoms)
        self._completions: dict[int, list[list[int]]] = {}
        self.start = tuple(1 for _ in self._goals)
        self.groups = tuple(
            g for g in request.groups() if self._reachable(self.start, self._completion(g)[0])
        )
        self._exact = request.positions()
        self._allowed: dict[tuple, np.ndarray] = {}
        if self._exact is not None and self.groups and not self._accepts_exact(self._exact):
            self.groups = ()
        if not self.groups:
            raise ValueError(self._reason())

    def allowed(self, group: int, state: tuple[int, ...], chosen: Sequence[int]) -> np.ndarray:
        """Which letters (by rank) may follow the chosen positions; last entry: whether to stop, [28]."""
        exact = self._exact
        if exact is not None:
            out = np.zeros(28, dtype=bool)
            done = len(chosen) == len(exact)
            out[-1 if done else exact[len(chosen)] - _table().start[group]] = True
            return out
        last = chosen[-1] if chosen else -1
        key = (group, state, last)
        if key not in self._allowed:
            self._allowed[key] = self._follow(group, state, last)
        return self._allowed[key]

    def _follow(self, group: int, state: tuple[int, ...], last: int) -> np.ndarray:
        table = _table()
        first, end = table.start[group], table.start[group + 1]
        out = np.zeros(28, dtype=bool)
        completion = self._completion(group)
        for p in range(max(first, last), end):
            if p == last and table.dim[p] == 0:
                continue
            after = completion[p - first + (table.dim[p] == 0)]
            out[p - first] = self._reachable(self.step(state, p), after)
        out[-1] = self.complete(state)
        return out

    def step(self, state: tuple[int, ...], position: int) -> tuple[int, ...]:
        """The state after one more orbit."""
        m = _table().multiplicity[position]
        return tuple(goal.forward(bits, m) for goal, bits in zip(self._goals, state, strict=True))

    def complete(self, state: tuple[int, ...]) -> bool:
        """Whether the orbits so far meet the request as they are."""
        return any(bits & goal.accept for goal, bits in zip(self._goals, state, strict=True))

    def accepts(self, positions: Sequence[int]) -> bool:
        """Whether a complete gene, given by its position indices, meets the request."""
        group = _table().group[positions[0]]
        if group not in self.groups:
            return False
        exact = self._exact
        return (exact is None or tuple(sorted(positions)) == exact) and self._accepts_exact(positions)

    def _accepts_exact(self, positions: Sequence[int]) -> bool:
        state = self.start
        for p in positions:
            state = self.step(state, p)
        return self.complete(state)

    @staticmethod
    def _reachable(state: tuple[int, ...], completion: Sequence[int]) -> bool:
        return any(a & b for a, b in zip(state, completion, strict=True))

    def _completion(self, group: int) -> list[list[int]]:
        """For each letter rank, per goal, the states from which that letter and later ones can finish."""
        if group not in self._completions:
            table = _table()
            rows = [[goal.accept for goal in self._goals]]
            for p in reversed(range(table.start[group], table.start[group + 1])):
                m, once = table.multiplicity[p], table.dim[p] == 0
                rows.append(
                    [
                        bits | goal.backward(bits, m) if once else goal.backward_closure(bits, m)
                        for goal, bits in zip(self._goals, rows[-1], strict=True)
                    ]
                )
            self._completions[group] = rows[::-1]
        return self._completions[group]

    def _reason(self) -> str:
        low, high = self.n_atoms
        groups = self.request.groups()
        where = f"space group {groups[0]}" if len(groups) == 1 else f"any of {len(groups)} space groups"
        what = self.request.formula or self.request.anonymous_formula or self.request.chemical_system
        ratios = self.request.ratios()
        if ratios is not None and not self._goals:
            return (
                f"{what} has {sum(ratios)} atoms per formula unit: no multiple lies within {low}-{high} "
                "atoms per primitive cell; widen the number of atoms (--atoms)"
            )
        subject = f"gene {self.request.gene}" if self.request.gene else f"no combination of orbits of {where}"
        verb = "does not give" if self.request.gene else "gives"
        return (
            f"{subject} {verb} {what or 'a crystal'} within {low}-{high} atoms per primitive cell: positions "
            "without free coordinates can be used once only; widen the atoms (--atoms) or space groups"
        )


class SpeciesSearch:
    """Which elements may be put on a site, so that the request stays reachable."""

    def __init__(self, request: GeneRequest) -> None:
        self._permitted = request.permitted()
        self._amounts, self._ratios, self._system = request.amounts(), request.ratios(), request.system()

    def allowed(self, species: Sequence[int], multiplicities: Sequence[int], site: int) -> np.ndarray:
        """Whether each atomic number may be put on a hidden site, [101].

        Args:
            species: atomic number of each site, 0 where hidden.
            multiplicities: atoms on each site.
            site: the hidden site in question; what its entry in ``species`` says does not count.
        """
        used: dict[int, int] = {}
        for i, (z, m) in enumerate(zip(species, multiplicities, strict=True)):
            if z and i != site:
                used[z] = used.get(z, 0) + m
        if not all(self._permitted[z] for z in used):
            return np.zeros(MAX_Z + 1, dtype=bool)
        m = multiplicities[site]
        hidden = [
            n for i, (z, n) in enumerate(zip(species, multiplicities, strict=True)) if not z and i != site
        ]
        rest = tuple(sorted(hidden, reverse=True))
        if self._ratios is not None:
            return self._of_formula(used, m, rest, sum(multiplicities))
        if self._system is not None:
            missing = self._system - set(used)
            if len(missing) > len(rest):
                only = np.isin(np.arange(MAX_Z + 1), list(missing))
                return self._permitted & only if len(missing) == len(rest) + 1 else np.zeros_like(only)
        return self._permitted.copy()

    def accepts(self, species: Sequence[int], multiplicities: Sequence[int]) -> bool:
        """Whether species, hidden ones (0) still to be chosen, can meet the request."""
        hidden = [i for i, z in enumerate(species) if not z]
        if hidden:
            return bool(self.allowed(species, multiplicities, hidden[0]).any())
        return bool(self.allowed(species, multiplicities, 0)[species[0]])

    def _of_formula(self, used: dict[int, int], m: int, rest: tuple[int, ...], n_atoms: int) -> np.ndarray:
        assert self._ratios is not None
        out = np.zeros(MAX_Z + 1, dtype=bool)
        units, left = divmod(n_atoms, sum(self._ratios))
        if left:
            return out
        if self._amounts is not None:
            room = {z: a * units - used.get(z, 0) for z, a in self._amounts.items()}
            if set(used) - set(room) or min(room.values()) < 0:
                return out
            for z in room:
                if room[z] >= m:
                    out[z] = fits(_descending({**room, z: room[z] - m}.values()), rest)
            return out & self._permitted
        slots = tuple(a * units for a in self._ratios)
        for z in used:
            out[z] = _fits_unnamed(_descending({**used, z: used[z] + m}.values()), slots, rest)
        if _fits_unnamed(_descending([*used.values(), m]), slots, rest):
            out |= ~np.isin(np.arange(MAX_Z + 1), list(used))
        return out & self._permitted


@lru_cache(maxsize=1 << 18)
def fits(room: tuple[int, ...], multiplicities: tuple[int, ...]) -> bool:
    """Whether orbits fill the room left for each element exactly; both descending, zeros in room allowed."""
    if sum(room) != sum(multiplicities):
        return False
    if not multiplicities or multiplicities[0] == 1:
        return True
    m, rest = multiplicities[0], multiplicities[1:]
    return any(
        fits(_descending([*room[:i], room[i] - m, *room[i + 1 :]]), rest)
        for i in range(len(room))
        if room[i] >= m and (i == 0 or room[i] != room[i - 1])
    )


@lru_cache(maxsize=1 << 18)
def _fits_unnamed(used: tuple[int, ...], slots: tuple[int, ...], rest: tuple[int, ...]) -> bool:
    """As `fits`, where it is open which of the slots each element already used stands for."""
    if not used:
        return fits(slots, rest)
    return any(
        _fits_unnamed_chosen(
            used[1:], _descending([*slots[:i], *slots[i + 1 :]]), (slots[i] - used[0],), rest
        )
        for i in range(len(slots))
        if slots[i] >= used[0] and (i == 0 or slots[i] != slots[i - 1])
    )


@lru_cache(maxsize=1 << 18)
def _fits_unnamed_chosen(
    used: tuple[int, ...], slots: tuple[int, ...], room: tuple[int, ...], rest: tuple[int, ...]
) -> bool:
    if not used:
        return fits(_descending([*slots, *room]), rest)
    return any(
        _fits_unnamed_chosen(
            used[1:],
            _descending([*slots[:i], *slots[i + 1 :]]),
            _descending([*room, slots[i] - used[0]]),
            rest,
        )
        for i in range(len(slots))
        if slots[i] >= used[0] and (i == 0 or slots[i] != slots[i - 1])
    )


def _descending(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(values, reverse=True))


@dataclass(frozen=True)
class _Goal:
    """Counts to be reached, as a mixed-radix number; a set of counts is the bits of an integer."""

    accept: int
    moves: dict[int, list[tuple[int, int]]]
    """By multiplicity: (mask of the counts that can take it, shift of the bits)."""

    def forward(self, bits: int, m: int) -> int:
        out = 0
        for mask, shift in self.moves.get(m, ()):
            out |= (bits & mask) << shift
        return out

    def backward(self, bits: int, m: int) -> int:
        out = 0
        for mask, shift in self.moves.get(m, ()):
            out |= (bits >> shift) & mask
        return out

    def backward_closure(self, bits: int, m: int) -> int:
        while (more := bits | self.backward(bits, m)) != bits:
            bits = more
        return bits


def _goals(request: GeneRequest, n_atoms: tuple[int, int]) -> list[_Goal]:
    low, high = n_atoms
    ratios = request.ratios()
    if ratios is None:
        return [_free_goal(low, high, len(request.system() or (0,)))]
    size = sum(ratios)
    units = range(max(1, -(-low // size)), high // size + 1)
    return [_formula_goal(tuple(a * k for a in ratios)) for k in units]


@cache
def _formula_goal(amounts: tuple[int, ...]) -> _Goal:
    """Every atom belongs to one of the elements, each of which reaches its amount exactly."""
    radices = [a + 1 for a in amounts]
    states = prod(radices)
    if states > _MAX_STATES:
        raise ValueError(
            f"a formula with amounts {amounts} per cell has too many partial compositions to search: "
            "ask for fewer atoms (--atoms)"
        )
    digits = np.indices(radices).reshape(len(radices), -1)
    strides = [prod(radices[i + 1 :]) for i in range(len(radices))]
    moves = {}
    for m in sorted({*_table().multiplicity}):
        room = [(digits[i] + m <= a) for i, a in enumerate(amounts)]
        steps = [(_bits(r), m * s) for r, s in zip(room, strides, strict=True) if r.any()]
        if steps:
            moves[m] = steps
    return _Goal(1 << (states - 1), moves)


def _bits(flags: np.ndarray) -> int:
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


@cache
def _free_goal(low: int, high: int, n_sites: int) -> _Goal:
    """``low`` to ``high`` atoms on at least ``n_sites`` sites; a state is atoms and sites up to that."""
    columns = n_sites + 1
    atoms, sites = np.indices((high + 1, columns)).reshape(2, -1)
    moves = {}
    for m in sorted({*_table().multiplicity}):
        room = atoms + m <= high
        moves[m] = [
            (_bits(room & (sites < n_sites)), m * columns + 1),
            (_bits(room & (sites == n_sites)), m * columns),
        ]
    return _Goal(_bits((atoms >= low) & (sites == n_sites)), moves)


@dataclass(frozen=True)
class _Table:
    """The Wyckoff table as plain integers, which the searches touch one by one."""

    group: list[int]
    multiplicity: list[int]
    dim: list[int]
    start: list[int]


@cache
def _table() -> _Table:
    table = wyckoff_table()
    return _Table(
        table.space_group.tolist(),
        table.multiplicity.tolist(),
        table.dim.tolist(),
        table.group_start.tolist(),
    )
