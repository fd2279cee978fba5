"""What gene and species are asked to be: names checked, contradictions refused."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from math import gcd

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from autoperi.crystals.crystal import MAX_Z, Crystal
from autoperi.crystals.wyckoff import SYSTEMS, crystal_system, gene_name, wyckoff_table

_ISOTOPES = {"D", "T"}
"""Of hydrogen; pymatgen reads them as it."""


@dataclass(frozen=True)
class GeneRequest:
    """What gene and species must be; everything is optional and everything given holds at once.

    Raises ValueError on construction for unknown names and for fields that contradict each other; what no
    combination of orbits can meet is refused by `genes.search.OrbitSearch`.

    Attributes:
        space_groups: permitted ITA numbers.
        crystal_system: one of ``wyckoff.SYSTEMS``.
        formula: reduced formula, e.g. "BaTiO3"; any number of formula units that fits ``n_atoms``.
        anonymous_formula: the same without names, e.g. "ABC3".
        chemical_system: exactly these elements, e.g. "Ba-Ti-O".
        allowed_elements: only these symbols may appear.
        denied_elements: these symbols may not appear.
        n_atoms: fewest and most atoms in the primitive cell; without it, what the prior was trained on.
        gene: exactly this gene, e.g. "221:abc".
    """

    space_groups: Collection[int] | None = None
    crystal_system: str | None = None
    formula: str | None = None
    anonymous_formula: str | None = None
    chemical_system: str | None = None
    allowed_elements: Collection[str] | None = None
    denied_elements: Collection[str] = ()
    n_atoms: tuple[int, int] | None = None
    gene: str | None = None

    def __post_init__(self) -> None:
        for name in ("space_groups", "allowed_elements", "denied_elements"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(
                    f'expected {name} as a collection: got the string {value!r}; write ["{value}"]'
                )
            object.__setattr__(self, name, None if value is None else frozenset(value))
        if self.n_atoms is not None:
            low, high = self.n_atoms
            object.__setattr__(self, "n_atoms", (int(low), int(high)))
            if not 1 <= low <= high:
                raise ValueError(
                    "expected the number of atoms (--atoms) as fewest and most, 1 <= fewest <= most: "
                    f"got {self.n_atoms}"
                )
        if not self.groups():
            raise ValueError(
                f"no space group satisfies space_groups={sorted(self.space_groups or [])}, "
                f"crystal_system={self.crystal_system!r} and gene={self.gene!r} together"
            )
        self._check_elements()

    def groups(self) -> tuple[int, ...]:
        """Permitted space-group numbers, ascending."""
        numbers = set(range(1, 231))
        if self.space_groups is not None:
            wrong = sorted(set(self.space_groups) - numbers)
            if wrong or not self.space_groups:
                raise ValueError(f"expected space-group numbers from 1 to 230: got {wrong or 'none at all'}")
            numbers &= set(self.space_groups)
        if self.crystal_system is not None:
            if self.crystal_system not in SYSTEMS:
                raise ValueError(
                    f"expected a crystal system among {list(SYSTEMS)}: got {self.crystal_system!r}"
                )
            numbers = {n for n in numbers if crystal_system(n) == self.crystal_system}
        if self.gene is not None:
            numbers &= {_parse_gene(self.gene)[0]}
        return tuple(sorted(numbers))

    def positions(self) -> tuple[int, ...] | None:
        """Position indices of the exact gene, ascending; None where no gene is asked for."""
        return None if self.gene is None else _parse_gene(self.gene)[1]

    def amounts(self) -> dict[int, int] | None:
        """Atoms per formula unit by atomic number; None without a formula."""
        return None if self.formula is None else _parse_formula(self.formula)

    def ratios(self) -> tuple[int, ...] | None:
        """Atoms per formula unit without names, descending; None without any formula."""
        amounts = self.amounts()
        if amounts is not None:
            return tuple(sorted(amounts.values(), reverse=True))
        return None if self.anonymous_formula is None else _parse_anonymous(self.anonymous_formula)

    def system(self) -> frozenset[int] | None:
        """Atomic numbers that must all appear, and no others; None where the elements are open."""
        amounts = self.amounts()
        if amounts is not None:
            return frozenset(amounts)
        return None if self.chemical_system is None else _numbers(self.chemical_system.split("-"))

    def permitted(self) -> np.ndarray:
        """Whether each atomic number may appear, [101]; entry 0 is False."""
        allowed = np.arange(MAX_Z + 1) > 0
        if self.allowed_elements is not None:
            allowed &= np.isin(np.arange(MAX_Z + 1), list(_numbers(self.allowed_elements)))
        allowed &= ~np.isin(np.arange(MAX_Z + 1), list(_numbers(self.denied_elements)))
        system = self.system()
        return allowed if system is None else allowed & np.isin(np.arange(MAX_Z + 1), list(system))

    @property
    def constrains_symmetry(self) -> bool:
        """Whether space group, cell or formula are asked for, which a drawn geometry may betray."""
        fields = (self.space_groups, self.crystal_system, self.n_atoms, self.gene)
        return any(field is not None for field in (*fields, self.formula, self.anonymous_formula))

    @property
    def constrains_species(self) -> bool:
        """Whether elements are asked for or forbidden."""
        return bool(self.denied_elements) or self.allowed_elements is not None or self.holds_elements

    @property
    def holds_elements(self) -> bool:
        """Whether a composition is asked for."""
        return self.ratios() is not None or self.system() is not None

    def fits(self, crystal: Crystal) -> bool:
        """Whether group, cell and gene of a crystal are those asked for."""
        low, high = self.n_atoms or (1, crystal.n_atoms)
        return (
            crystal.space_group in self.groups()
            and low <= crystal.n_atoms <= high
            and (self.gene is None or gene_name(*_parse_gene(self.gene)) == crystal.gene)
        )

    def _check_elements(self) -> None:
        amounts, ratios, system = self.amounts(), self.ratios(), self.system()
        if amounts is not None and self.anonymous_formula is not None:
            asked = _parse_anonymous(self.anonymous_formula)
            if asked != ratios:
                raise ValueError(f"formula {self.formula!r} is not of the type {self.anonymous_formula!r}")
        if self.chemical_system is not None:
            listed = _numbers(self.chemical_system.split("-"))
            if system != listed:
                raise ValueError(f"formula {self.formula!r} has not the elements {self.chemical_system!r}")
            if ratios is not None and len(ratios) != len(listed):
                raise ValueError(
                    f"{self.anonymous_formula!r} has {len(ratios)} elements, "
                    f"{self.chemical_system!r} has {len(listed)}"
                )
        missing = set(system or ()) - set(np.flatnonzero(self.permitted()).tolist())
        if missing:
            raise ValueError(
                f"elements {sorted(chemical_symbols[z] for z in missing)} are required but not permitted: "
                "change the elements allowed (--elements) or denied (--exclude)"
            )
        needed = len(ratios or (1,))
        if self.permitted().sum() < needed:
            raise ValueError(
                f"expected at least {needed} permitted elements: got {int(self.permitted().sum())}; allow "
                "more (--elements) or deny fewer (--exclude)"
            )


def _numbers(symbols: Collection[str]) -> frozenset[int]:
    known = {s for z, s in enumerate(chemical_symbols) if 1 <= z <= MAX_Z}
    wrong = [s for s in symbols if s not in known]
    if wrong:
        raise ValueError(f"expected element symbols from H to {chemical_symbols[MAX_Z]}: got {wrong}")
    return frozenset(atomic_numbers[s] for s in symbols)


def _parse_gene(gene: str) -> tuple[int, tuple[int, ...]]:
    match = re.fullmatch(r"(\d+):([a-zA]+)", gene)
    if match is None or not 1 <= int(match[1]) <= 230:
        raise ValueError(f"expected a gene as space group, colon, Wyckoff letters ('221:abc'): got {gene!r}")
    number, letters = int(match[1]), match[2]
    table = wyckoff_table()
    positions = tuple(sorted(table.index(number, letter) for letter in letters))
    fixed = {p for p in positions if table.dim[p] == 0 and positions.count(p) > 1}
    if fixed:
        names = table.letters(table.letter.new_tensor(sorted(fixed)))
        raise ValueError(f"positions {names} of gene {gene!r} have no free coordinate: each can be used once")
    return number, positions


@cache
def _parse_formula(formula: str) -> dict[int, int]:
    from pymatgen.core import Composition

    isotopes = sorted(_ISOTOPES & set(re.findall("[A-Z][a-z]?", formula)))
    if isotopes:
        raise ValueError(f"expected elements, isotopes are not told apart: got {isotopes}; write H")
    try:
        composition = Composition(formula)
        amounts = {e.symbol: n for e, n in composition.items()}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"expected a formula such as 'BaTiO3': got {formula!r} ({error})") from error
    if not amounts or any(n != int(n) or n < 1 for n in amounts.values()):
        raise ValueError(f"expected whole numbers of atoms in a formula: got {formula!r}")
    counts = [int(n) for n in amounts.values()]
    divisor = gcd(*counts)
    numbers = [next(iter(_numbers([s]))) for s in amounts]
    return {z: n // divisor for z, n in zip(numbers, counts, strict=True)}


def _parse_anonymous(formula: str) -> tuple[int, ...]:
    parts = re.findall(r"([A-Z])(\d*)", formula)
    names = [name for name, _ in parts]
    if not parts or "".join(n + c for n, c in parts) != formula or len(set(names)) != len(names):
        raise ValueError(f"expected an anonymous formula such as 'ABC3', each letter once: got {formula!r}")
    counts = [int(c or 1) for _, c in parts]
    if min(counts) < 1:
        raise ValueError(f"expected at least one atom of each element: got {formula!r}")
    divisor = gcd(*counts)
    return tuple(sorted((c // divisor for c in counts), reverse=True))
