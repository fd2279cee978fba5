"""Read crystals from whatever they come in: CSV tables, folders, archives, CIF, POSCAR, extxyz, JSON.

Reading is in two steps so that the slow one can run in other processes: ``iterate_rows`` finds the
crystals of a file and their labels, ``parse_row`` turns the text of one of them into a structure.
Nothing is lost on the way: what cannot be read is a row too, and ``parse_row`` says what is wrong with it.
"""

import csv
import gzip
import io
import json
import math
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from autoperi.data.structure_text import ReadError, parse_text

if TYPE_CHECKING:
    from pymatgen.core import Structure

_LABEL_NAMES = {
    "formation_energy_per_atom": "formation_energy",
    "energy_above_hull": "e_above_hull",
    "ind_gap": "band_gap",
}
"""Columns of the public data sets that are renamed: eV/atom, eV/atom, eV (Perov-5, GLLB-SC)."""

_ID_COLUMNS = ("material_id", "id", "mpid", "sid", "cif_id", "cof_id", "name", "framework", "sample")
_TEXT_COLUMNS = ("cif", "structure", "poscar")
_NOT_LABELS = {
    "",
    "e_hull_mace_lemat",
    "row",
    "index",
    "nsites",
    "natoms",
    "spacegroup.number",
    "spacegroup_number",
    *_ID_COLUMNS,
}
_TABLES = (".csv",)
_SUFFIXES = (*_TABLES, ".cif", ".extxyz", ".xyz", ".json", ".vasp", ".poscar")
_WHOLE = ("crystals.extxyz", "relaxed.extxyz")
"""Files of ours that hold all that is in their folder: the CIFs beside them are the same crystals."""
_DAMAGED = (EOFError, OSError, UnicodeDecodeError, csv.Error, zlib.error, json.JSONDecodeError)


@dataclass(frozen=True)
class Row:
    """One crystal of a file, not yet parsed.

    Attributes:
        id: name in the file, or file name and number.
        payload: its text, or the dictionary of a pymatgen structure.
        labels: numbers that come with it; those of the public data sets under our names.
        where: file and place, for messages.
        error: what is wrong, if it could not even be found.
    """

    id: str
    payload: str | dict
    labels: dict[str, float] = field(default_factory=dict)
    where: str = ""
    error: str = ""


@dataclass(frozen=True)
class ReadResult:
    """Structures as (id, structure, labels) and failures as (id, where, reason)."""

    structures: list[tuple[str, "Structure", dict[str, float]]]
    failures: list[tuple[str, str, str]]


def read_structures(path: str | Path) -> ReadResult:
    """Every structure of a file, folder or archive; see ``iterate_rows`` for what is understood.

    Raises:
        ReadError: nothing there, or a kind of file that is not known.
    """
    result = ReadResult([], [])
    for row in iterate_rows(path):
        try:
            result.structures.append((row.id, parse_row(row), row.labels))
        except ReadError as error:
            result.failures.append((row.id, row.where, str(error)))
    return result


def parse_row(row: Row) -> "Structure":
    """Structure of one row.

    Raises:
        ReadError: the text cannot be read, or reading it would change the crystal; says why.
    """
    if row.error:
        raise ReadError(row.error)
    return parse_text(row.payload)


def iterate_rows(path: str | Path) -> Iterator[Row]:
    """Crystals of a file, in its order, with their labels.

    Understood: CSV with a column of CIF, POSCAR or pymatgen JSON text; CIF (several blocks are several
    crystals); POSCAR; extxyz; JSON of one or many pymatgen structures; each of them gzipped; folders, zip
    and tar archives of them. Of a folder with a ``whole_file`` that file alone is read. A file that ends
    too early gives the rows before its end and one failure.

    Raises:
        ReadError: nothing there, an empty folder, or a kind of file that is not known.
    """
    path = whole_file(Path(path).expanduser())
    if not path.exists():
        raise ReadError(f"expected a file or folder of crystals: {path} does not exist")
    found = False
    for name, content in _files(path):
        found = True
        yield from _rows_of_file(name, content)
    if not found:
        known = " ".join(_SUFFIXES)
        raise ReadError(f"expected crystal files ({known}, gzipped or not) in {path}: got none")


