"""One crystal from CIF text: what the file states about itself is compared with the atoms that were read."""

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from autoperi.data.reading.cif_syntax import Block, parse_block
from autoperi.data.reading.rows import MAX_ATOMS, ReadError, crystal
from autoperi.data.reading.space_groups import (
    IDENTITY,
    Operations,
    declared_numbers,
    listed_operations,
    named_groups,
)

if TYPE_CHECKING:
    from pymatgen.core import Structure

SAME_PLACE = 1.2e-3
"""Fractional distance within which images of a site are one atom: special positions have few digits."""
_CELL = [f"_cell_length_{axis}" for axis in "abc"] + [f"_cell_angle_{a}" for a in ("alpha", "beta", "gamma")]
_AXES = [f"_atom_site_fract_{axis}" for axis in "xyz"]
_MULTIPLICITY = ("_atom_site_symmetry_multiplicity", "_atom_site_site_symmetry_multiplicity")
_ELEMENTS = frozenset(chemical_symbols[1:]) | {"D", "T"}
_WATER = re.compile(r"wat|h2o|h3o", re.IGNORECASE)
_FORMULA = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")


@dataclass(frozen=True)
class _Sites:
    """Symmetry-distinct sites as listed: elements, positions [sites, 3], multiplicities (0: not stated)."""

    elements: list[str]
    frac: np.ndarray
    multiplicities: list[int]


@dataclass(frozen=True)
class _Atoms:
    """All atoms of the cell, and why they may be wrong: what the listing of sites itself contradicts."""

    elements: list[str]
    frac: np.ndarray
    doubt: str = ""


def parse_cif(text: str) -> "Structure":
    """The cell of a CIF with all its atoms, as plain elements.

    Symmetry is that of the operations listed. A group that the file names but its operations are not, or
    a setting that its symbol leaves open, is settled by the formula, Z and multiplicities stated.

    Raises:
        ReadError: nothing to read, or a file that contradicts itself; the message says how.
    """
    block = parse_block(text)
    cell = [_number(block.text(name), name) for name in _CELL]
    if block.text("_cell_modulation_dimension") not in ("", "0"):
        raise ReadError("expected a crystal periodic in three dimensions: got a modulated structure")
    stated = _Stated.of(block)
    sites = _sites(block, stated)
    listed = listed_operations(block)
    if listed is not None and listed.number == 1 and len(listed) == 1:
        declared = declared_numbers(block)
        if declared <= {1}:
            atoms = _Atoms(sites.elements, sites.frac)
            if disagreement := stated.disagreement(atoms.elements):
                raise ReadError(disagreement)
            return crystal(cell, atoms.elements, atoms.frac)
    checked = crystal(cell, sites.elements, sites.frac)  # refuses impossible cells before they are filled
    matrix = checked.lattice.matrix
    atoms = _filled(block, sites, listed, matrix, stated)
    return crystal(matrix, atoms.elements, atoms.frac)


def _filled(
    block: Block, sites: _Sites, listed: Operations | None, matrix: np.ndarray, stated: "_Stated"
) -> _Atoms:
    """All atoms of the cell by the one reading of its symmetry that nothing stated contradicts."""
    declared = declared_numbers(block)
    if listed is not None and len(listed) > 1 and _agree(listed, declared):
        return _believed(sites, listed, stated)
    groups = named_groups(block, matrix)
    if listed is not None:
        what = f"{listed.name} make no group" if not listed.number else f"{listed.name} make {listed.number}"
        contradiction = f"the CIF names space group {_or(declared)} but {what}"
        if listed.number and stated.surely(sites_filled := _fill(sites, listed)):
            return sites_filled
        settled = [atoms for group in groups if stated.surely(atoms := _fill(sites, group))]
        if settled and _all_one(settled):
            return settled[0]
        if len(listed) == 1 and any(_is_whole(sites, group) for group in groups):
            return _believed(sites, IDENTITY, stated)
        raise ReadError(f"{contradiction}, and its formula and Z do not tell which is right")
    if not groups:
        if declared - {1}:
            raise ReadError(f"the CIF names space group {_or(declared)}, which does not fit its cell")
        if block.text("_symmetry_space_group_name_h-m", "_space_group_name_h-m_alt") and not declared:
            raise ReadError("the CIF lists no symmetry operations and its space group symbol is not known")
        return _believed(sites, IDENTITY, stated)
    if len(groups) == 1:
        return _believed(sites, groups[0], stated)
    filled = [_fill(sites, group) for group in groups]
    possible = [a for a in filled if not a.doubt and not stated.disagreement(a.elements)]
    if possible and _all_one(possible):
        return possible[0]
    names = " or ".join(group.name for group in groups)
    raise ReadError(f"the CIF lists no symmetry operations and does not say which setting it means: {names}")


