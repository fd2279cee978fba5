"""One crystal from the text of a POSCAR or CONTCAR, with the elements named in it."""

import re
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from autoperi.data.reading.rows import MAX_ATOMS, ReadError, crystal

if TYPE_CHECKING:
    from pymatgen.core import Structure

FEWEST_LINES = 8
"""Comment, scale, three vectors, numbers of atoms, kind of coordinates, a position."""
_ELEMENTS = frozenset(chemical_symbols[1:]) | {"D", "T"}
_SYMBOL = re.compile(r"([A-Z][a-z]?)(?:[_/.].*)?")


def parse_poscar(text: str) -> "Structure":
    """The cell of a POSCAR of VASP 5 or later, or of version 4 with an element after each position.

    Raises:
        ReadError: no elements, fewer or more positions than atoms, or text that is no POSCAR.
    """
    lines = [line.split() for line in text.splitlines()]
    if len(lines) < FEWEST_LINES:
        raise ReadError(f"expected a CIF, a POSCAR, an extxyz frame or JSON: got {text.strip()[:60]!r}")
    scale = _numbers(lines[1], "a scale in line 2")
    lattice = np.array([_numbers(line[:3], "a lattice vector") for line in lines[2:5]])
    if len(scale) not in (1, 3) or lattice.shape != (3, 3) or not np.isfinite(scale).all():
        raise ReadError(f"expected a scale and three lattice vectors in a POSCAR: got {text.strip()[:60]!r}")
    if len(scale) == 1 and scale[0] < 0:  # a volume
        scale = np.cbrt(-scale / max(abs(np.linalg.det(lattice)), 1e-12))
    lattice = lattice * scale
    named = None if _whole(lines[5]) else lines[5]
    at = 5 if named is None else 6
    if not _whole(lines[at]):
        raise ReadError(
            f"expected numbers of atoms in line {at + 1} of a POSCAR: got {' '.join(lines[at])[:60]!r}"
        )
    counts = [int(word) for word in lines[at]]
    n = sum(counts)
    if n > MAX_ATOMS:
        raise ReadError(f"{n} atoms: expected {MAX_ATOMS} at most")
    if named is not None and len(named) != len(counts):
        raise ReadError(f"expected as many elements as numbers: got {' '.join(named)[:60]!r} and {counts}")
    at += 1
    selective = bool(lines[at]) and lines[at][0][0] in "sS"
    at += selective
    kind = lines[at][0][0] if at < len(lines) and lines[at] else "?"
    if kind not in "dDcCkK":
        raise ReadError(f"expected Direct or Cartesian in line {at + 1} of a POSCAR: got {kind!r}")
    rows = lines[at + 1 : at + 1 + n]
    if len(rows) < n or any(len(row) < 3 for row in rows):
        raise ReadError(
            f"expected {n} positions: got {sum(len(row) >= 3 for row in rows)}; the POSCAR is cut off"
        )
    following = lines[at + 1 + n] if len(lines) > at + 1 + n else []
    if len(following) >= 3 and all(re.fullmatch(r"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?", w) for w in following[:3]):
        raise ReadError(f"expected {n} positions, as the numbers of atoms say: got more")
    positions = np.array([_numbers(row[:3], "a position") for row in rows])
    if kind in "cCkK":
        positions = (
            np.linalg.solve(lattice.T, (positions * scale).T).T if np.linalg.det(lattice) else positions
        )
    return crystal(lattice, _elements(named, counts, rows, 6 if selective else 3), positions)


def _elements(named: list[str] | None, counts: list[int], rows: list[list[str]], column: int) -> list[str]:
    """Element of each atom; the name after a position and the line of elements must not differ."""
    behind = [
        m[1] if len(row) > column and (m := _SYMBOL.fullmatch(row[column])) and m[1] in _ELEMENTS else ""
        for row in rows
    ]
    if named is None:
        if not all(behind):
            raise ReadError(
                "expected element symbols in the POSCAR (line 6, or after each position): got none"
            )
        return behind
    symbols = []
    for word, count in zip(named, counts, strict=True):
        match = _SYMBOL.fullmatch(word)
        if match is None or match[1] not in _ELEMENTS:
            raise ReadError(f"expected element symbols in line 6 of the POSCAR: got {word[:20]!r}")
        symbols += [match[1]] * count
    for k, (symbol, other) in enumerate(zip(symbols, behind, strict=True)):
        if other not in ("", symbol):
            raise ReadError(
                f"expected {symbol} as atom {k + 1} by line 6 of the POSCAR: got {other} beside it"
            )
    return symbols


def _whole(words: list[str]) -> bool:
    return bool(words) and all(word.isdecimal() and len(word) < 20 for word in words)


def _numbers(words: list[str], what: str) -> np.ndarray:
    try:
        return np.array([float(word) for word in words])
    except ValueError:
        raise ReadError(f"expected {what} in a POSCAR: got {' '.join(words)[:60]!r}") from None
