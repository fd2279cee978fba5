"""Frames of extended XYZ: a number of atoms, a line of key=value pairs, a line per atom."""

import io
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from autoperi.data.reading.rows import MAX_ATOMS, ReadError, Row, crystal, labels, own_name

if TYPE_CHECKING:
    from pymatgen.core import Structure

FRAME = re.compile(r"\s*\d+[ \t]*\r?\n[^\n]*=")
_PAIR = re.compile(r"""(?<!\S)([^\s=]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|'((?:[^'\\]|\\.)*+)'|(\S+))""")
_LONGEST = 2**22
"""Characters of a line of key=value pairs that are looked at."""


def extxyz_rows(stream: io.TextIOBase, stem: str, name: str) -> Iterator[Row]:
    """The frames of a file; one that is cut off or too large is a row that says so."""
    number = open_frames = 0
    while first := stream.readline():
        if not first.strip():
            continue
        where, fallback = f"{name}, frame {number}", f"{stem}-{number}"
        if not first.strip().isdigit():
            raise ReadError(f"expected a number of atoms at frame {number}: got {first.strip()[:60]!r}")
        count = int(first) if len(first.strip()) < 19 else 10**18
        number += 1
        if count > MAX_ATOMS:
            all(stream.readline() for _ in range(count + 1))  # until the file ends
            yield Row(fallback, "", where=where, error=f"{count} atoms: expected {MAX_ATOMS} at most")
            continue
        lines = [first, *(stream.readline() for _ in range(count + 1))]
        info = _pairs(lines[1])
        if count == 0 or not lines[-1].strip():
            got = sum(bool(line.strip()) for line in lines[2:])
            error = f"expected {count} atoms: got {got}; the frame breaks off" if count else "no atoms"
            yield Row(own_name(info, fallback), "", where=where, error=error)
        else:
            open_frames += "Lattice" in info and bool(re.search(r"\b(F|False|0)\b", info.get("pbc", "")))
            yield Row(own_name(info, fallback), "".join(lines), labels(info), where)
    if open_frames:
        warnings.warn(
            f"{name}: {open_frames} frames are not periodic in all directions (pbc F); they are "
            "taken as periodic, as their cell says",
            stacklevel=2,
        )


def parse_extxyz(text: str) -> "Structure":
    """The crystal of one frame; its forces, charges and the like are not kept.

    Raises:
        ReadError: no lattice, no elements, or text that is no frame.
    """
    count, comment, *lines = text.strip("\n").split("\n")
    info = _pairs(comment)
    cell = info.get("Lattice", "").split()
    if len(cell) != 9:
        raise ReadError(
            f'expected a periodic crystal: got no Lattice="..." of nine numbers in {comment[:60]!r}'
        )
    columns = _columns(info.get("Properties", "species:S:1:pos:R:3"))
    rows = [line.split() for line in lines if line.strip()]
    width = max(start + n for start, n in columns.values())
    if len(rows) != int(count) or any(len(row) < width for row in rows):
        raise ReadError(
            f"expected {int(count)} lines of {width} values: got {len(rows)}; the frame breaks off"
        )
    at, _ = columns["pos"]
    symbol = next((columns[key][0] for key in ("species", "element", "symbols") if key in columns), None)
    z = next((columns[key][0] for key in ("Z", "numbers") if key in columns), None)
    if symbol is None and z is None:
        raise ReadError(f"expected elements in the frame: got columns {', '.join(columns)}")
    try:
        matrix = np.array([float(v) for v in cell]).reshape(3, 3)
        positions = np.array([[float(v) for v in row[at : at + 3]] for row in rows])
        numbers = None if z is None else np.array([int(row[z]) for row in rows])
        frac = np.linalg.solve(matrix.T, positions.T).T
    except (ValueError, np.linalg.LinAlgError) as error:
        raise ReadError(f"cannot be read as a frame: {error}") from error
    if symbol is None:
        assert numbers is not None  # one of the two is there
        return crystal(matrix, numbers, frac)
    return crystal(matrix, [row[symbol].capitalize() for row in rows], frac)


def _columns(properties: str) -> dict[str, tuple[int, int]]:
    """First column and number of columns of each property."""
    words = properties.split(":")
    found, at = {}, 0
    for name, _, n in zip(words[::3], words[1::3], words[2::3], strict=False):
        if not n.isdigit() or len(n) > 4:
            raise ReadError(f"expected Properties=name:type:columns...: got {properties[:60]!r}")
        found[name] = (at, int(n))
        at += int(n)
    if found.get("pos", (0, 0))[1] != 3:
        raise ReadError(f"expected positions of three columns (pos:R:3): got {properties[:60]!r}")
    return found


def _pairs(comment: str) -> dict[str, str]:
    """Keys and values as text: 000012 is a name, not the number 12."""
    if len(comment) > _LONGEST:
        return {}
    found = {}
    for key, double, single, bare in _PAIR.findall(comment):
        found[key] = bare or re.sub(r"\\(.)", r"\1", double or single)
    return found