def _agree(listed: Operations, declared: set[int]) -> bool:
    """Whether operations are those of a group that is named; nothing named, or no group of the tables, is."""
    return listed.number in declared or (listed.number != 0 and (not declared or listed.number < 0))


def _believed(sites: _Sites, group: Operations, stated: "_Stated") -> _Atoms:
    atoms = _fill(sites, group)
    if disagreement := stated.disagreement(atoms.elements):
        raise ReadError(disagreement)
    if atoms.doubt and not stated.surely(atoms):
        raise ReadError(atoms.doubt)
    return atoms


def _or(numbers: set[int]) -> str:
    return " or ".join(str(n) for n in sorted(numbers)) or "?"


def _all_one(readings: list[_Atoms]) -> bool:
    """Whether readings hold the same atoms in the same places."""
    first = readings[0]
    return all(
        len(other.elements) == len(first.elements)
        and {(e, *p) for e, p in zip(other.elements, _rounded(other.frac), strict=True)}
        == {(e, *p) for e, p in zip(first.elements, _rounded(first.frac), strict=True)}
        for other in readings[1:]
    )


def _rounded(frac: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(row) for row in ((frac * 500).round().astype(int) % 500).tolist()]


def _is_whole(sites: _Sites, group: Operations) -> bool:
    """Whether a group carries the listed atoms onto one another: then they are all atoms of the cell."""
    from scipy.spatial import KDTree

    if len(sites.frac) * len(group) > MAX_ATOMS:
        return False
    tree = KDTree(sites.frac % 1.0 % 1.0, boxsize=1.0)
    numbers = np.array([chemical_symbols.index(e) for e in sites.elements])
    for rotation, shift in zip(group.rotations, group.shifts, strict=True):
        distance, found = tree.query((sites.frac @ rotation.T + shift) % 1.0 % 1.0, p=np.inf)
        if (distance > 10 * SAME_PLACE).any() or (numbers[found] != numbers).any():
            return False
    return True


