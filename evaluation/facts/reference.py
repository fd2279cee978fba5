"""The reference set of a comparison: facts of each crystal, and each crystal on demand."""

import functools
import hashlib
import importlib.metadata
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from autoperi.data.reading import ReadError, Row, as_read_result, iterate_rows, parse_row
from autoperi.data.workers import mapped
from evaluation.facts.description import describe, table_from_rows
from evaluation.facts.symmetry import MP20_TOLERANCES, SymmetrySettings

_Record = tuple[np.ndarray, np.ndarray, np.ndarray, dict]
_SETS = ("mp_20", "perov_5", "carbon_24")
_NAMED = {name: f"{name}/train" for name in _SETS} | {
    f"{name}/{split}": f"{name}/{split}" for name in _SETS for split in ("train", "val", "test")
}
_LAYOUT = 5  # raise it when the columns or the arrays change: old caches are then left alone


@dataclass(frozen=True)
class ReferenceSettings:
    """Where a reference is found and kept.

    Attributes:
        data_dir: folder that holds `mp_20/train.csv.gz` and the like; by default the environment
            variable AUTOPERI_DATA, then `~/.cache/autoperi/data`.
        cache_dir: where computed facts are kept; by default `~/.cache/autoperi/evaluation`
            (under XDG_CACHE_HOME when that is set).
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
        self._ends = np.cumsum(arrays["n"])

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.table)

    def __str__(self) -> str:
        """Name, size and digest."""
        return f"{self.name} ({len(self)} crystals, sha256 {self.digest[:12]})"

    def structure(self, index: int) -> Structure:
        """Crystal number `index`."""
        end, count = self._ends[index], self._arrays["n"][index]
        atoms = slice(end - count, end)
        return Structure(
            self._arrays["cell"][index],
            self._arrays["z"][atoms].tolist(),
            self._arrays["frac"][atoms],
        )

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
        digest = hashlib.sha256(b"".join(arrays[k].tobytes() for k in sorted(arrays))).hexdigest()
        return cls(name, digest, table_from_rows(rows), arrays, len(result.failures))


def load_reference(
    source: str | Path = "mp_20", settings: ReferenceSettings = ReferenceSettings()
) -> Reference:
    """A reference by name (`mp_20`, `perov_5`, `carbon_24`: their train splits; `mp_20/test`) or a file.

    The first time every crystal is described and kept in the cache, under the hash of the input, so
    a changed file is never mistaken for the old one; later loads take a second.

    Raises:
        FileNotFoundError: when the data is nowhere to be found; the message says what to do.
    """
    path = _locate(str(source), settings)
    digest = _digest(path)
    name = _NAMED[str(source)].replace("/", " ") if str(source) in _NAMED else path.name
    tolerance = f"{settings.symmetry.loose}-{settings.symmetry.tight}"
    version = importlib.metadata.version("moyopy")
    folder = _cache_dir(settings) / f"{digest[:20]}-{_LAYOUT}-moyopy{version}-{tolerance}"
    table_file, array_file = folder / "table.parquet", folder / "crystals.npz"
    if not (table_file.exists() and array_file.exists()):
        _build(path, folder, settings)
    with np.load(array_file, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    unreadable = int(arrays.pop("unreadable"))
    return Reference(name, digest, pd.read_parquet(table_file), arrays, unreadable, path)


def held_out(name: str) -> str | None:
    """The test split beside a training split, both as they are named; None for any other reference."""
    return next((f"{known}/test" for known in _SETS if name == f"{known} train"), None)


def data_folder() -> Path:
    """Where data sets are looked for when no folder is named: AUTOPERI_DATA, else the cache."""
    named = os.environ.get("AUTOPERI_DATA")
    return Path(named) if named else _user_cache() / "data"


def _build(path: Path, folder: Path, settings: ReferenceSettings) -> None:
    """Describe every crystal at a path and store the result; a broken-off build leaves nothing."""
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
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"partial-{os.getpid()}.npz"
    np.savez(partial, unreadable=np.array(unreadable), **arrays)  # type: ignore[arg-type]
    table_from_rows(facts).to_parquet(folder / "table.parquet", index=False)
    partial.replace(folder / "crystals.npz")


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
    """Species, positions, cell and facts: plain arrays travel between processes faster."""
    numbers = np.array(structure.atomic_numbers, dtype=np.int16)
    return numbers, structure.frac_coords, structure.lattice.matrix, describe(structure, symmetry)


def _collect(records: list[_Record]) -> tuple[list[dict], dict[str, np.ndarray]]:
    rows = [row for *_, row in records]
    arrays = {
        "z": np.concatenate([np.zeros(0, dtype=np.int16), *(numbers for numbers, *_ in records)]),
        "frac": np.concatenate([np.zeros((0, 3)), *(frac for _, frac, *_ in records)]),
        "n": np.array([row["n_sites"] for row in rows], dtype=np.int64),
        "cell": np.array([cell for *_, cell, _ in records], dtype=float).reshape(-1, 3, 3),
    }
    return rows, arrays


def _locate(source: str, settings: ReferenceSettings) -> Path:
    if source not in _NAMED:
        path = Path(source)
        if path.exists():
            return path
        raise FileNotFoundError(
            f"no reference {source!r}: expected one of {sorted(_NAMED)} or a path that exists"
        )
    folder = Path(settings.data_dir) if settings.data_dir else data_folder()
    for suffix in (".csv.gz", ".csv"):
        path = folder / f"{_NAMED[source]}{suffix}"
        if path.exists():
            return path
    raise FileNotFoundError(
        f"no {_NAMED[source]}.csv or .csv.gz under {folder}: set AUTOPERI_DATA or pass data_dir"
    )


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "autoperi"


def cache_folder() -> Path:
    """Where computed facts are kept: `~/.cache/autoperi/evaluation`, or under XDG_CACHE_HOME."""
    return _user_cache() / "evaluation"


def _cache_dir(settings: ReferenceSettings) -> Path:
    return Path(settings.cache_dir) if settings.cache_dir else cache_folder()


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
