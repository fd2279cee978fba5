"""Crystals in arrays and databases: npz, pt and ASE's SQLite. No pickled code is run."""

import contextlib
import io
import json
import sqlite3
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np

from autoperi.data.reading.containers import MAX_UNPACKED
from autoperi.data.reading.rows import ReadError, Row, labels, own_name

_TENSORS = ("atom_types", "frac_coords", "num_atoms", "lengths", "angles")
_COLUMNS = "id, numbers, positions, cell, natoms, energy, key_value_pairs"
_STEPS = 2 * 10**8
"""Steps of SQLite's machine that one file may take: a table of a million rows needs a hundredth."""


def npz_rows(stream: io.BufferedIOBase, stem: str, name: str) -> Iterator[Row]:
    """Arrays z, frac, n, cell (and id), as they are or behind a prefix such as ``train_``.

    Raises:
        ReadError: arrays that are missing or do not fit together.
    """
    data = stream.read()
    _refuse_bombs(data)
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ReadError("expected arrays z, frac, n, cell: got a single array")
        prefixes = [key[:-1] for key in stored.files if key == "z" or key.endswith("_z")]
        if not prefixes:
            raise ReadError(f"expected arrays z, frac, n, cell: got {stored.files}")
        for prefix in prefixes:
            own = {key.removeprefix(prefix): stored[key] for key in stored.files if key.startswith(prefix)}
            missing = [key for key in ("z", "frac", "n", "cell") if key not in own]
            if missing:
                raise ReadError(f"expected arrays z, frac, n, cell: {prefix}{missing[0]} is missing")
            named = f"{stem}-{prefix}".rstrip("_-").replace("_", "-") if prefix else stem
            yield from _concatenated(own["z"], own["frac"], own["n"], own["cell"], named, name, own)


def pt_rows(stream: io.BufferedIOBase, stem: str, name: str) -> Iterator[Row]:
    """CDVAE and DiffCSP output: concatenated tensors, CDVAE's with a leading evaluation axis.

    Raises:
        ReadError: tensors that are missing, do not fit together or are larger than the file.
    """
    import torch

    data = stream.read()
    _refuse_bombs(data)
    content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    missing = [key for key in _TENSORS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ReadError(f"missing {missing}: expected the tensors {list(_TENSORS)}")
    for key in _TENSORS:
        tensor = content[key]
        if isinstance(tensor, torch.Tensor) and tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ReadError(f"expected as many numbers in {key} as are stored: got {tuple(tensor.shape)}")
    z, frac, n, lengths, angles = (np.asarray(content[key]) for key in _TENSORS)
    cell = np.concatenate([lengths, angles], axis=-1)
    if frac.ndim == 2:
        yield from _concatenated(z, frac, n, cell, stem, name, {})
    else:
        for k in range(len(frac)):
            yield from _concatenated(z[k], frac[k], n[k], cell[k], f"{stem}-{k}", name, {})


def _refuse_bombs(data: bytes) -> None:
    """A zip of arrays that unpacks to more than is read from compressed files."""
    if not data.startswith(b"PK"):
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_UNPACKED:
            raise ReadError(f"unpacks to more than {MAX_UNPACKED >> 20} MiB: expected arrays of crystals")


def _concatenated(
    z: np.ndarray,
    frac: np.ndarray,
    n: np.ndarray,
    cell: np.ndarray,
    stem: str,
    name: str,
    other: Mapping[str, np.ndarray],
) -> Iterator[Row]:
    """Crystals cut from arrays of all atoms; arrays of one number per crystal are labels."""
    counts = n.astype(np.int64)
    if n.ndim != 1 or (counts < 0).any() or (counts != n).any():
        raise ReadError(f"expected whole numbers of atoms, 0 or more: got {n[:10].tolist()} …")
    total = int(counts.sum())
    if len(z) != total or frac.shape != (total, 3) or cell.shape not in ((len(n), 6), (len(n), 3, 3)):
        raise ReadError(
            f"expected {total} atoms and {len(n)} cells: got {len(z)} species, positions {frac.shape} "
            f"and cells {cell.shape}"
        )
    atoms_and_cells = ("z", "frac", "n", "cell")
    columns = {
        k: v
        for k, v in other.items()
        if k not in atoms_and_cells and v.shape == (len(n),) and v.dtype.kind in "iuf"
    }
    ids = other.get("id")
    names = None if ids is None or len(ids) != len(n) else ids.astype(str).tolist()
    ends = counts.cumsum()
    for index, (end, count) in enumerate(zip(ends.tolist(), counts.tolist(), strict=True)):
        atoms = slice(end - count, end)
        yield Row(
            f"{stem}-{index}" if names is None else names[index],
            (z[atoms], frac[atoms].astype(float), cell[index].astype(float)),
            labels({key: values[index].item() for key, values in columns.items()}),
            f"{name}, crystal {index}",
        )


def db_rows(stream: io.BufferedIOBase, stem: str, name: str) -> Iterator[Row]:
    """Rows of an ASE database (SQLite); a row that cannot be read costs itself alone.

    Raises:
        ReadError: another kind of file, or a query without end.
    """
    data = stream.read()
    if not data.startswith(b"SQLite format 3"):
        raise ReadError("not an ASE database: expected an SQLite file")
    steps = iter(range(_STEPS // 10_000))
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(data)
        database.execute("PRAGMA trusted_schema = OFF")
        database.set_progress_handler(lambda: next(steps, None) is None, 10_000)
        try:
            tables = dict(database.execute("SELECT name, type FROM sqlite_master"))
            if tables.get("systems") != "table":
                raise ReadError(f"not an ASE database: expected a table systems, got {sorted(tables)[:8]}")
            query = f"SELECT {_COLUMNS} FROM systems ORDER BY id"
            for row in database.execute(query):
                yield _db_row(row, stem, name)
        except sqlite3.Error as error:
            raise ReadError(f"damaged database: {error}") from error


def _db_row(row: tuple, stem: str, name: str) -> Row:
    number, numbers, positions, cell, natoms, energy, pairs = row
    where = f"{name}, id {number}"
    try:
        z = np.frombuffer(numbers, "<i4")
        record = {
            "numbers": z,
            "positions": np.frombuffer(positions, "<f8").reshape(-1, 3),
            "cell": np.frombuffer(cell, "<f8").reshape(3, 3),
        }
        if not len(z) == len(record["positions"]) == natoms:
            raise ReadError(f"expected {natoms} atoms: got {len(z)} and {len(record['positions'])} positions")
        known = json.loads(pairs) if pairs else {}
        numbers_beside = labels({"energy": energy, **known})
    except (ValueError, TypeError) as error:
        return Row(f"{stem}-{number}", "", where=where, error=f"{type(error).__name__}: {error}"[:300])
    return Row(own_name(known, f"{stem}-{number}"), record, numbers_beside, where)
