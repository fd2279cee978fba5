"""The structure formats: from the bytes of one file to its items, and from an item to structures.

Cutting and parsing are apart so that one bad item spoils no other and parsing can be shared among
processes.
"""

import contextlib
import gzip
import io
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from pymatgen.core import Element, Lattice, Structure

SUFFIXES = (".cif", ".vasp", ".poscar", ".extxyz", ".xyz", ".csv", ".json", ".jsonl", ".npz", ".pt", ".db")
_ID_COLUMNS = ("material_id", "id", "sample_id", "name", "cof_id", "framework", "sample")
_TEXT_COLUMNS = (("cif", "cif"), ("structure", "cif"), ("poscar", "poscar"))


@dataclass(frozen=True)
class RawItem:
    """One crystal as stored.

    Attributes:
        id: its name in the file.
        kind: how to parse it: cif, poscar, frame, atoms, dict, arrays, or error.
        payload: text, dictionary or arrays; for `error` the reason.
        group: what a table of several models names this row's model; see `cut_groups`.
    """

    id: str
    kind: str
    payload: Any
    group: str = ""


def format_of(name: str) -> str:
    """Known suffix of a file name without .gz, or the empty string."""
    base = PurePosixPath(name).name
    stem = base[:-3] if base.lower().endswith(".gz") else base
    if stem.upper().startswith(("POSCAR", "CONTCAR")):
        return ".poscar"
    suffix = PurePosixPath(stem).suffix.lower()
    return suffix if suffix in SUFFIXES else ""


def cut(name: str, data: bytes) -> Iterator[RawItem]:
    """Items of one file of a known format; raises when the file breaks off or is not what it says."""
    yield from _CUTTERS[format_of(name)](_unzipped(name, data))


def cut_groups(name: str, data: bytes, column: str) -> Iterator[RawItem]:
    """Items of a CSV table that holds several models, each with its model under `group`.

    Raises:
        ValueError: when it is no CSV or has no such column.
    """
    if format_of(name) != ".csv":
        raise ValueError(f"only a CSV table has columns to split by: got {name}")
    table = _read_table(_unzipped(name, data))
    if column not in table.columns:
        raise ValueError(f"no column {column!r} in {name}: expected one of {list(table.columns)}")
    for group, item in zip(table[column].astype(str), _table_items(table), strict=True):
        yield replace(item, group=group)


def parse_item(item: RawItem) -> list[Structure]:
    """The structures in one item; raises whatever is wrong with it."""
    if item.kind == "error":
        raise ValueError(item.payload)
    if item.kind == "cif":
        from pymatgen.io.cif import CifParser

        parser = CifParser(io.StringIO(item.payload))
        return list(parser.parse_structures(primitive=False, on_error="raise"))
    if item.kind == "poscar":
        return [Structure.from_str(item.payload, fmt="poscar")]
    if item.kind == "frame":
        return [_parse_frame(item.payload)]
    if item.kind == "atoms":
        return [_from_ase(item.payload)]
    if item.kind == "dict":
        return [Structure.from_dict(item.payload)]
    if item.kind == "arrays":
        numbers, frac, cell = item.payload
        if not (np.isfinite(cell).all() and (cell[:3] > 0).all()):
            raise ValueError(f"cell parameters {np.round(cell, 3).tolist()}")
        lattice = Lattice.from_parameters(*(float(x) for x in cell))
        return [Structure(lattice, [Element.from_Z(int(z)) for z in numbers], frac)]
    raise AssertionError(f"unknown kind {item.kind}")


def _unzipped(name: str, data: bytes) -> bytes:
    return gzip.decompress(data) if name.lower().endswith(".gz") else data


def _cif_items(data: bytes) -> Iterator[RawItem]:
    yield RawItem("", "cif", data.decode("utf-8", errors="replace"))


def _poscar_items(data: bytes) -> Iterator[RawItem]:
    yield RawItem("", "poscar", data.decode())


def _csv_items(data: bytes) -> Iterator[RawItem]:
    yield from _table_items(_read_table(data))


def _read_table(data: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(data), low_memory=False)


