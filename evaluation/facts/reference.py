"""The reference set of a comparison: facts of each crystal, and each crystal on demand."""

import functools
import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from autoperi.data.cache import cache_folder, cached, versions
from autoperi.data.download import DATASETS, SPLITS, dataset_file
from autoperi.data.reading import ReadError, Row, as_read_result, iterate_rows, parse_row
from autoperi.data.workers import mapped
from evaluation.facts.description import COLUMNS, describe, table_from_rows
from evaluation.facts.matching import anonymous_cell
from evaluation.facts.symmetry import MP20_TOLERANCES, SymmetrySettings

_Atoms = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Species, positions, cell: plain arrays travel between processes faster."""
_Record = tuple[_Atoms, _Atoms, dict]
"""A crystal, its anonymous cell, and its facts."""
_Facts = tuple[pd.DataFrame, dict[str, np.ndarray], int]
_NAMED = {name: (name, "train") for name in DATASETS} | {
    f"{name}/{split}": (name, split) for name in DATASETS for split in SPLITS
}
_KINDS = ("", "anonymous_")
_PARTS = ("z", "frac", "n", "cell")
_LAYOUT = 6  # raise it when the columns or the arrays change: old caches are then left alone


@dataclass(frozen=True)
class ReferenceSettings:
    """Where a reference is found and kept.

    Attributes:
        data_dir: folder that holds `mp_20/train.csv.gz` and the like; by default that of AUTOPERI_DATA,
            else what is missing is downloaded (`dataset_file`).
        cache_dir: where computed facts are kept; by default `evaluation` in the cache folder.
        symmetry: tolerances of the space groups.
        workers: processes used the first time.
    """

    data_dir: Path | None = None
    cache_dir: Path | None = None
    symmetry: SymmetrySettings = field(default_factory=SymmetrySettings)
    workers: int = 1


class Reference:
    """A set of crystals to compare with.

    Attributes:
        name: as printed beside every figure.
        digest: SHA-256 of the file it came from, or of the crystals.
        table: one row of `describe` per crystal.
    """

    def __init__(
        self,
        name: str,
        digest: str,
        table: pd.DataFrame,
        arrays: dict[str, np.ndarray],
        unreadable: int = 0,
        path: Path | None = None,
    ) -> None:
        """Use `load_reference` or `Reference.from_structures`."""
        self.name = name
        self.digest = digest
        self.table = table
        self.unreadable = unreadable
        self._path = path
        self._arrays = arrays
        self._ends = {kind: np.cumsum(arrays[f"{kind}n"]) for kind in _KINDS}

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.table)

    def __str__(self) -> str:
        """Name, size and digest."""
        return f"{self.name} ({len(self)} crystals, sha256 {self.digest[:12]})"

    def structure(self, index: int) -> Structure:
        """Crystal number `index`."""
        return self._structure("", index)

    def anonymous(self, index: int) -> Structure:
        """Its `anonymous_cell`, without an atom where there is none."""
        return self._structure("anonymous_", index)

    @property
    def anonymous_cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every `anonymous` cell the lattice vectors [n, 3, 3], Å, and the number of atoms [n]."""
        return self._arrays["anonymous_cell"], self._arrays["anonymous_n"]

    def _structure(self, kind: str, index: int) -> Structure:
        end, count = self._ends[kind][index], self._arrays[f"{kind}n"][index]
        atoms = slice(end - count, end)
        z, frac = self._arrays[f"{kind}z"], self._arrays[f"{kind}frac"]
        return Structure(self._arrays[f"{kind}cell"][index], z[atoms].tolist(), frac[atoms])

    @cached_property
    def genes(self) -> frozenset[str]:
        """The genes that occur."""
        return frozenset(self.table["gene"].dropna())

    @cached_property
    def space_groups(self) -> Counter:
        """How often each space group occurs at the loose tolerance."""
        return Counter(self.table["space_group_loose"].dropna().astype(int))

    @cached_property
    def formation_energies(self) -> np.ndarray:
        """Labels of the table it came from, eV/atom, where that has a column of them; else nothing."""
        column = "formation_energy_per_atom"
        if self._path is None or ".csv" not in self._path.suffixes:
            return np.zeros(0)
        table = pd.read_csv(self._path, usecols=lambda name: name == column)
        return table[column].dropna().to_numpy(dtype=float) if column in table else np.zeros(0)

    @classmethod
    def from_structures(
        cls,
        structures: Sequence[Structure],
        name: str = "own",
        symmetry: SymmetrySettings = MP20_TOLERANCES,
    ) -> "Reference":
        """A reference of crystals at hand, not cached."""
        result = as_read_result(structures)
        rows, arrays = _collect([_record(s.structure, symmetry) for s in result.samples])
        digest = hashlib.sha256(b"".join(arrays[k].tobytes() for k in sorted(_PARTS))).hexdigest()
        return cls(name, digest, table_from_rows(rows), arrays, len(result.failures))


