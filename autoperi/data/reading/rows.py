"""What every format gives: a row per crystal, its name and numbers, and a structure that can be trusted."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

if TYPE_CHECKING:
    from pymatgen.core import Element, Structure

MAX_ATOMS = 20_000
"""Atoms of one cell. MIL-101, among the largest cells made of this field's crystals, has 14,416."""
MAX_LENGTH = 1_000.0
"""Longest cell vector, Å."""
MAX_ELONGATION = 1e5
"""Longest vector cubed over the volume: 4 × 4 × 1,000 Å has 62,500. Reducing a cell costs as much."""
MAX_CELLS = 1e6
"""Cells that a position may lie away: beyond it four decimals are left."""
MAX_TEXT = 2**24
"""Characters of one crystal: 800 for each of the most atoms."""

ID_NAMES = (
    *("material_id", "sample_id", "id", "mpid", "sid", "jid", "cif_id", "cof_id"),
    *("name", "framework", "sample"),
)
"""Names under which a record may carry that of its crystal, the surest first."""
TEXT_NAMES = ("cif", "structure", "poscar", "atoms")
"""Names under which a record may carry its crystal."""
LABEL_NAMES = {
    "formation_energy_per_atom": "formation_energy",
    "energy_above_hull": "e_above_hull",
    "ind_gap": "band_gap",
}
"""Columns of the public data sets that are renamed: eV/atom, eV/atom, eV (Perov-5, GLLB-SC)."""
_NOT_LABELS = {
    *("", "unnamed: 0", "e_hull_mace_lemat", "row", "index", "nsites", "natoms"),
    *("spacegroup.number", "spacegroup_number"),
    *ID_NAMES,
}
_NUMBERS = {symbol: z for z, symbol in enumerate(chemical_symbols) if z} | {"D": 1, "T": 1}


class ReadError(ValueError):
    """Text or a file that cannot be read as crystals; the message says why."""


class NoCrystalsError(ReadError):
    """A whole file that is well formed and holds no crystals: a table of numbers, a record of settings."""


@dataclass(frozen=True)
class Row:
    """One crystal of a file, not yet parsed.

    Attributes:
        id: name in the file, or file name and number; unique among the rows of a path, on one line.
        payload: its text, a dictionary of one of the known kinds, or (Z, positions, cell).
        labels: numbers that come with it; those of the public data sets under our names.
        where: file and place, for messages.
        error: what is wrong, if it could not even be found.
    """

    id: str
    payload: Any
    labels: dict[str, float] = field(default_factory=dict)
    where: str = ""
    error: str = ""


def crystal(cell: Any, species: Sequence[str] | np.ndarray, frac: Any) -> "Structure":
    """A structure of plain elements from a cell, elements and fractional positions.

    Args:
        cell: lattice vectors as rows [3, 3], or lengths and angles [6], in Å and degrees.
        species: symbols or atomic numbers; D and T are hydrogen.
        frac: fractional positions [atoms, 3]; those more than two cells away are wrapped.

    Raises:
        ReadError: numbers that are no crystal; the message says which.
    """
    from pymatgen.core import Lattice, Structure

    matrix = np.asarray(cell, dtype=float)
    if matrix.shape == (6,):
        if not (
            np.isfinite(matrix).all() and (matrix[:3] > 0).all() and (np.abs(matrix[3:] - 90) < 90).all()
        ):
            raise ReadError(
                f"expected lengths above 0 and angles in (0, 180): got {matrix.round(3).tolist()}"
            )
        lattice = Lattice.from_parameters(*matrix.tolist())
        matrix = lattice.matrix
    else:
        lattice = Lattice(matrix)
    positions = np.asarray(frac, dtype=float).reshape(-1, 3)
    if reason := fault(matrix, positions):
        raise ReadError(reason)
    if np.abs(positions).max() > 2:
        positions = positions - np.floor(positions)
    return Structure(lattice, [_element(z) for z in _numbers(species)], positions)


@cache
def _element(z: int) -> "Element":
    from pymatgen.core import Element

    return Element.from_Z(z)


def _numbers(species: Sequence[str] | np.ndarray) -> list[int]:
    numbers = []
    for given in species:
        z = _NUMBERS.get(given) if isinstance(given, str) else int(given)
        if z is None or not 0 < z < len(chemical_symbols) or (not isinstance(given, str) and z != given):
            raise ReadError(f"a site that is no element: {str(given)[:20]!r}")
        numbers.append(z)
    return numbers


def fault(matrix: np.ndarray, frac: np.ndarray) -> str:
    """What keeps a cell and its fractional positions from being a crystal, or the empty string."""
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return "lattice is not finite"
    longest = float(np.linalg.norm(matrix, axis=1).max())
    volume = abs(float(np.linalg.det(matrix)))
    if longest > MAX_LENGTH:
        return f"a cell vector of {longest:.4g} Å: expected {MAX_LENGTH:g} Å at most"
    if volume < 1e-6:  # Å³
        return "a cell without volume"
    if longest**3 > MAX_ELONGATION * volume:
        return f"a cell of {longest:.4g} Å and only {volume:.4g} Å³: too long for its volume, or too flat"
    if len(frac) == 0:
        return "no atoms"
    if len(frac) > MAX_ATOMS:
        return f"{len(frac)} atoms: expected {MAX_ATOMS} at most"
    if not np.isfinite(frac).all():
        return "coordinates are not finite"
    if np.abs(frac).max() > MAX_CELLS:
        return "a coordinate beyond a million cells"
    return ""


def labels(record: Mapping[Any, Any]) -> dict[str, float]:
    """Everything numeric in a record, under our names unless the record has that name too."""
    found = {}
    for key, value in record.items():
        if not isinstance(key, str) or key.lower() in _NOT_LABELS:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        try:
            number = float(value)
        except (ValueError, OverflowError):
            continue
        if math.isfinite(number):
            ours = LABEL_NAMES.get(key, key)
            found[key if ours in record else ours] = number
    return found


def own_name(record: Mapping[str, Any], fallback: str) -> str:
    """The name that a record carries, or the fallback."""
    return next(
        (
            str(record[key])
            for key in ID_NAMES
            if isinstance(record.get(key), str | int) and record[key] != ""
        ),
        fallback,
    )


def one_line(text: str) -> str:
    """Text with everything that breaks a line or cannot be printed made visible or blank."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else " " for c in text).strip()


def uniquely_named(rows: Iterator[Row]) -> Iterator[Row]:
    """Rows whose names are one line each and differ: a repeated name is numbered, whatever else is there."""
    seen: dict[str, int] = {}
    for row in rows:
        base = name = one_line(row.id) or "crystal"
        while name in seen:
            seen[base] += 1
            name = f"{base}~{seen[base]}"
        seen[name] = 1
        yield row if name == row.id else replace(row, id=name)
