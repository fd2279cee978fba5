"""Space groups and genes, by moyopy."""

import logging
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import moyopy
import numpy as np
from pymatgen.core import Structure

# moyopy logs a line for each supercell it is given.
logging.getLogger("moyopy").setLevel(logging.ERROR)
logging.getLogger("moyo").setLevel(logging.ERROR)

# Cells in which no symmetry is looked for, counted as without an answer; real crystals stay far from these.
_SHORTEST, _LONGEST = 1.2, 1e4  # Å
_ASPECT = 100.0


@dataclass(frozen=True)
class SymmetrySettings:
    """At which tolerances symmetry is looked for.

    Attributes:
        loose: Å; what the field uses on MP-20, and what genes are read at.
        tight: Å; shows whether the symmetry is really there.
    """

    loose: float = 0.1
    tight: float = 0.01


MP20_TOLERANCES = SymmetrySettings()


@dataclass(frozen=True, order=True)
class Gene:
    """What symmetry fixes in a crystal, elements left out.

    Attributes:
        space_group: number, 1-230.
        letters: Wyckoff letter of every orbit, sorted, repeated orbits repeated.
    """

    space_group: int
    letters: tuple[str, ...]

    def __str__(self) -> str:
        """For instance `225:a b`."""
        return f"{self.space_group}:{' '.join(self.letters)}"


def space_group(structure: Structure, symprec: float = SymmetrySettings.loose) -> int | None:
    """Space group number, or None when moyopy finds no answer at this tolerance."""
    dataset = _dataset(structure, symprec)
    return None if dataset is None else int(dataset.number)


def keeps_space_group(before: Structure, after: Structure, symprec: float = SymmetrySettings.tight) -> bool:
    """Whether a crystal still has its space group, or has gained symmetry: more operations per atom.

    False when moyopy finds no answer for one of the two.
    """
    old, new = _dataset(before, symprec), _dataset(after, symprec)
    if old is None or new is None:
        return False
    # operations, centring ones included, and atoms both grow with the cell: the ratio does not
    gained = len(new.operations) * len(before) > len(old.operations) * len(after)
    return new.number == old.number or gained


def gene(structure: Structure, symprec: float = SymmetrySettings.loose) -> Gene | None:
    """Space group and Wyckoff letters, the same for every origin and setting of one crystal.

    The letters depend on the choice of origin (NaCl is `a b` whichever ion sits at 0, but CaTiO3's
    `a b c` may read `a b d`), so among the relabellings by the Euclidean normaliser of the space
    group (International Tables A, 3.5) the alphabetically first is taken. None without a group.
    """
    dataset = _dataset(structure, symprec)
    if dataset is None:
        return None
    raw = tuple(sorted(dataset.wyckoffs[k] for k in set(dataset.orbits)))
    std_cell = dataset.std_cell
    return _first_relabelling(int(dataset.number), raw, _Cell(std_cell))


def equivalent_atoms(structure: Structure, symprec: float = SymmetrySettings.tight) -> np.ndarray:
    """For every atom the first one that symmetry maps it to; every atom itself without a group."""
    dataset = _dataset(structure, symprec)
    return np.arange(len(structure)) if dataset is None else np.array(dataset.orbits)


class _Cell:
    """A cell that all compare equal, so that the cache below is keyed by the letters alone."""

    def __init__(self, cell: moyopy.Cell) -> None:
        self.cell = cell

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Cell)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=100_000)
def _first_relabelling(number: int, letters: tuple[str, ...], holder: _Cell) -> Gene:
    """The normaliser acts on letters alike in every crystal with these, so one may stand for all."""
    try:
        standard = moyopy.MoyoDataset(holder.cell, symprec=1e-3)
        if standard.number != number:
            return Gene(number, letters)
        action = standard.normalizer_wyckoff_positions(preserve_chirality=False)
    except Exception:
        return Gene(number, letters)
    choices = [_orbit_letters(sequence) for _, sequence in action.coset_representatives]
    return Gene(number, min(choices, default=letters))


def _orbit_letters(sequence: list[moyopy.WyckoffPosition]) -> tuple[str, ...]:
    """One letter per orbit from one Wyckoff position per atom of the conventional cell."""
    atoms = Counter((position.letter, position.multiplicity) for position in sequence)
    return tuple(
        sorted(letter for (letter, multiplicity), n in atoms.items() for _ in range(n // multiplicity))
    )


def _searchable(structure: Structure) -> bool:
    """Whether moyopy ends: beside vectors near the tolerance, or very unequal ones, it searches for ever.

    A lattice vector is never shorter than the lowest height of the cell, so most cells need no reduction.
    """
    lengths = np.array(structure.lattice.abc)
    if structure.volume < 1e-3 or lengths.max() > _LONGEST:
        return False
    shortest = structure.volume / lengths.prod() * lengths.min()
    if shortest < _SHORTEST or lengths.max() > _ASPECT * shortest:
        lengths = np.array(structure.lattice.get_lll_reduced_lattice().abc)
        shortest = lengths.min()
    return bool(shortest >= _SHORTEST and lengths.max() <= _ASPECT * shortest)


def _dataset(structure: Structure, symprec: float) -> moyopy.MoyoDataset | None:
    if not np.isfinite(structure.lattice.matrix).all() or not _searchable(structure):
        return None
    if not np.isfinite(structure.frac_coords).all():
        return None
    cell = moyopy.Cell(
        structure.lattice.matrix.tolist(),
        structure.frac_coords.tolist(),
        list(structure.atomic_numbers),
    )
    try:
        return moyopy.MoyoDataset(cell, symprec=symprec)
    except Exception:  # moyopy's errors derive from Exception only
        return None
