"""Crystals from anybody's files, with every unreadable item named.

Reading is in two steps so that the slow one can run in other processes: ``iterate_rows`` finds the crystals
of a path and their labels, ``parse_row`` turns one of them into a structure. Nothing is lost on the way:
what cannot be read is a row too, and ``parse_row`` says what is wrong with it.
"""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoperi.data.reading.binary import db_rows, npz_rows, pt_rows
from autoperi.data.reading.cif import parse_cif
from autoperi.data.reading.cif_syntax import crystal_blocks
from autoperi.data.reading.containers import (
    DAMAGED,
    SUFFIXES,
    CrystalFile,
    as_text,
    crystal_files,
    whole_file,
)
from autoperi.data.reading.extxyz import FRAME, extxyz_rows, parse_extxyz
from autoperi.data.reading.json_records import json_rows, jsonl_rows, parse_dictionary, structure_of
from autoperi.data.reading.poscar import parse_poscar
from autoperi.data.reading.rows import (
    MAX_TEXT,
    NoCrystalsError,
    ReadError,
    Row,
    crystal,
    fault,
    one_line,
    uniquely_named,
)
from autoperi.data.reading.tables import ID_PROP, csv_rows, labels_of, listed_labels, records

if TYPE_CHECKING:
    from pymatgen.core import Structure

_NAMED = 8
"""Files that were not read, named in one warning."""


@dataclass(frozen=True)
class Sample:
    """One crystal, the name it goes by, its labels and its place (file and position, for messages)."""

    id: str
    structure: "Structure"
    labels: dict[str, float] | None = None
    where: str = ""


@dataclass(frozen=True)
class Failure:
    """One item that is no crystal, why, and its place."""

    id: str
    reason: str
    where: str = ""


@dataclass(frozen=True)
class ReadResult:
    """Everything found at a path.

    Attributes:
        samples: readable crystals, in the file's order.
        failures: unreadable items; they count as invalid in every share of validity.
        source: the path read.
        ignored: files of a folder or archive that hold no crystals.
    """

    samples: tuple[Sample, ...]
    failures: tuple[Failure, ...]
    source: str
    ignored: tuple[str, ...] = ()

    @property
    def structures(self) -> "list[Structure]":
        """The crystals without their names."""
        return [sample.structure for sample in self.samples]


def read_structures(path: str | Path, limit: int | None = None, seed: int | None = None) -> ReadResult:
    """Read every crystal of a file, folder or archive; see ``iterate_rows`` for what is understood.

    Args:
        path: file or folder.
        limit: so many items at most, readable or not.
        seed: with it the limit is a random draw, in the file's order; without it the first items. Files
            are often sorted, so that their first items are no fair sample.

    Raises:
        FileNotFoundError: when there is nothing at the path.
        ReadError: not one item, or a kind of file that is not known.
    """
    ignored: list[str] = []
    rows = iterate_rows(path, ignored)
    return _parsed(_limited(rows, limit, seed), str(path), ignored)


