"""Per-crystal table of density, volume, formula, elements, space groups and gene."""

import warnings
from collections.abc import Iterable
from functools import partial

import pandas as pd
from pymatgen.core import Structure

from autoperi.data.workers import mapped
from evaluation.facts.distribution import density
from evaluation.facts.matching import formula_key
from evaluation.facts.symmetry import MP20_TOLERANCES, Gene, SymmetrySettings, gene, space_group

COLUMNS = {
    "formula": "string",
    "n_sites": "int32",
    "n_elements": "int16",
    "density": "float64",
    "volume_per_atom": "float64",
    "space_group_loose": "Int16",
    "space_group_tight": "Int16",
    "gene": "string",
}


def describe(structure: Structure, symmetry: SymmetrySettings = MP20_TOLERANCES) -> dict:
    """Facts of one crystal under the names of `COLUMNS`.

    Density in g/cm³, volume per atom in Å³, space groups at the two tolerances of `symmetry` (None
    where none is found), gene at the loose one as text.
    """
    return _facts(structure, gene(structure, symmetry.loose), space_group(structure, symmetry.tight))


def _facts(structure: Structure, loose: Gene | None, tight: int | None) -> dict:
    return {
        "formula": formula_key(structure),
        "n_sites": len(structure),
        "n_elements": len(set(structure.atomic_numbers)),
        "density": density(structure),
        "volume_per_atom": structure.volume / len(structure),
        "space_group_loose": None if loose is None else loose.space_group,
        "space_group_tight": tight,
        "gene": None if loose is None else loose.name,
    }


def description_table(
    structures: Iterable[Structure],
    symmetry: SymmetrySettings = MP20_TOLERANCES,
    workers: int = 1,
) -> pd.DataFrame:
    """`describe` of every crystal, one row each, in order."""
    return table_from_rows(
        list(mapped(partial(describe, symmetry=symmetry), structures, workers, _without_symmetry))
    )


def _without_symmetry(structure: Structure, reason: str) -> dict:
    warnings.warn(f"no space group is known of {structure.composition}: {reason}", stacklevel=2)
    return _facts(structure, None, None)


def table_from_rows(rows: list[dict]) -> pd.DataFrame:
    """Rows of `describe` as a table with fixed column types, empty or not."""
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