def _table_items(table: pd.DataFrame) -> Iterator[RawItem]:
    columns = {str(c).lower(): c for c in table.columns}
    text = next(((columns[c], kind) for c, kind in _TEXT_COLUMNS if c in columns), None)
    if text is None:
        raise ValueError(f"no column named cif, structure or poscar among {list(table.columns)}")
    names = next((table[columns[c]] for c in _ID_COLUMNS if c in columns), table.index)
    column, kind = text
    for name, content in zip(names, table[column], strict=True):
        if isinstance(content, str):
            yield _text_item(str(name), kind, content)
        else:
            yield RawItem(str(name), "error", f"empty {column}")


def _text_item(name: str, kind: str, content: str) -> RawItem:
    if content.lstrip().startswith("{"):
        return RawItem(name, "dict", json.loads(content))
    return RawItem(name, kind, content)


def _json_items(data: bytes) -> Iterator[RawItem]:
    yield from _walk(json.loads(data), "")


def _jsonl_items(data: bytes) -> Iterator[RawItem]:
    for index, line in enumerate(data.decode().splitlines()):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            yield RawItem(str(index), "error", f"not JSON: {error}")
            continue
        yield from _walk(content, str(index))


def _walk(node: Any, name: str) -> Iterator[RawItem]:
    """Structures anywhere in nested lists and dictionaries, named by their path or their own id."""
    if isinstance(node, dict):
        own = next((str(node[k]) for k in _ID_COLUMNS if isinstance(node.get(k), str | int)), name)
        if "lattice" in node and "sites" in node:
            yield RawItem(own, "dict", node)
        elif isinstance(node.get("cif"), str):
            yield RawItem(own, "cif", node["cif"])
        elif isinstance(node.get("structure"), str):
            yield _text_item(own, "cif", node["structure"])
        elif isinstance(node.get("structure"), dict):
            yield from _walk(node["structure"], own)
        elif {"index", "columns", "data"} <= set(node):  # a pandas table, "split" orientation
            for name, row in zip(node["index"], node["data"], strict=True):
                cells = [c for c in row if isinstance(c, dict)] or [None]
                yield from _walk(cells[0], str(name))
        else:
            branches = [key for key, value in node.items() if _holds_structure(value)]
            if not branches:
                yield RawItem(own, "error", f"no structure in an object with {sorted(node)[:5]}")
            for key in branches:
                yield from _walk(node[key], f"{name}/{key}" if name else str(key))
    elif isinstance(node, list):
        if name and not _holds_structure(node):
            yield RawItem(name, "error", f"no structure in a list of {len(node)}")
            return
        for index, child in enumerate(node):
            yield from _walk(child, f"{name}/{index}" if name else str(index))
    elif isinstance(node, str) and "_cell_length_a" in node:
        yield RawItem(name, "cif", node)
    else:
        yield RawItem(name, "error", f"expected a structure, got {type(node).__name__}")


def _holds_structure(node: Any) -> bool:
    """Whether a structure is to be expected somewhere below: lists of plain values are skipped whole."""
    if isinstance(node, dict):
        marks = ("cif", "structure")
        if (
            "lattice" in node
            or any(key in node for key in marks)
            or {"index", "columns", "data"} <= set(node)
        ):
            return True
        return any(_holds_structure(value) for value in node.values())
    if isinstance(node, list):
        return any(_holds_structure(value) for value in node)
    return isinstance(node, str) and "_cell_length_a" in node


def _ase_items(data: bytes) -> Iterator[RawItem]:
    """Rows of an ASE database (SQLite); a row that cannot be read costs itself alone."""
    import sqlite3

    from ase.db import connect

    if not data.startswith(b"SQLite format 3"):
        raise ValueError("not an ASE database: expected an SQLite file")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "copy.db"
        file.write_bytes(data)
        with contextlib.closing(sqlite3.connect(file)) as plain:
            ids = [row for (row,) in plain.execute("SELECT id FROM systems ORDER BY id")]
        database = connect(file, type="db")
        for row in ids:
            try:
                atoms = database.get(id=row).toatoms()
            except Exception as error:
                yield RawItem(str(row), "error", f"{type(error).__name__}: {error}")
                continue
            yield RawItem(str(row), "atoms", atoms)


