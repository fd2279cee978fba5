"""Which crystals are the same: uniqueness, novelty, and the first twin of each.

Only crystals with one reduced formula can match, so a hash on it decides nearly every pair; the
slow geometric matcher sees what is left, each crystal reduced to its primitive Niggli cell once, elements
without charges and spins.
Where one formula has thousands of crystals (Carbon-24), a finer bucket, by space group or by gene,
saves most of those comparisons, and misses twins whose symmetry was found differently.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Literal

from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element, Structure

from evaluation.facts.symmetry import is_cell

_NAMES = tuple(z for z in range(1, 119) if not Element.from_Z(z).is_noble_gas)  # of these pymatgen warns


@dataclass(frozen=True)
class MatchSettings:
    """When two crystals are called the same by pymatgen's StructureMatcher.

    Attributes:
        ltol: tolerance on cell lengths, as a fraction.
        stol: tolerance on sites, in units of (volume per atom)^(1/3).
        angle_tol: tolerance on cell angles, degrees.
        bucket: which crystals meet at all: those of one reduced `formula`, which loses no match, or
            those of one formula that also share the `space_group` or the `gene` found for them.
    """

    ltol: float = 0.2
    stol: float = 0.3
    angle_tol: float = 5.0
    bucket: Literal["formula", "space_group", "gene"] = "formula"

    def matcher(self) -> StructureMatcher:
        """The matcher, primitive cells compared at equal volume."""
        return StructureMatcher(ltol=self.ltol, stol=self.stol, angle_tol=self.angle_tol)

    def __str__(self) -> str:
        """As printed beside every figure that depends on it."""
        within = "" if self.bucket == "formula" else f" within one formula and {self.bucket}"
        return f"StructureMatcher(ltol={self.ltol}, stol={self.stol}, angle={self.angle_tol}){within}"


@dataclass(frozen=True)
class Twins:
    """For every crystal the first one it matches.

    Attributes:
        match: position of the twin, or None.
        pairs_compared: geometric comparisons made.
        failures: positions whose comparison raised, with the reason; counted as not matching.
        settings: the matcher used.
    """

    match: tuple[int | None, ...]
    pairs_compared: int
    failures: Mapping[int, str]
    settings: MatchSettings


def duplicates(
    structures: Sequence[Structure],
    settings: MatchSettings = MatchSettings(),
    buckets: Sequence[Hashable] | None = None,
) -> Twins:
    """For every crystal the first earlier one that it matches; None for the first of its kind.

    Uniqueness is the share of None. Later crystals are compared with the first of each kind only.

    Args:
        structures: the crystals.
        settings: the matcher.
        buckets: a label per crystal; crystals of different labels are not compared. By default the
            reduced formula, which every match shares.
    """
    kinds = Kinds(settings)
    labels = [None] * len(structures) if buckets is None else buckets
    return kinds.result([kinds.add(s, label) for s, label in zip(structures, labels, strict=True)])


def known_in(
    structures: Sequence[Structure],
    reference_buckets: Iterable[Hashable],
    reference_structure: Callable[[int], Structure],
    settings: MatchSettings = MatchSettings(),
    buckets: Sequence[Hashable] | None = None,
) -> Twins:
    """For every crystal the first reference crystal that it matches; novelty is the share of None.

    Args:
        structures: the crystals judged.
        reference_buckets: a label of each reference crystal, by default its reduced formula as
            `formula_key` writes it.
        reference_structure: gives reference crystal j; called for crystals of one label only.
        settings: the matcher.
        buckets: the label of each crystal judged, see `duplicates`.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, label in enumerate(reference_buckets):
        members[label].append(index)
    labels = [formula_key(s) for s in structures] if buckets is None else buckets
    finder = _TwinFinder(settings)
    return finder.result(
        [
            finder.first(index, structure, members.get(label, ()), reference_structure)
            for index, (structure, label) in enumerate(zip(structures, labels, strict=True))
        ]
    )


