"""Crystals from anybody's files, with every unreadable item named.

`read_structures` accepts a folder, a zip or tar archive, CIF, POSCAR, extxyz, CSV with a CIF or POSCAR
column, pymatgen JSON or JSON lines, npz arrays, ASE databases and the `.pt` files of CDVAE and DiffCSP;
files may be gzipped. A folder that holds `crystals.extxyz` or `relaxed.extxyz` is read from that file alone.
`read_groups` takes a CSV table of several models apart.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from pymatgen.core import DummySpecies, Structure

from evaluation.reading.formats import RawItem, cut_groups, parse_item
from evaluation.reading.raw_items import raw_items


@dataclass(frozen=True)
class Sample:
    """One crystal and the name it goes by in its file."""

    id: str
    structure: Structure


@dataclass(frozen=True)
class Failure:
    """One item that is no crystal, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class ReadResult:
    """Everything found at a path.

    Attributes:
        samples: readable crystals, in the file's order.
        failures: unreadable items; they count as invalid in every share of validity.
        source: the path read.
        ignored: files of a folder or zip with no known structure suffix.
    """

    samples: tuple[Sample, ...]
    failures: tuple[Failure, ...]
    source: str
    ignored: tuple[str, ...] = ()

    @property
    def structures(self) -> list[Structure]:
        """The crystals without their names."""
        return [sample.structure for sample in self.samples]


def read_structures(
    path: Path | str, limit: int | None = None, workers: int = 1, seed: int | None = None
) -> ReadResult:
    """Read every crystal at a path.

    Args:
        path: file or folder, see above.
        limit: so many items at most, readable or not.
        workers: processes that parse.
        seed: with it the limit is a random draw, in the file's order; without it the first items. Files
            are often sorted, so that their first items are no fair sample.

    Raises:
        FileNotFoundError: when there is nothing at the path.
        ValueError: when the format is not known; the message lists those that are.
    """
    path = Path(path)
    ignored: list[str] = []
    items = raw_items(path, ignored)
    return _result(_limited(items, limit, seed), workers, str(path), ignored)


def read_groups(
    path: Path | str, column: str, limit: int | None = None, workers: int = 1, seed: int | None = None
) -> dict[str, ReadResult]:
    """Read a CSV table of several models, one result per value of a column, in order of appearance.

    Args:
        path: CSV, optionally gzipped, with a CIF or POSCAR column.
        column: says which model a row belongs to.
        limit: so many items of each model at most.
        workers: processes that parse.
        seed: as for `read_structures`.

    Raises:
        FileNotFoundError: when there is no file at the path.
        ValueError: when it is no CSV or has no such column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    groups: dict[str, list[RawItem]] = {}
    for item in cut_groups(path.name, path.read_bytes(), column):
        groups.setdefault(item.group, []).append(item)
    return {
        group: _result(_limited(items, limit, seed), workers, f"{path}, {column} {group}", [])
        for group, items in groups.items()
    }


def _limited(items: Iterable[RawItem], limit: int | None, seed: int | None) -> Iterator[RawItem]:
    if limit is None or seed is None:
        return islice(items, limit)
    listed = list(items)
    chosen = np.random.default_rng(seed).permutation(len(listed))[:limit]
    return iter([listed[k] for k in sorted(chosen.tolist())])


def _result(items: Iterator[RawItem], workers: int, source: str, ignored: list[str]) -> ReadResult:
    samples: list[Sample] = []
    failures: list[Failure] = []
    seen: dict[str, int] = {}
    for item, parsed in parsed_items(items, workers):
        if isinstance(parsed, str):
            failures.append(Failure(_unique(item.id, seen), parsed))
            continue
        for k, structure in enumerate(parsed):
            name = item.id if len(parsed) == 1 else f"{item.id}#{k}"
            problem = _problem(structure)
            if problem:
                failures.append(Failure(_unique(name, seen), problem))
            else:
                samples.append(Sample(_unique(name, seen), structure))
    return ReadResult(tuple(samples), tuple(failures), source, tuple(ignored))


def parsed_items(
    items: Iterator[RawItem], workers: int = 1
) -> Iterator[tuple[RawItem, list[Structure] | str]]:
    """Each raw item with its structures, or with the reason why there are none."""
    if workers <= 1:
        for item in items:
            yield item, _parse(item)
        return
    listed = list(items)
    with ProcessPoolExecutor(workers) as pool:
        yield from zip(listed, pool.map(_parse, listed, chunksize=64), strict=True)


def _parse(item: RawItem) -> list[Structure] | str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            structures = parse_item(item)
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:300]
    return structures or "no structure in it"


def _problem(structure: Structure) -> str:
    """Why a structure cannot be judged, or the empty string."""
    if not np.isfinite(structure.lattice.matrix).all():
        return "lattice is not finite"
    if not 1e-6 < structure.volume < np.inf:  # Å³
        return "a cell without volume"
    if max(structure.lattice.abc) > 1e5:
        return "a cell vector longer than 100,000 Å"
    if not np.isfinite(structure.frac_coords).all():
        return "coordinates are not finite"
    if np.abs(structure.frac_coords).max(initial=0) > 1e6:
        return "a coordinate beyond a million cells"
    if not structure.is_ordered:
        return "partial occupancies"
    if len(structure) == 0:
        return "no atoms"
    if any(isinstance(site.specie, DummySpecies) for site in structure):
        return "a site that is no element"
    return ""


def _unique(name: str, seen: dict[str, int]) -> str:
    """The name, numbered from its second appearance on."""
    seen[name] = seen.get(name, 0) + 1
    return name if seen[name] == 1 else f"{name}~{seen[name]}"


def as_read_result(structures: "Sequence[Structure] | ReadResult") -> ReadResult:
    """A plain list of structures as if it had been read; disordered or broken ones become failures.

    Each is named by its position, zero padded so that names sort like positions.
    """
    if isinstance(structures, ReadResult):
        return structures
    width = len(str(max(0, len(structures) - 1)))
    samples: list[Sample] = []
    failures: list[Failure] = []
    for index, structure in enumerate(structures):
        name = f"{index:0{width}d}"
        problem = _problem(structure)
        if problem:
            failures.append(Failure(name, problem))
        else:
            samples.append(Sample(name, structure))
    return ReadResult(tuple(samples), tuple(failures), "list of structures")