def _fill(sites: _Sites, group: Operations) -> _Atoms:
    """Orbits of all sites, each projected onto its special position."""
    n = len(group)
    if n == 1:
        return _Atoms(sites.elements, sites.frac)
    elements: list[str] = []
    orbits: list[np.ndarray] = []
    doubt = ""
    for element, x, stated in zip(sites.elements, sites.frac, sites.multiplicities, strict=True):
        images = group.rotations @ x + group.shifts
        step = images - x
        step -= step.round()
        still = np.abs(step).max(1) <= SAME_PLACE
        if still.sum() > 1:
            images = group.rotations @ (x + step[still].mean(0)) + group.shifts
        orbit = _distinct(images % 1.0) if still.sum() > 1 else images
        if len(orbit) * still.sum() != n:
            doubt = (
                f"images of {element} at {x.round(4).tolist()} nearly meet: {len(orbit)} atoms of {n} images"
            )
        if stated not in (0, len(orbit), n // len(orbit)):  # some write the order of the site instead
            doubt = (
                f"expected {stated} atoms {element} from the site at {x.round(4).tolist()}: got {len(orbit)}"
            )
        elements += [element] * len(orbit)
        orbits.append(orbit)
        if len(elements) > MAX_ATOMS:
            raise ReadError(f"expected {MAX_ATOMS} atoms at most: got more from {len(sites.elements)} sites")
    return _without_repeats(_Atoms(elements, np.concatenate(orbits), doubt), [len(o) for o in orbits])


def _distinct(images: np.ndarray) -> np.ndarray:
    """Images without those that lie on an earlier one."""
    step = images[:, None] - images[None]
    step -= step.round()
    near = np.abs(step).max(-1) <= SAME_PLACE
    return images[~np.tril(near, -1).any(1)]


def _without_repeats(atoms: _Atoms, sizes: list[int]) -> _Atoms:
    """One atom where orbits of one element coincide, as in a list of all atoms beside all operations."""
    from scipy.spatial import KDTree

    if len(sizes) < 2:
        return atoms
    pairs = KDTree(atoms.frac % 1.0 % 1.0, boxsize=1.0).query_pairs(
        SAME_PLACE, p=np.inf, output_type="ndarray"
    )
    orbit = np.repeat(np.arange(len(sizes)), sizes)
    pairs = pairs[orbit[pairs[:, 0]] != orbit[pairs[:, 1]]]
    if not len(pairs):
        return atoms
    i, j = pairs[0]
    doubt = f"{atoms.elements[i]} and {atoms.elements[j]} lie on one place, {atoms.frac[i].round(4).tolist()}"
    if any(atoms.elements[i] != atoms.elements[j] for i, j in pairs):
        raise ReadError(doubt)
    kept = np.setdiff1d(np.arange(len(atoms.elements)), pairs.max(1))
    return _Atoms([atoms.elements[k] for k in kept], atoms.frac[kept], atoms.doubt or doubt)


@dataclass(frozen=True)
class _Stated:
    """The content of the cell that a CIF states.

    Attributes:
        formula: sum formula; empty if there is none or it cannot be understood.
        text: as it is written.
        units: formula units in the cell that are possible; empty: any whole number.
    """

    formula: dict[str, float]
    text: str
    units: tuple[float, ...]

    @classmethod
    def of(cls, block: Block) -> "_Stated":
        text = block.text("_chemical_formula_sum")
        formula = _formula(text)
        z = block.text("_cell_formula_units_z")
        units: tuple[float, ...] = ()
        if z and formula:
            count = _number(z, "_cell_formula_units_Z")
            units = (count,) if count > 0 else ()
            whole = all(float(v).is_integer() for v in formula.values())
            divisor = math.gcd(*(int(v) for v in formula.values())) if whole else 0
            structural = _formula(block.text("_chemical_formula_structural"))
            if structural and all(formula.get(e) == count * n for e, n in structural.items()):
                units = (1.0,)  # pymatgen's sum formula is that of the cell, its Z that of another formula
            elif divisor in (count, 2 * count):
                units = (1.0, count)
        return cls(formula, text, units)

    def disagreement(self, elements: list[str]) -> str:
        """How the formula contradicts the atoms of the cell, or the empty string."""
        if not self.formula:
            return ""
        got = Counter("H" if e in ("D", "T") else e for e in elements)
        missing = [e for e in self.formula if e not in got]
        if missing == ["H"]:
            return f"the formula {self.text} has hydrogen, and no atom of hydrogen has coordinates"
        ratio = [got[e] / n for e, n in self.formula.items()]
        exact = all(float(n).is_integer() for n in self.formula.values())
        allowed = self.units or (max(1, round(ratio[0])),)
        agree = any(all(abs(r - k) <= (1e-6 if exact else 0.02) * k for r in ratio) for k in allowed)
        if agree and set(got) == set(self.formula):
            return ""
        found = " ".join(f"{e}{n}" for e, n in got.items())
        z = f" (Z {' or '.join(f'{k:g}' for k in self.units)})" if self.units else ""
        return f"expected atoms of {self.text}{z}: got {found}; the CIF is cut off or contradicts itself"

    def surely(self, atoms: _Atoms) -> bool:
        """Whether what is stated tells this reading from another with more or fewer atoms."""
        known = bool(self.units) or len(atoms.elements) == sum(self.formula.values())
        return bool(self.formula) and known and not self.disagreement(atoms.elements)


@lru_cache(4096)
def _formula(text: str) -> dict[str, float]:
    """Amounts of a sum formula; empty if it is no plain one."""
    amounts: dict[str, float] = {}
    packed = text.replace(" ", "").replace(",", "")
    if "".join(m.group() for m in _FORMULA.finditer(packed)) != packed or len(packed) > 300:
        return {}
    for element, amount in _FORMULA.findall(packed):
        if element not in _ELEMENTS or amount == ".":
            return {}
        element = "H" if element in ("D", "T") else element
        amounts[element] = amounts.get(element, 0.0) + float(amount or 1)
    return {e: n for e, n in amounts.items() if n}


def _sites(block: Block, stated: _Stated) -> _Sites:
    """The sites listed, fully occupied.

    Raises:
        ReadError: none, an unknown element, partial or impossible occupancies, hydrogen without coordinates.
    """
    columns, rows = block.loop(_AXES[0])
    if not rows or any(axis not in columns for axis in _AXES):
        raise ReadError("expected atoms with fractional coordinates in the CIF: got none; it may be cut off")
    column = {name: [row[k] for row in rows] for k, name in enumerate(columns)}
    if "dum" in (flags := column.get("_atom_site_calc_flag", ())):  # places that are no atoms
        rows = [row for row, flag in zip(rows, flags, strict=True) if flag != "dum"]
        column = {name: [row[k] for row in rows] for k, name in enumerate(columns)}
    elements = _elements(column, stated)
    for label, hydrogens in zip(elements, column.get("_atom_site_attached_hydrogens", ()), strict=False):
        if hydrogens not in ("0", ".", "?"):
            raise ReadError(f"{hydrogens} hydrogen atoms attached to a site {label} have no coordinates")
    try:
        frac = np.array([[float(v) for v in column[axis]] for axis in _AXES]).T
    except ValueError:
        frac = np.array([[_number(v, axis) for v in column[axis]] for axis in _AXES]).T
    multiplicities = [0] * len(elements)
    if given := next((column[name] for name in _MULTIPLICITY if name in column), None):
        multiplicities = [int(v) if v.isdigit() else 0 for v in given]
    sites = _Sites(elements, frac, multiplicities)
    given = column.get("_atom_site_occupancy", ())
    if set(given) <= {"1", "1.0", "1.00", "1.000", ".", "?"}:
        return sites
    return _fully_occupied(
        sites, [1.0 if v in (".", "?") else _number(v, "_atom_site_occupancy") for v in given]
    )


def _fully_occupied(sites: _Sites, occupancies: list[float]) -> _Sites:
    """Sites whose occupancies add up to one atom of one element."""
    if min(occupancies) <= 0 or max(occupancies) > 1.01:
        raise ReadError(f"expected occupancies in (0, 1]: got {min(occupancies):g} to {max(occupancies):g}")
    sums: dict[tuple, float] = {}
    first: dict[tuple, int] = {}
    for k, amount in enumerate(occupancies):
        key = (sites.elements[k], *(sites.frac[k] * 1e4).round().astype(int).tolist())
        first.setdefault(key, k)
        sums[key] = sums.get(key, 0.0) + amount if amount < 0.99 else 1.0
    if any(abs(amount - 1) > 0.01 for amount in sums.values()):
        raise ReadError("partial occupancies")
    if len(sums) == len(occupancies) or min(occupancies) > 0.99:
        return sites
    kept = list(first.values())
    return _Sites(
        [sites.elements[k] for k in kept], sites.frac[kept], [sites.multiplicities[k] for k in kept]
    )


def _number(text: str, name: str) -> float:
    """A number without its standard uncertainty."""
    try:
        return float(text.split("(")[0])
    except ValueError:
        raise ReadError(f"expected a number for {name}: got {text[:40] or 'none'!r}") from None


def _elements(column: dict[str, list[str]], stated: _Stated) -> list[str]:
    types = column.get("_atom_site_type_symbol")
    labels = column.get("_atom_site_label")
    if types is None and labels is None:
        raise ReadError("expected _atom_site_type_symbol or _atom_site_label in the CIF: got neither")
    known = frozenset(stated.formula)
    found = []
    for k in range(len(types or labels or ())):
        word = types[k] if types is not None else "?"
        exact = word not in ("?", ".")
        if not exact and labels is not None:
            word = labels[k]
        found.append(_element(word, exact, known))
    return found


@cache
def _element(word: str, exact: bool, formula: frozenset[str]) -> str:
    """Element of a type symbol or of a label, whose first part is the type symbol by the CIF dictionary.

    What can mean two elements, or has more letters than its element, is settled by the formula or refused.
    """
    letters = re.match(r"[A-Za-z]*", word).group()  # type: ignore[union-attr]
    proper = letters[:2].capitalize()
    if _WATER.match(word):
        raise ReadError(f"expected chemical elements: got {word[:20]!r}, water without its atoms")
    candidates = [e for e in dict.fromkeys((proper, letters[:1].upper())) if e in _ELEMENTS]
    number = word[len(letters) :]
    plain = len(letters) <= 2 and proper in _ELEMENTS
    if plain and exact and not re.match(r"\d+[A-Za-z]", number):
        return "H" if proper in ("D", "T") else proper
    if plain and letters == proper and (len(letters) == 1 or not formula or proper in formula):
        return "H" if proper in ("D", "T") else proper
    if formula:
        candidates = [e for e in candidates if e in formula or (e in ("D", "T") and "H" in formula)]
    elif exact or len(letters) > 2:
        candidates = []
    if len(candidates) != 1:
        doubt = f": {' or '.join(candidates)}" if candidates else ""
        raise ReadError(f"expected chemical elements: got {word[:20]!r}{doubt}")
    return "H" if candidates[0] in ("D", "T") else candidates[0]