def whole_file(path: Path) -> Path:
    """The file that holds all crystals of a folder that ``sample`` or ``relax`` wrote; else the path."""
    return next((path / name for name in _WHOLE if (path / name).is_file()), path)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and (still compressed) contents of the crystal files at a path."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and _kind(file.name):
                yield str(file.relative_to(path)), file.read_bytes()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if _kind(name):
                    yield name, archive.read(name)
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda m: m.name):
                if member.isfile() and _kind(member.name):
                    yield member.name, archive.extractfile(member).read()  # type: ignore[union-attr]
    elif _kind(path.name):
        yield path.name, path.read_bytes()
    else:
        raise ReadError(
            f"expected a file ending in {', '.join(_SUFFIXES)} (or .gz), a folder, a zip or a tar archive: "
            f"got {path.name}; rename it to say what it holds"
        )


def _kind(name: str) -> str:
    """Suffix that says what a file holds; empty for files that hold no crystals."""
    pure = PurePosixPath(name)
    if pure.name.startswith(".") or "__MACOSX" in pure.parts:
        return ""
    stem = pure.name.lower().removesuffix(".gz")
    if stem.startswith(("poscar", "contcar")):
        return ".poscar"
    suffix = PurePosixPath(stem).suffix
    return suffix if suffix in _SUFFIXES else ""


def _rows_of_file(name: str, content: bytes) -> Iterator[Row]:
    kind = _kind(name)
    stem = PurePosixPath(name).name.removesuffix(".gz")
    stem = stem[: -len(kind)] if stem.lower().endswith(kind) else stem
    stream: io.BufferedIOBase = io.BytesIO(content)
    if content[:2] == b"\x1f\x8b":
        stream = gzip.GzipFile(fileobj=stream)
    done = 0
    try:
        if not content:
            raise ReadError("expected crystals: the file is empty")
        with io.TextIOWrapper(stream, encoding="utf-8", newline="" if kind in _TABLES else None) as text:
            for row in _READERS[kind](text, stem, name):
                yield row
                done += 1
    except ReadError as error:
        yield Row(stem, "", where=name, error=str(error))
    except _DAMAGED as error:
        reason = f"file is damaged or ends too early after {done} crystals ({error or type(error).__name__})"
        yield Row(f"{stem}-{done}", "", where=f"{name}, crystal {done}", error=f"{reason}; fetch it again")


