"""Space groups and genes, by moyopy."""

import logging
from dataclasses import dataclass
from functools import cache, lru_cache

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
    `a b c` may read `a b d`), so among the relabellings by the normaliser of the space group
    (International Tables A, 3.5; PyXtal's tables) the alphabetically first is taken. None without a group.
    """
    dataset = _dataset(structure, symprec)
    if dataset is None:
        return None
    letters = [dataset.wyckoffs[k] for k in set(dataset.orbits)]
    return Gene(int(dataset.number), _first_relabelling(int(dataset.number), tuple(sorted(letters))))


def equivalent_atoms(structure: Structure, symprec: float = SymmetrySettings.tight) -> np.ndarray:
    """For every atom the first one that symmetry maps it to; every atom itself without a group."""
    dataset = _dataset(structure, symprec)
    return np.arange(len(structure)) if dataset is None else np.array(dataset.orbits)


@lru_cache(maxsize=100_000)
def _first_relabelling(number: int, letters: tuple[str, ...]) -> tuple[str, ...]:
    return min(tuple(sorted(map(names.__getitem__, letters))) for names in _relabellings(number))


@cache
def _relabellings(number: int) -> tuple[dict[str, str], ...]:
    """What every letter of a group may be called instead, all at once; as they are, first."""
    from pyxtal.symmetry import Group

    rows = [row.split() for row in Group(number).get_alternatives()["Transformed WP"]]
    return tuple(dict(zip(rows[0], row, strict=True)) for row in rows)


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
