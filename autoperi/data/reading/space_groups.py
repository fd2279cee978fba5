"""The symmetry a CIF states: operations it lists, or the setting that its symbol names among Hall's 530."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from moyopy import HallSymbolEntry, Setting, operations_from_number

from autoperi.data.reading.cif_syntax import Block
from autoperi.data.reading.rows import ReadError

_LISTED = (
    "_space_group_symop_operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_magn_operation_xyz",
)
_CENTRED = "_space_group_symop_magn_centering_xyz"
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_HM = (
    *("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m", "_space_group_name_h-m_full"),
    *("_space_group_name_h-m_ref", "_space_group_name_h-m"),
)
_NUMBER = ("_space_group_it_number", "_symmetry_int_tables_number")
_TERM = re.compile(r"([+-]?)(?:(\d*\.?\d+)(?:/(\d+))?)?\*?([xyz]?)")
_LONGEST = 60
"""Characters of an operation."""
_UNIT = 5040
"""Translations are held in this fraction of the cell: divisible by every denominator of a setting."""


@dataclass(frozen=True)
class Operations:
    """Symmetry operations x' = W x + w of a space group, and its number.

    Attributes:
        rotations: W [operations, 3, 3].
        shifts: w [operations, 3], in [0, 1).
        number: ITA number; 0 if they are no group, -1 for one in a cell that the tables do not have.
        name: as messages call it.
    """

    rotations: np.ndarray
    shifts: np.ndarray
    number: int
    name: str

    def __len__(self) -> int:
        """Operations per cell."""
        return len(self.rotations)

    @property
    def members(self) -> frozenset[int]:
        """The operations as a set, whatever their order."""
        return frozenset(_keys(self.rotations, (self.shifts * _UNIT).round().astype(int)).tolist())

    def keep(self, matrix: np.ndarray) -> bool:
        """Whether they leave the metric of a cell (rows are its vectors) as it is, to 2%."""
        metric = matrix @ matrix.T
        moved = np.einsum("nji,jk,nkl->nil", self.rotations, metric, self.rotations)
        lengths = np.sqrt(np.diag(metric))
        return bool((np.abs(moved - metric) <= 0.02 * np.outer(lengths, lengths)).all())


IDENTITY = Operations(np.eye(3, dtype=int)[None], np.zeros((1, 3)), 1, "P 1")


def listed_operations(block: Block) -> Operations | None:
    """The operations that a CIF lists, those of a magnetic group without time; None if it lists none.

    Raises:
        ReadError: an operation that cannot be understood.
    """
    texts = _column(block, _LISTED)
    return _listed(tuple(texts), tuple(_column(block, (_CENTRED,)))) if texts else None


def _column(block: Block, names: Iterable[str]) -> list[str]:
    for name in names:
        columns = next((columns for columns, _ in block.loops if name in columns), [])
        if columns and len(columns) < 3 and len(columns) - 1 == columns.index(name):
            return _rejoined(next(values for c, values in block.loops if c is columns), len(columns) == 2)
        columns, rows = block.loop(name)
        if rows:
            return [row[columns.index(name)] for row in rows]
    return []


def _rejoined(values: list[str], numbered: bool) -> list[str]:
    """Operations in the last column of a loop, also those written with blanks and without quotes."""
    if not numbered and not any(value.endswith(",") or value.startswith(",") for value in values):
        return values
    if numbered and all(value.count(",") == (i % 2) * 2 for i, value in enumerate(values)):
        return values[1::2]
    text = " ".join(values)
    joined = re.sub(r"\s*([,*/+-])\s*", r"\1", re.sub(r",\s+", ",", text)).split(" ")
    return [value for value in joined if "," in value]


@lru_cache(256)
def _listed(texts: tuple[str, ...], centring: tuple[str, ...]) -> Operations:
    rotations, shifts = _parsed(texts)
    if centring:
        more, moves = _parsed(centring)
        rotations, shifts = (
            np.einsum("aij,bjk->abik", more, rotations).reshape(-1, 3, 3),
            (np.einsum("aij,bj->abi", more, shifts) + moves[:, None]).reshape(-1, 3),
        )
    keys, first = np.unique(_keys(rotations, shifts), return_index=True)
    rotations, shifts = rotations[np.sort(first)], shifts[np.sort(first)] % _UNIT
    products = np.einsum("aij,bjk->abik", rotations, rotations).reshape(-1, 3, 3)
    moved = (np.einsum("aij,bj->abi", rotations, shifts) + shifts[:, None]).reshape(-1, 3)
    closed = bool(np.isin(_keys(products, moved), keys).all())
    number = (_number(rotations, shifts / _UNIT) or -1) if closed else 0
    return Operations(rotations, shifts / _UNIT, number, f"the {len(rotations)} operations listed")


def _keys(rotations: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """One integer per operation, equal when they differ by a lattice vector."""
    if np.abs(rotations).max() > 2:
        raise ReadError("expected symmetry operations of one cell: got a matrix with entries above 2")
    weights = 5 ** np.arange(9)
    code = ((rotations.reshape(-1, 9) + 2) @ weights).astype(np.int64)
    for axis in range(3):
        code = code * _UNIT + (shifts[:, axis] % _UNIT)
    return code


def _number(rotations: np.ndarray, shifts: np.ndarray) -> int:
    import spglib

    try:
        found = spglib.get_spacegroup_type_from_symmetry(rotations, shifts)
    except Exception:  # no group of the tables: it stays without a number
        return 0
    return found.number if found is not None else 0


def _parsed(texts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Matrices [n, 3, 3] and translations [n, 3] in units of the cell over ``_UNIT``."""
    if len(texts) > 4096:
        raise ReadError(f"expected the symmetry operations of one cell: got {len(texts)}")
    rotations, shifts = np.zeros((len(texts), 3, 3), int), np.zeros((len(texts), 3), int)
    for n, text in enumerate(texts):
        parts = text.lower().replace(" ", "").replace("\t", "").split(",") if len(text) <= _LONGEST else []
        if len(parts) not in (3, 4):  # the fourth of a magnetic operation is that of time
            raise ReadError(f"expected a symmetry operation such as 'x, -y, z+1/2': got {text[:_LONGEST]!r}")
        for row, part in enumerate(parts[:3]):
            position, shift = 0, 0.0
            while position < len(part):
                term = _TERM.match(part, position)
                if term is None or term.end() == position:
                    raise ReadError(f"expected a symmetry operation such as 'x, -y, z+1/2': got {text!r}")
                position = term.end()
                sign = -1 if term[1] == "-" else 1
                value = float(term[2] or 1) / float(term[3] or 1) if term[3] != "0" else np.nan
                if term[4]:
                    rotations[n, row, "xyz".index(term[4])] += round(sign * value)
                else:
                    shift += sign * value
            if not np.isfinite(shift):
                raise ReadError(f"expected a symmetry operation such as 'x, -y, z+1/2': got {text!r}")
            twelfths = round(shift * 24)
            near = abs(shift * 24 - twelfths) < 0.05
            shifts[n, row] = twelfths * _UNIT // 24 if near else round(shift * _UNIT)
    if (np.abs(np.linalg.det(rotations).round()) != 1).any():
        raise ReadError("expected symmetry operations that keep the volume: got one that does not")
    return rotations, shifts