def _csv_rows(stream: io.TextIOBase, _stem: str, name: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(stream)
    columns = list(reader.fieldnames or [])
    text_column = next((c for known in _TEXT_COLUMNS for c in columns if c.lower() == known), "")
    id_column = next((c for known in _ID_COLUMNS for c in columns if c.lower() == known), "")
    for number, record in enumerate(reader):
        if not text_column:
            text_column = next((c for c in columns if "_cell_length_a" in (record[c] or "")), "")
        if not text_column:
            raise ReadError(
                f"expected a column {', '.join(_TEXT_COLUMNS)} or one of CIF text: got columns {columns}"
            )
        text = record[text_column]
        yield Row(
            id=record[id_column] if id_column and record[id_column] else f"row-{number}",
            payload=text or "",
            labels=_labels({k: v for k, v in record.items() if k and k.lower() not in _TEXT_COLUMNS}),
            where=f"{name}, row {number}",
            error="" if text else f"no text in column {text_column!r}; the row is empty or cut off",
        )


def _labels(record: dict) -> dict[str, float]:
    """Everything numeric in a record, under our names."""
    labels = {}
    for key, value in record.items():
        if key.lower() in _NOT_LABELS or isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        try:
            number = float(value)
        except ValueError:
            continue
        if not math.isnan(number):
            labels[_LABEL_NAMES.get(key, key)] = number
    return labels


def _cif_rows(stream: io.TextIOBase, stem: str, name: str) -> Iterator[Row]:
    blocks: list[list[str]] = [[]]
    for line in stream:
        if line.lower().startswith("data_"):
            blocks.append([])
        blocks[-1].append(line)
    texts = ["".join(lines) for lines in blocks]
    crystals = [text for text in texts if "_cell_length_a" in text]
    if len(crystals) < 2:
        yield Row(stem, "".join(texts), where=name)
        return
    for number, text in enumerate(crystals):
        yield Row(f"{stem}-{number}", text, where=f"{name}, block {number}")


def _poscar_rows(stream: io.TextIOBase, stem: str, name: str) -> Iterator[Row]:
    yield Row(stem, stream.read(), where=name)


def _extxyz_rows(stream: io.TextIOBase, stem: str, name: str) -> Iterator[Row]:
    from ase.io.extxyz import key_val_str_to_dict

    number = 0
    while first := stream.readline():
        if not first.strip():
            continue
        try:
            count = int(first)
        except ValueError as error:
            raise ReadError(f"expected a number of atoms at frame {number}: got {first.strip()!r}") from error
        lines = [first, *(stream.readline() for _ in range(count + 1))]
        where = f"{name}, frame {number}"
        if not lines[-1].strip():
            yield Row(f"{stem}-{number}", "", where=where, error=f"frame cut off: expected {count} atoms")
            return
        info = key_val_str_to_dict(lines[1].strip())
        given = next((_as_written(lines[1], key) for key in _ID_COLUMNS if key in info), f"{stem}-{number}")
        yield Row(given, "".join(lines), _labels(info), where)
        number += 1


def _as_written(comment: str, key: str) -> str:
    """A value of an extxyz comment line as text: 000012 is a name, not the number 12."""
    found = re.search(rf'(?:^|\s){key}=(?:"([^"]*)"|(\S+))', comment)
    return (found[1] or found[2] or "") if found else ""


def _json_rows(stream: io.TextIOBase, stem: str, name: str) -> Iterator[Row]:
    loaded = json.load(stream)
    if isinstance(loaded, dict) and {"columns", "data"} <= set(loaded):  # a pandas table, orient "split"
        names = loaded.get("index", range(len(loaded["data"])))
        records = [
            {"id": str(key), **dict(zip(loaded["columns"], values, strict=False))}
            for key, values in zip(names, loaded["data"], strict=False)
        ]
    elif isinstance(loaded, list):
        records = loaded
    elif isinstance(loaded, dict) and not _is_crystal(loaded):
        records = [{"id": str(key), "structure": value} for key, value in loaded.items()]
    else:
        records = [loaded]
    for number, record in enumerate(records):
        where = f"{name}, item {number}"
        fallback = stem if len(records) == 1 else f"{stem}-{number}"
        if not isinstance(record, dict):
            error = f"expected a pymatgen structure: got {type(record).__name__}"
            yield Row(fallback, "", where=where, error="" if isinstance(record, str) else error)
            continue
        payload = (
            record if _is_crystal(record) else next((record[k] for k in _TEXT_COLUMNS if k in record), None)
        )
        known = isinstance(payload, str) or (isinstance(payload, dict) and _is_crystal(payload))
        error = (
            f"expected a pymatgen structure or a key {', '.join(_TEXT_COLUMNS)}: got keys {list(record)[:8]}"
        )
        yield Row(
            id=next((str(record[k]) for k in _ID_COLUMNS if record.get(k) is not None), fallback),
            payload=payload if known else "",  # type: ignore[arg-type]
            labels={} if payload is record else _labels(record),
            where=where,
            error="" if known else error,
        )


def _is_crystal(record: dict) -> bool:
    return {"lattice", "sites"} <= set(record)


_READERS = {
    ".csv": _csv_rows,
    ".cif": _cif_rows,
    ".extxyz": _extxyz_rows,
    ".xyz": _extxyz_rows,
    ".json": _json_rows,
    ".vasp": _poscar_rows,
    ".poscar": _poscar_rows,
}