def read_groups(
    path: str | Path, column: str, limit: int | None = None, seed: int | None = None
) -> dict[str, ReadResult]:
    """Read a CSV table of several models, one result per value of a column, in order of appearance.

    Args:
        path: CSV, optionally compressed, with a column of crystals.
        column: says which model a row belongs to.
        limit: so many items of each model at most.
        seed: as for `read_structures`.

    Raises:
        FileNotFoundError: when there is no file at the path.
        ReadError: when it is no CSV or has no such column.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    file = next(crystal_files(path))
    if file.kind != ".csv":
        raise ReadError(f"only a CSV table has columns to split by: got {path.name}")
    groups: dict[str, list[Row]] = {}
    with file.open() as stream:
        for record, row in records(as_text(stream, newline=""), file.stem, file.name):
            if column not in record:
                raise ReadError(f"no column {column!r} in {path.name}: expected one of {list(record)}")
            groups.setdefault(record[column], []).append(row)
    return {
        group: _parsed(_limited(uniquely_named(iter(rows)), limit, seed), f"{path}, {column} {group}", [])
        for group, rows in groups.items()
    }


def _limited(rows: Iterable[Row], limit: int | None, seed: int | None) -> Iterator[Row]:
    if limit is None or seed is None:
        return islice(rows, limit)
    listed = list(rows)
    chosen = np.random.default_rng(seed).permutation(len(listed))[:limit]
    return iter([listed[k] for k in sorted(chosen.tolist())])


def _parsed(rows: Iterable[Row], source: str, ignored: list[str]) -> ReadResult:
    samples: list[Sample] = []
    failures: list[Failure] = []
    for row in rows:
        try:
            samples.append(Sample(row.id, parse_row(row), row.labels, row.where))
        except ReadError as error:
            failures.append(Failure(row.id, str(error), row.where))
    return ReadResult(tuple(samples), tuple(failures), source, tuple(ignored))


def parse_row(row: Row) -> "Structure":
    """Structure of one row: plain elements on fully occupied sites.

    Raises:
        ReadError: it cannot be read, or reading it would change the crystal; says why.
    """
    if row.error:
        raise ReadError(row.error)
    return _guarded(row.payload)


def parse_text(text: str) -> "Structure":
    """Structure from text: CIF, POSCAR, an extxyz frame or a dictionary, told apart by what it contains.

    Raises:
        ReadError: unreadable, cut off or contradicting itself, unknown elements, partial occupancies.
    """
    return _guarded(text)


def _guarded(payload: Any) -> "Structure":
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(payload, str):
                return _from_text(payload)
            if isinstance(payload, dict):
                return structure_of(payload)
            z, frac, cell = payload
            return crystal(cell, z, frac)
    except ReadError as error:
        raise ReadError(one_line(str(error))) from error
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, MemoryError) as error:
        text = one_line(f"{type(error).__name__} {error}")[:300]
        raise ReadError(f"cannot be read as a crystal: {text}") from error


def _from_text(text: str) -> "Structure":
    if len(text) > MAX_TEXT:
        raise ReadError(f"expected {MAX_TEXT} characters at most of one crystal: got more")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    start = text.lstrip()[:200]
    if not start:
        raise ReadError("expected the text of a crystal: got none")
    if start.startswith("{"):
        return parse_dictionary(text)
    if "_cell_length_a" in text or "_cell.length_a" in text:
        return parse_cif(text.replace("\r", "\n"))
    if FRAME.match(text[:10_000]):
        return parse_extxyz(text)
    if "_atom_site_" in text or start.startswith(("data_", "#", "loop_")):
        raise ReadError("expected a CIF with _cell_length_a: got none; the text is cut off or is no CIF")
    return parse_poscar(text.replace("\r", "\n"))


def iterate_rows(path: str | Path, ignored: list[str] | None = None) -> Iterator[Row]:
    """Crystals of a file, folder or archive, in its order, with their labels; no name occurs twice.

    Understood: CSV with a column of CIF, POSCAR or dictionaries; CIF and magnetic CIF (several blocks are
    several crystals); POSCAR; extxyz; JSON and JSON lines of pymatgen, ASE, JARVIS and OPTIMADE; npz arrays;
    ASE databases; the `.pt` files of CDVAE and DiffCSP; each of them compressed; folders, zip and tar
    archives of them; CGCNN's folder with an ``id_prop.csv``. Of a folder with a ``whole_file`` that file
    alone is read. A file that ends too early gives the rows before its end and one failure.

    What a folder or an archive holds and was not read is named in a warning.

    Args:
        path: file, folder or archive.
        ignored: takes the names of the files that hold no crystals.

    Raises:
        FileNotFoundError: nothing there.
        ReadError: not one item, or a kind of file that is not known.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"expected a file or folder of crystals: {one_line(str(path))} does not exist"
        )
    path = whole_file(path)
    unread: list[str] = [] if ignored is None else ignored
    found = False
    for row in uniquely_named(_rows(path, unread)):
        found = True
        yield row
    if unread:
        more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        warnings.warn(f"not read in {path.name}: {', '.join(unread[:_NAMED])}{more}", stacklevel=2)
    if not found:
        known = " ".join(SUFFIXES)
        raise ReadError(f"expected crystals ({known}, compressed or not) in {one_line(str(path))}: got none")


def _rows(path: Path, unread: list[str]) -> Iterator[Row]:
    several = path.is_dir()
    listed: dict[str, dict[str, float]] = {}
    if several and (path / ID_PROP).is_file():
        with (path / ID_PROP).open("rb") as stream:
            listed = listed_labels(as_text(stream, newline=""))
    files = iter(crystal_files(path))
    named = set()
    number = 0
    while True:
        try:
            file = next(files, None)
        except (*DAMAGED, ReadError) as error:  # a torn archive ends what can be listed
            if isinstance(error, ReadError) and not number:
                raise
            where = f"{path.name} after file {number}"
            yield Row(path.name, "", where=where, error=f"damaged archive: {error or type(error).__name__}")
            break
        if file is None:
            break
        number += 1
        several = several or file.name != one_line(path.name)
        if not file.kind or file.why_not or (listed and file.name == ID_PROP):
            if file.name != ID_PROP or not listed:
                unread.append(f"{file.name} ({file.why_not})" if file.why_not else file.name)
            continue
        given = labels_of(file.name, listed)
        try:
            row = None
            for row in _rows_of_file(file):
                yield row if given is None else Row(given[0], row.payload, given[1], row.where, row.error)
            if row is None and several:
                raise NoCrystalsError("expected crystals: got none")
        except NoCrystalsError as error:
            if several:
                unread.append(f"{file.name} (no crystals in it)")
            else:
                yield Row(file.stem, "", where=file.name, error=str(error))
        if given is not None:
            named.add(given[0])
    for name in listed.keys() - named:
        yield Row(name, "", where=ID_PROP, error=f"listed in {ID_PROP}, but there is no such file")


