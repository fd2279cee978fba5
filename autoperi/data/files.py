"""Write crystals to a folder that people and programs can use, and read them back unchanged."""

import json
import platform
import re
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
from ase.data import atomic_masses, chemical_symbols
from moyopy import SpaceGroupType

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.wyckoff import LETTERS, wyckoff_table
from autoperi.data.cif import write_cifs

_PACKAGES = ("autoperi-gnn", "torch", "numpy", "pymatgen", "moyopy", "torchdiffeq", "e3nn", "ase", "chgnet")
_DENSITY = 1.66053906660
"""Atomic mass units per Å³ in g/cm³."""


def write_crystals(crystals: Sequence[Crystal], out: str | Path, run: dict) -> None:
    """Write ``crystals.extxyz``, ``cif/<id>.cif``, ``crystals.csv`` and ``run.json`` into a folder.

    A crystal that cannot be written (unknown species, a cell or coordinates that are not finite) is left
    out, named in a warning and under ``skipped`` in ``run.json``. Ids that occur twice get a number.

    Args:
        crystals: what to write; an empty list gives a table without rows.
        out: folder, made if it is missing.
        run: what made them (seed, command, checkpoint hash, timings); versions, platform and time are added.

    Raises:
        ValueError: ``run`` cannot be written as JSON.
    """
    out = Path(out)
    (out / "cif").mkdir(parents=True, exist_ok=True)
    good, skipped = _writable(crystals)
    names = _unique_names([c.id for c in good])
    rows: list[dict] = []
    with (out / "crystals.extxyz").open("w", encoding="utf-8") as stream:
        if good:
            named = [replace(crystal, id=name) for crystal, name in zip(good, names, strict=True)]
            texts = write_cifs(named)
            for crystal, text, (lattice, frac, numbers) in zip(named, texts, _cells(good), strict=True):
                stream.write(_frame(crystal, lattice, frac, numbers))
                (out / "cif" / f"{_file_name(crystal.id)}.cif").write_text(text, encoding="utf-8")
                rows.append(_table_row(crystal, abs(np.linalg.det(lattice)), numbers))
    _table(rows).to_csv(out / "crystals.csv", index=False)
    write_run(out, {**run, "crystals": len(good), "skipped": skipped})
    if skipped:
        first = next(iter(skipped))
        warnings.warn(
            f"{len(skipped)} of {len(crystals)} crystals not written, first {first}: {skipped[first]}",
            stacklevel=2,
        )


