"""One crystal from its text: CIF, POSCAR, extxyz or pymatgen JSON, told apart by what they contain."""

import io
import json
import re
import warnings
from collections import Counter
from typing import TYPE_CHECKING

from ase.data import chemical_symbols

if TYPE_CHECKING:
    from pymatgen.core import Structure

_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_CELL_VALUE = re.compile(r"^\s*_cell_(length_[abc]|angle_\w+)\s+(\S+)", re.MULTILINE)
_OPERATION = re.compile(
    r"^[^\n_#]*?['\"]?\s*([-+xyzXYZ0-9/. ]+,[-+xyzXYZ0-9/. ]+,[-+xyzXYZ0-9/. ]+?)['\"]?\s*$", re.M
)
_FORMULA = re.compile(r"^_chemical_formula_sum\s+'?([^'\n]+?)'?\s*$", re.MULTILINE)
_ELEMENT = re.compile(r"[A-Z][a-z]?")
_ELEMENTS = frozenset(chemical_symbols[1:]) | {"D", "T"}
_ORDINARY = frozenset(chemical_symbols[1:])

_POSCAR_LINES = 8
"""Fewest lines of one: comment, scale, three vectors, numbers of atoms, kind of coordinates, a position."""


class ReadError(ValueError):
    """Text or a file that cannot be read as crystals; the message says why."""


def parse_text(payload: str | dict) -> "Structure":
    """Structure from text or from a dictionary of pymatgen.

    Raises:
        ReadError: unreadable or cut off, unknown elements, or atoms that fall on top of each other, which
            pymatgen would otherwise drop or merge without a word.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            return _parse(payload)
    except ReadError:
        raise
    except Exception as error:  # parsers of other packages raise anything; the row is reported
        hints = "; ".join(dict.fromkeys(str(w.message) for w in caught))
        text = " ".join(f"{error} {hints}".split())[:300]
        raise ReadError(f"cannot be read as a crystal: {text or type(error).__name__}") from error


def _parse(payload: str | dict) -> "Structure":
    from pymatgen.core import Structure
    from pymatgen.io.vasp import Poscar

    if isinstance(payload, dict):
        return Structure.from_dict(payload)
    if not payload.strip():
        raise ReadError("expected the text of a crystal: got none")
    if payload.lstrip().startswith("{"):
        return Structure.from_dict(json.loads(payload))
    if "_cell_length_a" in payload:
        return _parse_cif(payload)
    if re.match(r"\s*\d+\s*\n[^\n]*=", payload):
        return _parse_extxyz(payload)
    if "_atom_site_" in payload or payload.lstrip().startswith(("data_", "#")):
        raise ReadError("expected a CIF with _cell_length_a: got none; the text is cut off or is no CIF")
    if len(payload.strip().splitlines()) < _POSCAR_LINES:
        raise ReadError(f"expected a CIF, a POSCAR, an extxyz frame or JSON: got {payload.strip()[:60]!r}")
    poscar = Poscar.from_str(payload)
    if not poscar.true_names:
        raise ReadError("expected element symbols in the POSCAR (line 6, or after each position): got none")
    return poscar.structure


def _parse_extxyz(text: str) -> "Structure":
    from ase.io import read
    from pymatgen.core import Lattice, Structure

    atoms = read(io.StringIO(text), format="extxyz")
    if abs(atoms.cell.volume) < 1e-6:  # type: ignore[union-attr]
        raise ReadError('expected a periodic crystal: got no Lattice="..." in the extxyz frame')
    return Structure(Lattice(atoms.cell.array), atoms.numbers, atoms.get_scaled_positions())  # type: ignore[union-attr]


def _parse_cif(text: str) -> "Structure":
    from pymatgen.core import Lattice, Structure
    from pymatgen.io.cif import CifParser

    columns, rows = _atom_table(text)
    if "_atom_site_fract_x" not in columns or not rows:
        raise ReadError("expected atoms with fractional coordinates in the CIF: got none; it may be cut off")
    symbols = _symbols(columns, rows)
    plain = _plain_p1(text, columns, rows, symbols)
    if plain is not None:
        cell, positions = plain
        _refuse_cut_off(text, symbols)
        return Structure(Lattice.from_parameters(*cell), symbols, positions)
    # images of a special position written with four digits are up to 1e-3 apart
    parser = CifParser(io.StringIO(text), occupancy_tolerance=1.0, site_tolerance=1e-3)
    structure = parser.parse_structures(primitive=False, check_occu=True)[0]
    _refuse_dropped(structure, symbols)
    return structure


def _atom_table(text: str) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of the loop that holds the coordinates."""
    columns: list[str] = []
    rows: list[list[str]] = []
    start = text.rfind("loop_", 0, max(text.find("_atom_site_fract_x"), 0))
    for raw in text[start + len("loop_") :].splitlines() if start >= 0 else ():
        line = raw.strip()
        if line.startswith("_atom_site_") and not rows:
            columns.append(line.split()[0])
        elif line.startswith(("_", "loop_", "data_", ";")):
            break
        elif rows and len(rows[-1]) < len(columns):  # values may run on to the next line
            rows[-1].extend(line.split())
        elif line and not line.startswith("#"):
            rows.append(line.split())
    return columns, rows


