"""A hull whose phases are judged by the same potential as the crystals, so that its errors cancel.

Against a DFT hull a potential's error on a crystal stays in its energy above the hull. Near the hull
that error (some 20 meV/atom for CHGNet) is larger than what is measured: energies above the hull of
MP-20 test rows then hardly correlate with the published CHGNet ones, and do once the phases of the
hull are put through CHGNet as well.
"""

import hashlib
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pymatgen.core import Composition, Structure
from rich.progress import track

from autoperi.data.cache import warn_not_kept
from autoperi.data.download import SPLITS, dataset_file
from autoperi.data.element_references import ElementReferences
from evaluation.relaxation.chgnet import CHGNET
from evaluation.relaxation.journal import append, end_last_line, read_journal
from evaluation.stability.hull import ConvexHull

_CHUNK = 256  # crystals read at a time


MP_20 = tuple(("mp_20", split) for split in SPLITS)
MPTS_52 = tuple(("mpts_52", split) for split in SPLITS)
_FORMULA = re.compile(r"^_chemical_formula_sum\s+'?([^'\n]+)", re.MULTILINE)


def known_phases(
    data_dir: Path | str | None, tables: Sequence[tuple[str, str]] = MP_20
) -> tuple[list[str], Callable[[int], Structure]]:
    """Formulas of the rows of some (data set, split), and a function that gives crystal j.

    MPTS-52 knows phases of more than 20 atoms, which MP-20 lacks (molecular ones, oxygen-rich salts);
    crystals in both are taken once, by their Materials Project id.
    """
    import pandas as pd

    paths = [dataset_file(*table, data_dir) for table in tables]
    read = (pd.read_csv(p, usecols=["material_id", "cif"], keep_default_na=False, dtype=str) for p in paths)
    rows = pd.concat(read)
    repeated = rows["material_id"].duplicated() & (rows["material_id"] != "")
    texts = rows.loc[~repeated.to_numpy(), "cif"].tolist()

    def structure(k: int) -> Structure:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rounded coordinates
            return Structure.from_str(texts[k], fmt="cif")

    return [_formula(text) for text in texts], structure


def _formula(cif: str) -> str:
    found = _FORMULA.search(cif)
    if found is None:
        raise ValueError(f"expected a CIF with _chemical_formula_sum: got {cif[:60]!r}")
    return found[1]


def consistent_hull(
    formulas: Sequence[str],
    structure: Callable[[int], Structure],
    targets: Iterable[Composition | str],
    references: ElementReferences,
    energies_of: Callable[[Sequence[Structure]], Iterator[float]] = CHGNET.static_energies,
    kept: Path | None = None,
    progress: bool = True,
) -> tuple[ConvexHull, ElementReferences]:
    """Hull of a potential's energies of known phases as they stand, and the references to use with it.

    Only phases inside the chemical system of a target are computed; asking the hull for any other
    composition finds too few of them.

    Args:
        formulas: of the known phases.
        structure: gives phase j, at its DFT geometry; called for those needed alone.
        targets: the compositions that will be judged.
        references: of the potential, for elements without a phase of their own; the others get the
            lowest energy among theirs.
        energies_of: energies per atom of crystals, NaN where there is none; CHGNet by default.
        kept: JSON lines file of energies computed before, by one potential; new ones are added as they
            come, so that an interrupted run goes on.
        progress: whether a bar shows how many are done.
    """
    systems = {frozenset(Composition(c).get_el_amt_dict()) for c in targets}
    compositions = [Composition(f) for f in formulas]
    elements = [frozenset(c.get_el_amt_dict()) for c in compositions]
    wanted = {e for e in set(elements) if any(e <= system for system in systems)}
    inside = [k for k, e in enumerate(elements) if e in wanted]
    energies = _energies(inside, formulas, structure, energies_of, kept, progress)
    known = {k: e for k, e in energies.items() if np.isfinite(e)}
    lowest = dict(references.energies)
    for k in sorted((k for k in known if len(elements[k]) == 1), key=known.__getitem__, reverse=True):
        (symbol,) = elements[k]
        lowest[symbol] = known[k]
    own = replace(references, energies=lowest)
    formation = [own.formation_energy(compositions[k], e) for k, e in known.items()]
    return ConvexHull([compositions[k] for k in known], formation), own


def _energies(
    inside: Sequence[int],
    formulas: Sequence[str],
    structure: Callable[[int], Structure],
    energies_of: Callable[[Sequence[Structure]], Iterator[float]],
    kept: Path | None,
    progress: bool,
) -> dict[int, float]:
    """Energy per atom of each phase, from the file where it holds it; phases are read as they are needed."""
    phases = hashlib.sha256("\n".join(formulas).encode()).hexdigest()[:16]
    energies: dict[int, float] = {}
    if kept and (kept := _writable(kept)):
        end_last_line(kept)
        wanted = set(inside)
        for record in read_journal(kept):
            known = record.get("phases") == phases and record.get("phase") in wanted
            if known and isinstance(record.get("energy", ""), float | None):
                energies[record["phase"]] = np.nan if record["energy"] is None else record["energy"]
    todo = [k for k in inside if k not in energies]

    def computed() -> Iterator[tuple[int, float]]:
        for start in range(0, len(todo), _CHUNK):
            part = todo[start : start + _CHUNK]
            yield from zip(part, energies_of([structure(k) for k in part]), strict=True)

    shown = track(computed(), "phases of the hull", len(todo), disable=not progress)
    for k, energy in shown:
        energies[k] = energy
        if kept:
            append(kept, {"phases": phases, "phase": k, "energy": energy if np.isfinite(energy) else None})
    return energies


def _writable(file: Path) -> Path | None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        warn_not_kept(file, error)
        return None
    return file