def _npz_items(data: bytes) -> Iterator[RawItem]:
    """Concatenated arrays z, frac, n, cell, as they are or behind a prefix such as train_."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        prefixes = [key[:-1] for key in arrays.files if key == "z" or key.endswith("_z")]
        if not prefixes:
            raise ValueError(f"expected arrays z, frac, n, cell: got {arrays.files}")
        for prefix in prefixes:
            ids = arrays[f"{prefix}id"] if f"{prefix}id" in arrays.files else None
            parts = [arrays[f"{prefix}{key}"] for key in ("z", "frac", "n", "cell")]
            yield from _array_items(*parts, prefix=prefix, ids=ids)


def _pt_items(data: bytes) -> Iterator[RawItem]:
    """CDVAE and DiffCSP output: concatenated tensors, CDVAE's with a leading evaluation axis."""
    import torch

    content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    keys = ("atom_types", "frac_coords", "num_atoms", "lengths", "angles")
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"missing {missing}: expected the tensors {list(keys)}")
    z, frac, n, lengths, angles = (np.asarray(content[key]) for key in keys)
    cell = np.concatenate([lengths, angles], axis=-1)
    if frac.ndim == 2:
        yield from _array_items(z, frac, n, cell)
    else:
        for k in range(len(frac)):
            yield from _array_items(z[k], frac[k], n[k], cell[k], prefix=f"{k}_")


def _array_items(
    z: np.ndarray,
    frac: np.ndarray,
    n: np.ndarray,
    cell: np.ndarray,
    prefix: str = "",
    ids: np.ndarray | None = None,
) -> Iterator[RawItem]:
    ends = np.cumsum(n.astype(int))
    total = int(ends[-1]) if len(ends) else 0
    if len(z) != total or len(frac) != total or len(cell) != len(n):
        raise ValueError(
            f"expected {total} atoms and {len(n)} cells: got {len(z)} species, {len(frac)} "
            f"positions and {len(cell)} cells"
        )
    for index, (end, count) in enumerate(zip(ends, n.astype(int), strict=True)):
        atoms = slice(end - count, end)
        name = f"{prefix}{index}" if ids is None else np.asarray(ids[index]).astype(str).item()
        yield RawItem(name, "arrays", (z[atoms], frac[atoms].astype(float), cell[index]))


def _extxyz_items(data: bytes) -> Iterator[RawItem]:
    lines = data.decode().splitlines()
    position = index = 0
    while position < len(lines):
        if not lines[position].strip():
            position += 1
            continue
        count = int(lines[position])
        frame = lines[position : position + count + 2]
        if len(frame) < count + 2:
            raise ValueError(f"frame {index} breaks off: {len(frame) - 2} of {count} atoms")
        match = re.search(r'\b(?:material_id|sample_id|id)="?([^"\s]+)"?', frame[1])
        yield RawItem(match.group(1) if match else str(index), "frame", "\n".join(frame) + "\n")
        position, index = position + count + 2, index + 1


def _parse_frame(text: str) -> Structure:
    from ase.io import read

    atoms = read(io.StringIO(text), format="extxyz")
    if isinstance(atoms, list):
        raise TypeError("expected one frame")
    return _from_ase(atoms)


def _from_ase(atoms: Atoms) -> Structure:
    if atoms.cell.rank < 3:
        raise ValueError("no three-dimensional lattice")
    return Structure(Lattice(atoms.cell.array), list(atoms.numbers), atoms.get_scaled_positions(wrap=False))


_CUTTERS = {
    ".cif": _cif_items,
    ".vasp": _poscar_items,
    ".poscar": _poscar_items,
    ".extxyz": _extxyz_items,
    ".xyz": _extxyz_items,
    ".csv": _csv_items,
    ".json": _json_items,
    ".jsonl": _jsonl_items,
    ".npz": _npz_items,
    ".pt": _pt_items,
    ".db": _ase_items,
}