def formula_key(structure: Structure) -> str:
    """Reduced formula with the elements in alphabetical order: equal for all cells of a crystal."""
    counts = Counter(site.specie.symbol for site in structure)
    divisor = gcd(*counts.values())
    return "".join(f"{symbol}{counts[symbol] // divisor}" for symbol in sorted(counts))


class _TwinFinder:
    """One matcher, the primitive cells it has already reduced, and a count of its work."""

    def __init__(self, settings: MatchSettings) -> None:
        self._settings = settings
        self._matcher = settings.matcher()
        self._reduced: dict[int, Structure] = {}
        self._pairs = 0
        self._failures: dict[int, str] = {}

    def first(
        self,
        index: int,
        structure: Structure,
        candidates: Sequence[int],
        lookup: Callable[[int], Structure],
    ) -> int | None:
        """First candidate that matches; the candidates keep their reduced cells."""
        if not candidates:
            return None
        try:
            own = reduced_cell(structure)
        except Exception as error:
            self._failures[index] = f"no primitive cell: {error}"
            return None
        for candidate in candidates:
            try:
                other = self._candidate(candidate, lookup)
                if len(other) != len(own):
                    continue
                self._pairs += 1
                if self._matcher.fit(own, other, skip_structure_reduction=True):
                    return candidate
            except Exception as error:
                self._failures[index] = f"comparison with {candidate}: {error}"
        return None

    def _candidate(self, candidate: int, lookup: Callable[[int], Structure]) -> Structure:
        if candidate not in self._reduced:
            self._reduced[candidate] = reduced_cell(lookup(candidate))
        return self._reduced[candidate]

    def result(self, match: Sequence[int | None]) -> Twins:
        return Twins(tuple(match), self._pairs, self._failures, self._settings)


class Kinds:
    """Crystals that come one by one, the first of each kind kept.

    Args:
        settings: the matcher.
    """

    def __init__(self, settings: MatchSettings = MatchSettings()) -> None:
        self._finder = _TwinFinder(settings)
        self._first: dict[int, Structure] = {}
        self._kinds: dict[Hashable, list[int]] = defaultdict(list)
        self._count = 0

    def add(self, structure: Structure, label: Hashable | None = None) -> int | None:
        """The number of the first that is the same, or None; crystals of different labels are not compared.

        Args:
            structure: the next crystal.
            label: by default the reduced formula, which every match shares.
        """
        number, self._count = self._count, self._count + 1
        kinds = self._kinds[formula_key(structure) if label is None else label]
        twin = self._finder.first(number, structure, kinds, self._first.__getitem__)
        if twin is None:
            kinds.append(number)
            self._first[number] = structure
        return twin

    def result(self, match: Sequence[int | None]) -> Twins:
        """What `add` said, with what it took."""
        return self._finder.result(match)


def bare(structure: Structure) -> Structure:
    """Elements and positions alone: charges, spins and labels of sites make no other crystal."""
    numbers = list(structure.atomic_numbers)
    return Structure(structure.lattice, numbers, structure.frac_coords)  # type: ignore[arg-type]


def reduced_cell(structure: Structure) -> Structure:
    """Primitive cell of the Niggli cell: what StructureMatcher compares.

    Raises:
        ValueError: for what is no cell (`is_cell`), whose reduction may never end.
    """
    if not is_cell(structure):
        raise ValueError("its cell is flat, or has a vector shorter or longer than any crystal's")
    return bare(structure).get_reduced_structure(reduction_algo="niggli").get_primitive_structure()


def anonymous_cell(structure: Structure) -> Structure:
    """The `reduced_cell` with its elements' names forgotten: H for the most frequent one, then Li, Be, ..."""
    cell = reduced_cell(structure)
    amounts = Counter(cell.atomic_numbers)
    names = dict(zip(sorted(amounts, key=lambda z: (-amounts[z], z)), _NAMES, strict=False))
    numbers = [names[z] for z in cell.atomic_numbers]
    return Structure(cell.lattice, numbers, cell.frac_coords)  # type: ignore[arg-type]