def write_run(out: Path, run: dict) -> None:
    """Write ``run.json`` into a folder: what was asked and found, command, versions, platform, time.

    Raises:
        ValueError: ``run`` cannot be written as JSON.
    """
    record = {
        "command": shlex.join(sys.argv),
        **run,
        "versions": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    try:
        text = json.dumps(record, indent=2)
    except TypeError as error:
        raise ValueError(f"expected a run record of plain numbers and texts: {error}") from error
    (out / "run.json").write_text(text + "\n", encoding="utf-8")


def read_crystals(path: str | Path) -> list[Crystal]:
    """Crystals written by ``write_crystals``, exactly as they were: gene, free coordinates, properties.

    Args:
        path: the folder, or its ``crystals.extxyz``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an extxyz file of another origin; ``load_dataset`` reads and symmetrises those.
    """
    path = Path(path)
    file = path / "crystals.extxyz" if path.is_dir() else path
    if not file.exists():
        raise FileNotFoundError(f"expected crystals written by write_crystals: {file} does not exist")
    crystals = []
    with file.open(encoding="utf-8") as stream:
        while count := stream.readline():
            comment = stream.readline()
            _, mark, record = comment.partition(_MARK)
            try:
                crystals.append(
                    _crystal(json.loads(re.sub(r"\\(.)", r"\1", record.rstrip().removesuffix('"'))))
                )
                for _ in range(int(count)):
                    stream.readline()
            except (ValueError, KeyError) as error:
                hint = "is damaged" if mark else "was not written by write_crystals; use load_dataset"
                raise ValueError(
                    f"expected a crystal with its gene as frame {len(crystals)}: {file} {hint}"
                ) from error
    return crystals


_MARK = ' autoperi="_JSON '


def _writable(crystals: Sequence[Crystal]) -> tuple[list[Crystal], dict[str, str]]:
    good, skipped = [], {}
    for i, crystal in enumerate(crystals):
        if (crystal.species < 1).any():
            reason = "a species is not known"
        elif not (np.isfinite(crystal.free).all() and np.isfinite(crystal.lattice_coords).all()):
            reason = "a coordinate or the cell is not finite"
        elif np.abs(crystal.lattice_coords).max() > 15:
            reason = (
                f"the cell is out of bounds: lattice coordinates {crystal.lattice_coords.round(2).tolist()}"
            )
        else:
            good.append(crystal)
            continue
        skipped[crystal.id or f"number {i}"] = reason
    return good, skipped


def _cells(crystals: list[Crystal]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Lattice, wrapped fractional positions and atomic numbers of each primitive cell, all at once."""
    batch = CrystalBatch.from_crystals(crystals)
    atoms = batch.atoms()
    counts = batch.n_atoms().tolist()
    positions = (atoms.positions(batch.site_positions()) % 1.0).split(counts)
    numbers = batch.species[atoms.site].split(counts)
    lattices = batch.lattice().numpy()
    return [(c, x.numpy(), z.numpy()) for c, x, z in zip(lattices, positions, numbers, strict=True)]


def _frame(crystal: Crystal, lattice: np.ndarray, frac: np.ndarray, numbers: np.ndarray) -> str:
    cell = " ".join(f"{v:.10f}" for v in lattice.ravel())
    record = {
        "id": crystal.id,
        "space_group": crystal.space_group,
        "wyckoff": crystal.letters,
        "species": crystal.species.tolist(),
        "free": crystal.free.tolist(),
        "lattice_coords": crystal.lattice_coords.tolist(),
        "properties": {k: float(v) for k, v in crystal.properties.items()},
        "provenance": {
            k: v.item() if isinstance(v, np.generic) else v for k, v in crystal.provenance.items()
        },
    }
    text = json.dumps(record, separators=(",", ":"))
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    header = (
        f'Lattice="{cell}" Properties=species:S:1:pos:R:3 pbc="T T T" id="{crystal.id}" gene="{crystal.gene}"'
        f'{_MARK}{text}"'
    )
    lines = [
        f"{chemical_symbols[z]:2} {x:14.8f} {y:14.8f} {w:14.8f}"
        for z, (x, y, w) in zip(numbers.tolist(), (frac @ lattice).tolist(), strict=True)
    ]
    return "\n".join([str(len(numbers)), header, *lines]) + "\n"


def _crystal(record: dict) -> Crystal:
    table = wyckoff_table()
    number = int(record["space_group"])
    return Crystal(
        space_group=number,
        wyckoff=np.array([table.index(number, letter) for letter in record["wyckoff"]]),
        species=np.array(record["species"]),
        free=np.array(record["free"], float).reshape(-1, 3),
        lattice_coords=np.array(record["lattice_coords"], float),
        id=record["id"],
        properties=record["properties"],
        provenance=record["provenance"],
    )


def _table_row(crystal: Crystal, volume: float, numbers: np.ndarray) -> dict:
    letters = crystal.letters
    order = sorted(range(crystal.n_sites), key=lambda k: (LETTERS.index(letters[k]), crystal.species[k]))
    return {
        "id": crystal.id,
        "formula": crystal.formula,
        "space_group": crystal.space_group,
        "space_group_symbol": _symbol(crystal.space_group),
        "wyckoff": " ".join(f"{chemical_symbols[crystal.species[k]]}:{letters[k]}" for k in order),
        "gene": crystal.gene,
        "sites": crystal.n_sites,
        "atoms": len(numbers),
        "volume_per_atom": round(volume / len(numbers), 6),
        "density": round(float(atomic_masses[numbers].sum()) / volume * _DENSITY, 6),
        **({"new_gene": bool(new)} if (new := crystal.provenance.get("new_gene")) is not None else {}),
        **crystal.properties,
    }


_FIXED = [
    *("id", "formula", "space_group", "space_group_symbol", "wyckoff", "gene", "new_gene", "sites", "atoms"),
    *("volume_per_atom", "density", "log_likelihood"),
]
_IF_KNOWN = ("new_gene", "log_likelihood")


def _table(rows: list[dict]) -> pd.DataFrame:
    found = {key for row in rows for key in row}
    columns = [c for c in _FIXED if c in found or c not in _IF_KNOWN] + sorted(found - set(_FIXED))
    return pd.DataFrame(rows, columns=columns)


@cache
def _symbol(number: int) -> str:
    return SpaceGroupType(number).hm_short.replace(" ", "")


def _unique_names(ids: list[str]) -> list[str]:
    """Ids as file names: empty ones numbered, repeated ones too."""
    seen: set[str] = set()
    names = []
    for i, given in enumerate(ids):
        base = given.replace('"', "'").replace("\n", " ") or f"crystal-{i:05d}"
        name, again = base, 2
        while _file_name(name).lower() in seen:
            name, again = f"{base}-{again}", again + 1
        seen.add(_file_name(name).lower())
        names.append(name)
    return names


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.+" else "_" for c in name)[:120].lstrip(".") or "_"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