def _rows_of_file(file: CrystalFile) -> Iterator[Row]:
    done = 0
    try:
        with file.open() as stream:
            if not stream.peek(1):  # type: ignore[attr-defined]  # every opener gives a buffered reader
                raise ReadError("expected crystals: the file is empty")
            for row in _READERS[file.kind](stream, file.stem, file.name):
                yield row
                done += 1
    except NoCrystalsError:
        raise
    except ReadError as error:
        yield Row(f"{file.stem}-{done}" if done else file.stem, "", where=file.name, error=str(error))
    except Exception as error:  # parsers of arrays and archives raise anything; what follows is lost with it
        cause = one_line(f"{error or type(error).__name__}")[:200]
        reason = f"file is damaged or ends too early after {done} crystals ({cause}); fetch it again"
        where = f"{file.name}, crystal {done}" if done else file.name
        yield Row(f"{file.stem}-{done}" if done else file.stem, "", where=where, error=reason)


def _cif_rows(stream: io.BufferedIOBase, stem: str, name: str) -> Iterator[Row]:
    texts = list(crystal_blocks(as_text(stream)))
    several = len(texts) > 1
    for k, text in enumerate(texts):
        yield Row(f"{stem}-{k}" if several else stem, text, where=f"{name}, block {k}" if several else name)


def _poscar_rows(stream: io.BufferedIOBase, stem: str, name: str) -> Iterator[Row]:
    yield Row(stem, as_text(stream).read(MAX_TEXT + 1), where=name)


def _of_text(
    rows: Callable[[io.TextIOBase, str, str], Iterator[Row]], newline: str | None = None
) -> Callable[[io.BufferedIOBase, str, str], Iterator[Row]]:
    return lambda stream, stem, name: rows(as_text(stream, newline), stem, name)


_READERS: dict[str, Callable[[io.BufferedIOBase, str, str], Iterator[Row]]] = {
    ".csv": _of_text(csv_rows, ""),
    ".cif": _cif_rows,
    ".mcif": _cif_rows,
    ".extxyz": _of_text(extxyz_rows, "\n"),
    ".xyz": _of_text(extxyz_rows, "\n"),
    ".json": _of_text(json_rows),
    ".jsonl": _of_text(jsonl_rows, "\n"),
    ".vasp": _poscar_rows,
    ".poscar": _poscar_rows,
    ".npz": npz_rows,
    ".pt": pt_rows,
    ".db": db_rows,
}


def as_read_result(structures: Sequence[Any] | ReadResult) -> ReadResult:
    """Crystals at hand as if they had been read; an item that is none becomes a failure that says so.

    Each is named by its position, zero padded so that names sort like positions. Charges and spins are
    dropped: a crystal is its elements in their places.

    Args:
        structures: pymatgen structures, ASE atoms, crystals of this package, or what was read.
    """
    if isinstance(structures, ReadResult):
        return structures
    width = len(str(max(0, len(structures) - 1)))
    samples: list[Sample] = []
    failures: list[Failure] = []
    for index, item in enumerate(structures):
        name = f"{index:0{width}d}"
        try:
            samples.append(Sample(name, _as_structure(item)))
        except ReadError as error:
            failures.append(Failure(name, str(error)))
    return ReadResult(tuple(samples), tuple(failures), "list of structures")


def _as_structure(item: Any) -> "Structure":
    from ase import Atoms
    from pymatgen.core import Element, Structure

    from autoperi.crystals.crystal import Crystal

    if isinstance(item, Atoms):
        if item.cell.rank < 3:
            raise ReadError("expected a periodic crystal: got ASE atoms without a three-dimensional cell")
        return crystal(item.cell.array, item.numbers, item.get_scaled_positions(wrap=False))
    if isinstance(item, Crystal):
        lattice, frac, species = item.expand()
        return crystal(lattice, species, frac)
    if not isinstance(item, Structure):
        raise ReadError(
            f"expected a crystal (pymatgen Structure, ASE Atoms or Crystal): got {type(item).__name__}"
        )
    if reason := fault(item.lattice.matrix, item.frac_coords):
        raise ReadError(reason)
    if not item.is_ordered:
        raise ReadError("partial occupancies")
    if all(isinstance(site.specie, Element) and site.specie.name not in ("D", "T") for site in item):
        return item
    return crystal(
        item.lattice.matrix, np.array([getattr(site.specie, "Z", 0) for site in item]), item.frac_coords
    )