def load_reference(
    source: str | Path = "mp_20", settings: ReferenceSettings = ReferenceSettings()
) -> Reference:
    """A reference by name (a public data set: its train split; or `mp_20/test`) or a file.

    The first time every crystal is described and kept in the cache, under the hash of the input, so
    a changed file is never mistaken for the old one; later loads take a second.

    Raises:
        FileNotFoundError: when the data is nowhere to be found; the message says what to do.
        DownloadError: when it is not at hand and cannot be fetched.
        ReadError: when nothing in it can be read as a crystal.

    Warns:
        UserWarning: when some of it cannot.
    """
    path = _locate(str(source), settings)
    digest = _digest(path)
    name = " ".join(_NAMED[str(source)]) if str(source) in _NAMED else path.name
    tolerance = f"{settings.symmetry.loose}-{settings.symmetry.tight}"
    made_with = "-".join(f"{library}{version}" for library, version in versions("moyopy", "pymatgen").items())
    folder = settings.cache_dir or cache_folder() / "evaluation"
    file = folder / f"{digest[:20]}-{_LAYOUT}-{made_with}-{tolerance}.npz"
    table, arrays, unreadable = cached(file, _read, lambda: _build(path, settings), _write)
    if table.empty:
        raise ReadError(f"expected crystals to compare with in {path}: got {unreadable} unreadable items")
    if unreadable:
        told = f"{unreadable} of {unreadable + len(table)} crystals of the reference {path}"
        warnings.warn(f"{told} could not be read: they are not compared with", stacklevel=2)
    return Reference(name, digest, table, arrays, unreadable, path)


def held_out(name: str) -> str | None:
    """The test split beside a training split, both as they are named; None for any other reference."""
    return next((f"{known}/test" for known in DATASETS if name == f"{known} train"), None)


def _build(path: Path, settings: ReferenceSettings) -> _Facts:
    """Describe every crystal at a path."""
    from rich.progress import track

    rows = list(iterate_rows(path))
    described = _described(rows, settings)
    progress = track(described, total=len(rows), description=f"reading {path.name} once")
    kept: list[_Record] = []
    unreadable = 0
    for record in progress:
        if record is None:
            unreadable += 1
        else:
            kept.append(record)
    facts, arrays = _collect(kept)
    return table_from_rows(facts), arrays, unreadable


def _write(file: Path, facts: _Facts) -> None:
    """One file, so that the table and the crystals cannot part."""
    table, arrays, unreadable = facts
    parquet = np.frombuffer(table.to_parquet(index=False), dtype=np.uint8)
    with file.open("wb") as stream:
        np.savez(stream, allow_pickle=False, table=parquet, unreadable=np.array(unreadable), **arrays)


def _read(file: Path) -> _Facts:
    """Facts as they were written; raises KeyError or ValueError if parts are missing or disagree."""
    with np.load(file, allow_pickle=False) as stored:
        arrays = {kind + part: stored[kind + part] for kind in _KINDS for part in _PARTS}
        table = pd.read_parquet(io.BytesIO(stored["table"].tobytes()))
        unreadable = int(stored["unreadable"])
    lengths = {key: len(values) for key, values in arrays.items()}
    expected = {}
    for kind in _KINDS:
        atoms = int(arrays[f"{kind}n"].sum())
        expected |= dict(
            zip((kind + part for part in _PARTS), (atoms, atoms, len(table), len(table)), strict=True)
        )
    if lengths != expected or list(table) != list(COLUMNS):
        raise ValueError(f"expected {len(table)} crystals, and as many atoms as they have: got {lengths}")
    return table, arrays, unreadable


def _described(rows: list[Row], settings: ReferenceSettings) -> Iterator[_Record | None]:
    describe_row = functools.partial(_describe_row, symmetry=settings.symmetry)
    yield from mapped(describe_row, rows, settings.workers, lambda *_: None, together=128)


def _describe_row(row: Row, symmetry: SymmetrySettings) -> _Record | None:
    """A crystal with its facts; None when it cannot be read."""
    try:
        return _record(parse_row(row), symmetry)
    except ReadError:
        return None


def _record(structure: Structure, symmetry: SymmetrySettings) -> _Record:
    """A crystal with its anonymous cell and its facts."""
    try:
        anonymous = _atoms(anonymous_cell(structure))
    except Exception:  # pymatgen's reductions fail in many ways; a cell that has none matches nothing
        anonymous = np.zeros(0, dtype=np.int16), np.zeros((0, 3)), np.eye(3)
    return _atoms(structure), anonymous, describe(structure, symmetry)


def _atoms(structure: Structure) -> _Atoms:
    numbers = np.array(structure.atomic_numbers, dtype=np.int16)
    return numbers, structure.frac_coords, structure.lattice.matrix


def _collect(records: list[_Record]) -> tuple[list[dict], dict[str, np.ndarray]]:
    arrays = {}
    for kind, crystals in zip(_KINDS, ([r[0] for r in records], [r[1] for r in records]), strict=True):
        parts = (
            np.concatenate([np.zeros(0, dtype=np.int16), *(z for z, _, _ in crystals)]),
            np.concatenate([np.zeros((0, 3)), *(frac for _, frac, _ in crystals)]),
            np.array([len(z) for z, _, _ in crystals], dtype=np.int64),
            np.array([cell for _, _, cell in crystals], dtype=float).reshape(-1, 3, 3),
        )
        arrays |= dict(zip((kind + part for part in _PARTS), parts, strict=True))
    return [facts for _, _, facts in records], arrays


def _locate(source: str, settings: ReferenceSettings) -> Path:
    if source not in _NAMED:
        path = Path(source)
        if path.exists():
            return path
        raise FileNotFoundError(
            f"no reference {source!r}: expected one of {sorted(_NAMED)} or a path that exists"
        )
    return dataset_file(*_NAMED[source], settings.data_dir)


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
