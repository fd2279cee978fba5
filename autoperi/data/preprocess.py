"""Turn a file of crystals into flat arrays: parse and symmetrise in parallel, chunk by chunk, on disk.

A chunk that is done is never done again: an interrupted run goes on where it stopped. The cache is keyed
by the content of the input, the settings, and the versions of this code and of the libraries that it calls.
"""

import csv
import hashlib
import json
import warnings
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.progress import Progress

from autoperi.crystals import wyckoff
from autoperi.crystals.symmetry import SymmetriseConfig, SymmetriseError, symmetrise
from autoperi.data.cache import DAMAGED, cached, keep, versions, written_whole
from autoperi.data.names import one_line
from autoperi.data.reading import ReadError, Row, iterate_rows, parse_row, whole_file
from autoperi.data.workers import mapped

_SCHEMA = 2
"""Raise it when the meaning of the cached arrays or of a label changes."""
_CHUNK = 256
_IN_PROCESS = 64
"""So few rows are not worth starting other processes."""
_PER_CRYSTAL = ("space_group", "lattice_coords", "ids", "symprec", "labels")
_PER_SITE = ("wyckoff", "species", "free")


def prepare(
    file: Path, cache: Path, config: SymmetriseConfig, workers: int, progress: bool
) -> tuple[dict[str, np.ndarray], Path]:
    """Arrays of all crystals of a file, and the CSV file that lists what failed.

    Args:
        file: anything ``reading.iterate_rows`` understands.
        cache: folder for chunks and results; one that cannot be written costs a warning.
        config: tolerances.
        workers: processes; 1 stays in this one.
        progress: show a progress bar.

    Returns:
        The arrays of ``CrystalDataset`` with ``labels`` [crystals, names], ``label_names`` and ``failures``
        [failures, 3] (id, where, reason); and the path of the list of failures.
    """
    file = whole_file(file)
    stem = "".join(c if c.isalnum() else "-" for c in file.name.split(".")[0])
    folder = cache / "crystals" / f"{file.parent.name}-{stem}-{_key(file, config)}"
    result, report = folder / "crystals.npz", folder / "failures.csv"

    def make() -> dict[str, np.ndarray]:
        rows = list(iterate_rows(file))
        chunks = [(folder / f"chunk-{i:05d}.npz", rows[i : i + _CHUNK]) for i in range(0, len(rows), _CHUNK)]
        return _join([_arrays([], config), *_chunks(chunks, config, workers, progress, file.name)])

    def write(part: Path, arrays: dict[str, np.ndarray]) -> None:
        with written_whole(report) as table, table.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("id", "where", "reason"), *arrays["failures"].tolist()])
        _write(part, arrays)
        for chunk in folder.glob("chunk-*.npz"):
            chunk.unlink(missing_ok=True)

    return cached(result, _read, make, write), report


def _key(file: Path, config: SymmetriseConfig) -> str:
    made_with = versions("moyopy", "pymatgen")
    digest = hashlib.sha256(json.dumps([_SCHEMA, asdict(config), made_with], sort_keys=True).encode())
    digest.update(Path(wyckoff.__file__).with_name("wyckoff.npz").read_bytes())
    for part in sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]:
        digest.update(f"{part.name}\0{part.stat().st_size}\0".encode())
        digest.update(part.read_bytes())
    return digest.hexdigest()[:16]


def _chunks(
    chunks: list[tuple[Path, list[Row]]],
    config: SymmetriseConfig,
    workers: int,
    progress: bool,
    name: str,
) -> list[dict[str, np.ndarray]]:
    """Arrays of every chunk, those of an interrupted run too; a row that kills its process fails alone."""
    done = {path: arrays for path, rows in chunks if (arrays := _left_behind(path, len(rows))) is not None}
    waiting = [(path, rows) for path, rows in chunks if path not in done]
    todo, total = sum(len(rows) for _, rows in waiting), sum(len(rows) for _, rows in chunks)
    bar = Progress(transient=True) if progress and todo > _IN_PROCESS else None
    with bar or nullcontext():
        task = (
            bar.add_task(f"Symmetrising {escape(one_line(name))}", total=total, completed=total - todo)
            if bar
            else None
        )
        found = mapped(
            partial(_row, config=config),
            [row for _, rows in waiting for row in rows],
            workers if todo > _IN_PROCESS else 1,
            partial(_lost, config=config),
        )
        kept = len(chunks) > 1
        for path, rows in waiting:
            arrays = _join(list(islice(found, len(rows))))
            done[path] = arrays
            kept = kept and keep(path, partial(_write, arrays=arrays))
            if bar is not None and task is not None:
                bar.advance(task, len(arrays["ids"]) + len(arrays["failures"]))
    return [done[path] for path, _ in chunks]