def _symbols(columns: list[str], rows: list[list[str]]) -> list[str]:
    """Element of each row; pymatgen would leave out atoms whose element it does not know."""
    name = "_atom_site_type_symbol" if "_atom_site_type_symbol" in columns else "_atom_site_label"
    if name not in columns:
        raise ReadError("expected _atom_site_type_symbol or _atom_site_label in the CIF: got neither")
    column, symbols = columns.index(name), []
    for row in rows:
        if len(row) < len(columns):
            raise ReadError(
                f"expected {len(columns)} values per atom: got {' '.join(row)!r}; the CIF is cut off"
            )
        word = row[column].strip("'\"")
        match = _ELEMENT.match(word)
        found = match.group() if match else word
        if found not in _ELEMENTS and found[:1] in _ELEMENTS and name.endswith("label"):
            found = found[:1]  # labels such as Oh1
        if found not in _ELEMENTS:
            raise ReadError(f"expected chemical elements: got {word!r}")
        symbols.append(found)
    return symbols


def _plain_p1(
    text: str, columns: list[str], rows: list[list[str]], symbols: list[str]
) -> tuple[list[float], list[list[float]]] | None:
    """Cell and positions of a CIF in P1 with full sites, as pymatgen writes it; None for any other CIF."""
    operations = _OPERATION.findall(text)
    if len(operations) != 1 or re.sub(r"^\d+\s+| ", "", operations[0].lower()) != "x,y,z":
        return None
    if not _ORDINARY.issuperset(symbols):
        return None
    if any(len(row) != len(columns) for row in rows) or "_atom_site_attached_hydrogens" in columns:
        return None
    x = columns.index("_atom_site_fract_x")
    occupancy = columns.index("_atom_site_occupancy") if "_atom_site_occupancy" in columns else None
    cell = dict(_CELL_VALUE.findall(text))
    try:
        if occupancy is not None and any(float(row[occupancy]) != 1.0 for row in rows):
            return None
        return [float(cell[key]) for key in _CELL], [[float(v) for v in row[x : x + 3]] for row in rows]
    except (KeyError, ValueError):
        return None


def _refuse_cut_off(text: str, symbols: list[str]) -> None:
    """Atoms of a CIF written by pymatgen add up to the formula it states."""
    formula = _FORMULA.search(text)
    if formula is None or "generated using pymatgen" not in text[:80]:
        return
    expected = {el: int(n or 1) for el, n in re.findall(r"([A-Z][a-z]?)(\d*)", formula.group(1))}
    got = Counter(symbols)
    if set(expected) != set(got) or len({got[el] * 1000 // n for el, n in expected.items()}) != 1:
        found = " ".join(f"{el}{n}" for el, n in got.items())
        raise ReadError(f"expected atoms of {formula.group(1)}: got {found}; the CIF is cut off")


def _refuse_dropped(structure: "Structure", symbols: list[str]) -> None:
    """Every element of the file must still be there."""
    left = {element.symbol for element in structure.composition.elements}
    missing = sorted(
        {"H" if s in ("D", "T") else s for s in symbols} - {"H" if s in ("D", "T") else s for s in left}
    )
    if missing:
        raise ReadError(f"expected all elements of the CIF to be read: {', '.join(missing)} got lost")
