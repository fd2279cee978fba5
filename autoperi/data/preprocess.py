"""Turn a file of crystals into flat arrays: parse and symmetrise in parallel, chunk by chunk, on disk.

A chunk that is done is never done again: an interrupted run goes on where it stopped. The cache is keyed
by the content of the input, the settings and the version of this code.
"""

import csv
import hashlib
import json
import multiprocessing
import os
import sys
import warnings
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from autoperi.crystals import wyckoff
from autoperi.crystals.symmetry import SymmetriseConfig, SymmetriseError, symmetrise
from autoperi.data.readers import Row, iterate_rows, parse_row, whole_file
from autoperi.data.structure_text import ReadError

_SCHEMA = 1
"""Raise it when the meaning of the cached arrays or of a label changes."""
_CHUNK = 256
_IN_PROCESS = 64
"""So few rows are not worth starting other processes."""


def prepare(
    file: Path, cache: Path, config: SymmetriseConfig, workers: int, progress: bool
) -> tuple[dict[str, np.ndarray], Path]:
    """Arrays of all crystals of a file, and the CSV file that lists what failed.

    Args:
        file: anything ``readers.iterate_rows`` understands.
        cache: folder for chunks and results.
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
    if not result.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = list(iterate_rows(file))
        chunks = [(folder / f"chunk-{i:05d}.npz", rows[i : i + _CHUNK]) for i in range(0, len(rows), _CHUNK)]
        _process([c for c in chunks if not c[0].exists()], config, workers, progress, file.name, len(rows))
        try:
            arrays = _merge([path for path, _ in chunks])
        except FileNotFoundError:
            if not result.exists():  # another process that prepared the same file has finished it
                raise
        else:
            with report.open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows([("id", "where", "reason"), *arrays["failures"].tolist()])
            _save(result, arrays)
        for path, _ in chunks:
            path.unlink(missing_ok=True)
    with np.load(result, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}, report


def _key(file: Path, config: SymmetriseConfig) -> str:
    digest = hashlib.sha256(json.dumps([_SCHEMA, asdict(config)], sort_keys=True).encode())
    digest.update(Path(wyckoff.__file__).with_name("wyckoff.npz").read_bytes())
    for part in sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]:
        digest.update(f"{part.name}\0{part.stat().st_size}\0".encode())
        digest.update(part.read_bytes())
    return digest.hexdigest()[:16]


def _process(
    chunks: list[tuple[Path, list[Row]]],
    config: SymmetriseConfig,
    workers: int,
    progress: bool,
    name: str,
    total: int,
) -> None:
    """Write every chunk; a row that kills its process is a failure of that row only."""
    todo = sum(len(rows) for _, rows in chunks)
    bar = Progress(transient=True) if progress and todo > _IN_PROCESS else None
    with bar or nullcontext():
        task = bar.add_task(f"Symmetrising {name}", total=total, completed=total - todo) if bar else None

        def advance(rows: list[Row]) -> None:
            if bar is not None and task is not None:
                bar.advance(task, len(rows))

        if workers < 2 or todo <= _IN_PROCESS:
            for path, rows in chunks:
                _save(path, _arrays(rows, config))
                advance(rows)
            return
        waiting = list(reversed(chunks))
        running: dict[Future, tuple[Path, list[Row]]] = {}
        suspects: list[tuple[Path, list[Row]]] = []
        pool = _pool(workers)
        try:
            while waiting or running:
                while waiting and len(running) < 2 * workers:
                    path, rows = waiting.pop()
                    running[pool.submit(_chunk, path, rows, config)] = (path, rows)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    chunk = running.pop(future)
                    try:
                        future.result()
                        advance(chunk[1])
                    except BrokenProcessPool:
                        suspects += [chunk, *running.values()]
                        running.clear()
                        pool.shutdown(wait=False)
                        pool = _pool(workers)
                        break
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        for path, rows in suspects:
            _save(path, _join([_alone(row, config) for row in rows]))
            advance(rows)


def _pool(workers: int) -> ProcessPoolExecutor:
    # fork needs no main guard in the user's script; the workers use one thread and no accelerator
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,))


def _alone(row: Row, config: SymmetriseConfig) -> dict[str, np.ndarray]:
    with _pool(1) as pool:
        try:
            return pool.submit(_arrays, [row], config).result()
        except BrokenProcessPool:
            reason = "the process that symmetrised it died (memory or a crash of the symmetry library)"
            return _arrays([Row(row.id, "", where=row.where, error=reason)], config)


def _chunk(path: Path, rows: list[Row], config: SymmetriseConfig) -> None:
    _save(path, _arrays(rows, config))


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


def _merge(paths: list[Path]) -> dict[str, np.ndarray]:
    parts = []
    for path in paths:
        with np.load(path, allow_pickle=False) as data:
            parts.append({key: data[key] for key in data.files})
    return _join(parts)


def _join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    names = sorted({str(name) for part in parts for name in part["label_names"]})
    counts = np.concatenate([np.diff(part["site_start"]) for part in parts])
    labels = np.full((len(counts), len(names)), np.nan)
    row = 0
    for part in parts:
        columns = [names.index(str(name)) for name in part["label_names"]]
        labels[row : row + len(part["ids"]), columns] = part["labels"]
        row += len(part["ids"])
    plain = ("space_group", "lattice_coords", "wyckoff", "species", "free", "ids", "symprec", "failures")
    joined = {key: np.concatenate([part[key] for part in parts]) for key in plain}
    joined |= {"site_start": np.cumsum([0, *counts]), "labels": labels}
    return joined | {"label_names": np.array(names, dtype=str)}


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write in full or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    part.replace(path)