def _left_behind(path: Path, rows: int) -> dict[str, np.ndarray] | None:
    try:
        arrays = _read(path)
    except DAMAGED:
        return None
    return arrays if len(arrays["ids"]) + len(arrays["failures"]) == rows else None


def _row(row: Row, config: SymmetriseConfig) -> dict[str, np.ndarray]:
    return _arrays([row], config)


def _lost(row: Row, reason: str, config: SymmetriseConfig) -> dict[str, np.ndarray]:
    return _arrays([replace(row, payload="", error=reason)], config)


def _arrays(rows: list[Row], config: SymmetriseConfig) -> dict[str, np.ndarray]:
    """Flat arrays of the rows that can be used, and the reasons of those that cannot."""
    done, failures = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in rows:
            try:
                done.append((row, symmetrise(parse_row(row), config)))
            except (ReadError, SymmetriseError) as error:
                failures.append((row.id, row.where, str(error)))
            except Exception as error:  # one bad row must not end the batch; it is named and counted
                failures.append((row.id, row.where, f"unexpected {type(error).__name__}: {error}"[:300]))
    names = sorted({key for row, _ in done for key in row.labels})
    empty = np.zeros((0, 3))
    return {
        "space_group": np.array([c.space_group for _, c in done], np.int64),
        "lattice_coords": np.array([c.lattice_coords for _, c in done], float).reshape(-1, 6),
        "site_start": np.cumsum([0, *(c.n_sites for _, c in done)]),
        "wyckoff": np.concatenate([np.zeros(0, np.int64), *(c.wyckoff for _, c in done)]),
        "species": np.concatenate([np.zeros(0, np.int64), *(c.species for _, c in done)]),
        "free": np.concatenate([empty, *(c.free for _, c in done)]),
        "ids": np.array([row.id for row, _ in done], dtype=str),
        "symprec": np.array([float(c.provenance["symprec"]) for _, c in done], float),
        "labels": np.array([[r.labels.get(k, np.nan) for k in names] for r, _ in done], float).reshape(
            len(done), len(names)
        ),
        "label_names": np.array(names, dtype=str),
        "failures": np.array(failures, dtype=str).reshape(-1, 3),
    }


def _join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    names = sorted({str(name) for part in parts for name in part["label_names"]})
    counts = np.concatenate([np.diff(part["site_start"]) for part in parts])
    labels = np.full((len(counts), len(names)), np.nan)
    row = 0
    for part in parts:
        columns = [names.index(str(name)) for name in part["label_names"]]
        labels[row : row + len(part["ids"]), columns] = part["labels"]
        row += len(part["ids"])
    plain = [key for key in (*_PER_CRYSTAL, *_PER_SITE, "failures") if key != "labels"]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in plain}
    joined |= {"site_start": np.cumsum([0, *counts]), "labels": labels}
    return joined | {"label_names": np.array(names, dtype=str)}


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Arrays as they were written; raises one of ``DAMAGED`` if they are not all there or disagree."""
    with np.load(path, allow_pickle=False) as data:
        arrays = {
            key: data[key] for key in (*_PER_CRYSTAL, *_PER_SITE, "site_start", "label_names", "failures")
        }
    crystals, sites = len(arrays["ids"]), int(arrays["site_start"][-1])
    shapes = {
        **dict.fromkeys(_PER_CRYSTAL, (crystals,)),
        **dict.fromkeys(_PER_SITE, (sites,)),
        "site_start": (crystals + 1,),
    }
    wrong = [key for key, shape in shapes.items() if arrays[key].shape[:1] != shape]
    if wrong or arrays["labels"].shape[1:] != arrays["label_names"].shape:
        raise ValueError(
            f"expected {crystals} crystals of {sites} sites: got other lengths of {wrong or 'labels'}"
        )
    return arrays