def declared_numbers(block: Block) -> set[int]:
    """Numbers of the groups that a CIF names, by number and by symbols; empty if none is understood."""
    found = {_hall(hall).number for hall in _by_symbol(block)}
    number = block.text(*_NUMBER)
    return found | ({int(number)} if number.isdigit() and 0 < int(number) <= 230 else set())


def named_groups(block: Block, matrix: np.ndarray) -> list[Operations]:
    """The settings that the symbol of a CIF, else its number, can mean in its cell, the likeliest first."""
    halls = _by_symbol(block)
    number = block.text(*_NUMBER)
    if not halls and number.isdigit() and 0 < int(number) <= 230:
        entries = _entries()
        of_number = [e for e in entries if e["number"] == int(number)]
        choice = {"1", "2", "H", "R"} & {e["setting"] for e in of_number}
        halls = [e["hall_number"] for e in of_number if e["setting"] in choice] or [
            of_number[0]["hall_number"]
        ]
    found = [hall for hall in dict.fromkeys(halls) if _hall(hall).keep(matrix)]
    # a short monoclinic symbol means axis b, unless the cell says otherwise
    along_b = [hall for hall in found if _entries()[hall - 1]["setting"].lstrip("-").startswith("b")]
    different = {o.members: o for o in map(_hall, reversed(along_b or found))}
    return list(reversed(different.values()))


