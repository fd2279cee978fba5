"""Space groups and genes, by moyopy."""

import logging
from dataclasses import dataclass

import moyopy
import numpy as np
from pymatgen.core import Structure

from autoperi.crystals.symmetry import searchable
from autoperi.crystals.wyckoff import gene_name, wyckoff_table

# moyopy logs a line for each supercell it is given.
logging.getLogger("moyopy").setLevel(logging.ERROR)
logging.getLogger("moyo").setLevel(logging.ERROR)

# Cells in which no symmetry is looked for, counted as without an answer, and which are not compared with
# others; real crystals stay far from these.
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


@dataclass(frozen=True)
class Gene:
    """What symmetry fixes in a crystal, elements left out.

    Attributes:
        space_group: number, 1-230.
        name: space group and Wyckoff letter of every orbit, for instance `225:ab`.
    """

    space_group: int
    name: str


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
    """Space group and Wyckoff letters, the same for every origin and setting; None without a group.

    The letters depend on the choice of origin (NaCl is `ab` whichever ion sits at 0, but CaTiO3's `abc` may
    read `abd`), so among the relabellings by the normaliser of the space group (International Tables A, 3.5)
    the first is taken.
    """
    dataset = _dataset(structure, symprec)
    if dataset is None:
        return None
    number, table = int(dataset.number), wyckoff_table()
    positions = [table.index(number, dataset.wyckoffs[k]) for k in sorted(set(dataset.orbits))]
    return Gene(number, gene_name(number, positions))


def equivalent_atoms(structure: Structure, symprec: float = SymmetrySettings.tight) -> np.ndarray:
    """For every atom the first one that symmetry maps it to; every atom itself without a group."""
    dataset = _dataset(structure, symprec)
    return np.arange(len(structure)) if dataset is None else np.array(dataset.orbits)


def is_cell(structure: Structure) -> bool:
    """Whether a cell is one at all: not flat, nor with a vector shorter or longer than any crystal's."""
    lengths = np.array(structure.lattice.abc)
    if structure.volume < 1e-3 or lengths.max() > _LONGEST:
        return False
    shortest = structure.volume / lengths.prod() * lengths.min()
    if shortest < _SHORTEST or lengths.max() > _ASPECT * shortest:
        lengths = np.array(structure.lattice.get_lll_reduced_lattice().abc)
        shortest = lengths.min()
    return bool(shortest >= _SHORTEST and lengths.max() <= _ASPECT * shortest)


def _dataset(structure: Structure, symprec: float) -> moyopy.MoyoDataset | None:
    if not np.isfinite(structure.lattice.matrix).all() or not is_cell(structure):
        return None
    if not searchable(np.array(structure.lattice.matrix), symprec):
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
