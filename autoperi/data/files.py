"""Write crystals to a folder that people and programs can use, and read them back unchanged."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase.data import atomic_masses, chemical_symbols
from moyopy import SpaceGroupType

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.lattice import DENSITY_UNIT
from autoperi.crystals.viewer.page import MOST_SHOWN, Scene, render_gallery, scene, spaced
from autoperi.crystals.wyckoff import LETTERS, wyckoff_table
from autoperi.data.cif import write_cifs
from autoperi.data.names import file_names, one_line, unique_ids, without_formulas
from autoperi.data.run_folder import run_folder

_TOGETHER = 256
"""Crystals that are worked on at once while they are written."""


def write_crystals(crystals: Sequence[Crystal], out: str | Path, run: Mapping[str, Any]) -> None:
    """Write ``crystals.extxyz``, ``cif/<id>.cif``, ``crystals.csv``, ``index.html`` and ``run.json``.

    They replace what an earlier run has written there, all at once. See ``save_crystals`` for crystals
    that cannot be written and for their ids.

    Args:
        crystals: what to write; an empty list gives a table without rows.
        out: folder, made if it is missing.
        run: what made them (seed, command, checkpoint hash, timings); versions, platform and time are added.

    Raises:
        ValueError: ``run`` cannot be written as JSON.
        FolderError: the folder cannot be written, is full or in use.
    """
    with run_folder(out, asked=None) as folder:
        found = save_crystals(crystals, folder.new)
        folder.finish({**run, **found})


def save_crystals(crystals: Sequence[Crystal], folder: Path) -> dict[str, Any]:
    """Write ``crystals.extxyz``, ``cif/<id>.cif``, ``crystals.csv`` and ``index.html`` into an empty folder.

    A crystal that cannot be written (unknown species, a cell or coordinates that are not finite) is left
    out and named in a warning. Ids that occur twice get a number; an id is one line of text.

    Returns:
        For the run's record: ``crystals``, how many were written, and ``skipped``, the reason for each other.
    """
    (folder / "cif").mkdir()
    good, skipped = _writable(crystals)
    ids = unique_ids([c.id for c in good])
    files, shown = file_names(ids), set(spaced(len(good), MOST_SHOWN))
    rows: list[dict] = []
    scenes: dict[int, Scene] = {}
    with (folder / "crystals.extxyz").open("w", encoding="utf-8") as stream:
        for first in range(0, len(good), _TOGETHER):
            some = range(first, min(first + _TOGETHER, len(good)))
            named = [replace(good[k], id=ids[k]) for k in some]
            for k, crystal, text, cell in zip(some, named, write_cifs(named), _cells(named), strict=True):
                lattice, frac, numbers = cell
                stream.write(_frame(crystal, lattice, frac, numbers))
                cif = f"cif/{files[k]}.cif"
                (folder / cif).write_text(text, encoding="utf-8")
                rows.append(_table_row(crystal, abs(np.linalg.det(lattice)), numbers))
                if k in shown:
                    drawn = scene(crystal.id, crystal.formula, lattice, frac, numbers.tolist())
                    scenes[k] = {**drawn, "cif": cif}
    table = _table(rows)
    without_formulas(table).to_csv(folder / "crystals.csv", index=False)
    (folder / "index.html").write_text(_gallery(scenes, table), encoding="utf-8")
    if skipped:
        first = next(iter(skipped))
        warnings.warn(
            f"{len(skipped)} of {len(crystals)} crystals not written, first {first}: {skipped[first]}",
            stacklevel=2,
        )
    return {"crystals": len(good), "skipped": skipped}


def _gallery(scenes: Mapping[int, Scene], table: pd.DataFrame) -> str:
    """The page of the folder: pictures and the table, each id a link to its CIF."""
    lead = "A heading sorts, an id opens its CIF file; run.json says what made these crystals."
    long = ["wyckoff", "sites"]  # to the right, so that the properties are seen
    rows = table.reindex(columns=[*table.columns.drop(long), *long]).to_dict("records")
    return render_gallery(f"{len(table)} crystals", lead, rows, scenes.__getitem__)


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
                    crystal_of_record(json.loads(re.sub(r"\\(.)", r"\1", record.rstrip().removesuffix('"'))))
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
        name = one_line(crystal.id)
        skipped[name if name and name not in skipped else f"{name} number {i}".strip()] = reason
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
    text = _quoted(json.dumps(crystal_record(crystal), separators=(",", ":")))
    header = (
        f'Lattice="{cell}" Properties=species:S:1:pos:R:3 pbc="T T T" id="{_quoted(crystal.id)}" '
        f'gene="{crystal.gene}"{_MARK}{text}"'
    )
    lines = [
        f"{chemical_symbols[z]:2} {x:14.8f} {y:14.8f} {w:14.8f}"
        for z, (x, y, w) in zip(numbers.tolist(), (frac @ lattice).tolist(), strict=True)
    ]
    return "\n".join([str(len(numbers)), header, *lines]) + "\n"


def _quoted(text: str) -> str:
    """As it stands between quotation marks in the comment line of extxyz."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def crystal_record(crystal: Crystal) -> dict[str, Any]:
    """A crystal as plain values that JSON holds to the last bit; see ``crystal_of_record``."""
    return {
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


def crystal_of_record(record: Mapping[str, Any]) -> Crystal:
    """The crystal of a record, as it was; raises KeyError or ValueError for a damaged one."""
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
        "density": round(float(atomic_masses[numbers].sum()) / volume * DENSITY_UNIT, 6),
        **({"new_gene": bool(new)} if (new := crystal.provenance.get("new_gene")) is not None else {}),
        **{
            name: value
            for name, value in crystal.provenance.items()
            if name in ("start", "relative") or name.startswith("target_")
        },
        **crystal.properties,
    }


_FIXED = [
    *("id", "formula", "space_group", "space_group_symbol", "wyckoff", "gene", "new_gene", "sites", "atoms"),
    *("volume_per_atom", "density", "start", "relative", "log_likelihood", "log_likelihood_error"),
]
_IF_KNOWN = ("new_gene", "start", "relative", "log_likelihood", "log_likelihood_error")


def _table(rows: list[dict]) -> pd.DataFrame:
    found = {key for row in rows for key in row}
    columns = [c for c in _FIXED if c in found or c not in _IF_KNOWN] + sorted(found - set(_FIXED))
    return pd.DataFrame(rows, columns=columns)


@cache
def _symbol(number: int) -> str:
    return SpaceGroupType(number).hm_short.replace(" ", "")