def _by_symbol(block: Block) -> list[int]:
    """Hall numbers that the symbols of a CIF can mean."""
    hall = block.text(*_HALL).replace("_", " ")
    exact = _symbols()[0].get(_plain(hall), []) if hall else []
    if exact:
        return exact
    code = block.text("_space_group_it_coordinate_system_code").upper()
    for name in _HM:
        if symbol := block.text(name):
            found = _by_hm(symbol, code)
            if found:
                return found
    return []


@lru_cache(4096)
def _by_hm(symbol: str, code: str) -> list[int]:
    known = _symbols()[1]
    symbol, _, suffix = symbol.partition(":")
    plain, suffix = _plain(symbol), (suffix.strip().upper() or code)
    if plain not in known and plain[-1:] in ("h", "r", "s", "z") and plain[:-1] in known:
        plain, suffix = plain[:-1], plain[-1].upper()
    old = [plain, re.sub(r"(?<=[a-z0-9])3", "-3", plain, count=1)]  # F m 3 m before 1983
    old += [f"{plain[:i]}e{plain[i + 1 :]}" for i in range(1, len(plain)) if plain[i] in "abc"]  # C m c a
    halls = next((known[name] for name in old if name in known), [])
    suffix = {"S": "1", "Z": "2", "HEX": "H", "O1": "1", "O2": "2"}.get(suffix, suffix)
    chosen = (
        [h for h in halls if _entries()[h - 1]["setting"].upper().startswith(suffix)] if suffix else halls
    )
    return chosen or halls


def _plain(symbol: str) -> str:
    return re.sub(r"[\s_()'\"]", "", symbol).lower()


@cache
def _entries() -> list[dict]:
    return [HallSymbolEntry(hall).as_dict() for hall in range(1, 531)]


@cache
def _symbols() -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Hall numbers by Hall symbol and by Hermann-Mauguin symbol: short, full, without axes of order 1."""
    import spglib

    by_hall: dict[str, list[int]] = {}
    by_hm: dict[str, list[int]] = {}
    for entry in _entries():
        hall, number = entry["hall_number"], entry["number"]
        old = spglib.get_spacegroup_type(hall)
        assert old is not None  # 1 to 530 are all there
        names = {entry["hm_full"], *old.international_full.split("=")}
        if 2 < number < 16:
            names |= {" ".join(word for word in name.split() if word != "1") for name in names}
        if not 2 < number < 16 or entry["setting"] in ("b", "b1", "-b1"):
            names |= {entry["hm_short"], old.international_short}
        for name in {_plain(n) for n in names if n.strip()}:
            by_hm.setdefault(name, []).append(hall)
        by_hall.setdefault(_plain(entry["hall_symbol"]), []).append(hall)
        if hall not in by_hall.setdefault(_plain(old.hall_symbol), []):
            by_hall[_plain(old.hall_symbol)].append(hall)
    return by_hall, by_hm


@cache
def _hall(hall: int) -> Operations:
    entry = _entries()[hall - 1]
    found = operations_from_number(entry["number"], setting=Setting.hall_number(hall))
    name = f"{entry['hm_short']}:{entry['setting']}" if entry["setting"] else entry["hm_short"]
    return Operations(np.array(found.rotations), np.array(found.translations) % 1.0, entry["number"], name)
