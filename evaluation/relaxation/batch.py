"""Relax many crystals, each once: in batches, in processes, remembered in a journal."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure

from autoperi.crystals.device import usable_device
from autoperi.data.cache import versions
from autoperi.data.reading import Sample
from autoperi.data.workers import piped
from evaluation.facts.matching import MatchSettings
from evaluation.facts.symmetry import MP20_TOLERANCES, space_group
from evaluation.relaxation.chgnet import CHGNET
from evaluation.relaxation.journal import append, end_last_line, read_journal
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.relaxation.relaxation import (
    AseRelaxer,
    RelaxationSettings,
    Relaxed,
    Step,
    relax_together,
    relax_with_calculator,
)

LARGE = 200
"""Atoms above which a relaxed crystal is compared with its raw form atom by atom."""
_SCHEMA = 2
"""Raise it when the meaning of a record changes: those of older code are then not taken from a journal."""
_BLANK = {
    "number": 0,
    "id": "",
    "key": "",
    "energy_per_atom": None,
    "start_energy_per_atom": None,
    "converged": False,
    "steps": 0,
    "largest_force": None,
    "matches_raw": False,
    "rmsd": None,
    "rmsd_normalised": None,
    "space_group_relaxed": None,
    "error": "",
    "relaxed": None,
}
_Task = tuple[int, Sample, str]
"""Position, crystal and key."""


@dataclass(frozen=True)
class BatchSettings:
    """How many crystals are relaxed.

    Attributes:
        relaxation: when a relaxation stops and what it keeps.
        match: when the relaxed crystal still counts as the raw one.
        workers: processes that relax.
        device: torch device of the potential.
        relaxer: the potential. Energies of one of your own need element references fitted to it
            (`fit_on_mp20`).
        batch_sites: symmetry-distinct atoms computed together, None for the potential's own number; changes
            the speed alone.
    """

    relaxation: RelaxationSettings = field(default_factory=RelaxationSettings)
    match: MatchSettings = field(default_factory=MatchSettings)
    workers: int = 1
    device: str = "cpu"
    relaxer: BatchRelaxer | AseRelaxer = CHGNET
    batch_sites: int | None = None

    def __post_init__(self) -> None:
        usable_device(self.device)


def relax_all(
    samples: Sequence[Sample],
    settings: BatchSettings = BatchSettings(),
    journal: Path | str | None = None,
) -> Iterator[dict]:
    """Relax every crystal; yields one record each, in the order they finish.

    A record holds number (the position of its sample), id, key (hash of the crystal, the settings and
    the versions of the code), energy_per_atom and start_energy_per_atom (eV/atom, None after a failure),
    converged, steps, largest_force (eV/Å),
    matches_raw, rmsd (Å), rmsd_normalised, space_group_relaxed (at the loose tolerance), error and the
    relaxed structure as a dictionary, and the trajectory where it is kept. With a journal (JSON
    lines) finished crystals are taken from there instead, so an interrupted run goes on where it
    stopped; those in the batch at that moment are begun again. A crystal that took
    its process down with it is not journalled: it is tried again.
    """
    path = Path(journal) if journal else None
    done = {r["key"]: r for r in read_journal(path) if r.keys() >= _BLANK.keys()} if path else {}
    if path:
        end_last_line(path)
    todo: list[_Task] = []
    for number, sample in enumerate(samples):
        key = _key(sample.structure, settings)
        if key in done:
            yield {**done[key], "id": sample.id, "number": number}
        else:
            todo.append((number, sample, key))
    for record in piped(partial(_work, settings=settings), todo, settings.workers, _lost):
        journalled = record.pop("journalled", True)
        if path and journalled:
            append(path, record)
        yield record


def _work(items: Iterator[tuple[int, _Task]], settings: BatchSettings) -> Iterator[tuple[int, dict]]:
    """Records of numbered tasks, relaxed together or by a calculator one by one."""
    taken: dict[int, _Task] = {}

    def remembered() -> Iterator[tuple[int, Structure]]:
        for number, item in items:
            taken[number] = item
            yield number, item[1].structure

    if isinstance(settings.relaxer, BatchRelaxer):
        outcomes = relax_together(
            remembered(), settings.relaxation, settings.device, settings.relaxer, settings.batch_sites
        )
    else:
        outcomes = _one_by_one(remembered(), settings.relaxer.calculator, settings.relaxation)
    for number, outcome in outcomes:
        yield number, _record(taken.pop(number), outcome, settings)


def _one_by_one(
    items: Iterator[tuple[int, Structure]], calculator: Callable[[], Any], settings: RelaxationSettings
) -> Iterator[tuple[int, Relaxed | str]]:
    made = calculator()
    for number, structure in items:
        try:
            yield number, relax_with_calculator(structure, made, settings)
        except Exception as error:
            yield number, f"{type(error).__name__}: {error}"[:300]


def _record(task: _Task, outcome: Relaxed | str, settings: BatchSettings) -> dict:
    number, sample, key = task
    record = {**_BLANK, "number": number, "id": sample.id, "key": key}
    if isinstance(outcome, str):
        return {**record, "error": outcome}
    try:
        normalised, rmsd = _rms_distance(sample.structure, outcome.structure, settings.match)
    except Exception as error:
        return {**record, "error": f"StructureMatcher on raw and relaxed: {error}"[:300]}
    return {
        **record,
        "energy_per_atom": outcome.energy_per_atom,
        "start_energy_per_atom": outcome.start_energy_per_atom,
        "converged": outcome.converged,
        "steps": outcome.steps,
        "largest_force": outcome.largest_force,
        "matches_raw": rmsd is not None,
        "rmsd": rmsd,
        "rmsd_normalised": normalised,
        "space_group_relaxed": space_group(outcome.structure, MP20_TOLERANCES.loose),
        "relaxed": outcome.structure.as_dict(),
        **({"trajectory": [_plain(step) for step in outcome.trajectory]} if outcome.trajectory else {}),
    }


def _plain(step: Step) -> dict:
    return {
        "energy_per_atom": step.energy_per_atom,
        "largest_force": step.largest_force,
        "cell": step.cell.round(6).tolist(),
        "positions": step.positions.round(6).tolist(),
    }


def _rms_distance(
    raw: Structure, relaxed: Structure, match: MatchSettings
) -> tuple[float, float] | tuple[None, None]:
    """Root mean square displacement, in (V/N)^(1/3) and in Å; None unmatched.

    By StructureMatcher, which brings both crystals to one volume per atom, the geometric mean of theirs, so
    that length is the unit here. It would take hours over a thousand atoms: in large cells atom i is compared
    with atom i, in the cells as they are.
    """
    numbers = np.array(raw.atomic_numbers).tolist()  # without charges, as in the relaxed one
    bare = Structure(raw.lattice, numbers, raw.frac_coords)
    if len(raw) > LARGE and list(relaxed.atomic_numbers) == numbers:
        normalised = _as_numbered(bare, relaxed, match)
    else:
        found = match.matcher().get_rms_dist(bare, relaxed)
        normalised = None if found is None else float(found[0])
    if normalised is None:
        return None, None
    unit = float(np.cbrt(np.sqrt(raw.volume / len(raw) * relaxed.volume / len(relaxed))))
    return normalised, normalised * unit


def _as_numbered(raw: Structure, relaxed: Structure, match: MatchSettings) -> float | None:
    """What the matcher says where atom i is atom i: in the mean cell, without the drift of all atoms."""
    cells = [s.lattice.scale(len(raw)) for s in (raw, relaxed)]
    (abc, angles), (abc_relaxed, angles_relaxed) = ((np.array(c.abc), np.array(c.angles)) for c in cells)
    stretch, turn = np.abs(abc_relaxed / abc - 1), np.abs(angles_relaxed - angles)
    if (stretch > match.ltol).any() or (turn > match.angle_tol).any():
        return None
    mean = Lattice.from_parameters(*(abc + abc_relaxed) / 2, *(angles + angles_relaxed) / 2)
    apart = relaxed.frac_coords - raw.frac_coords
    apart = apart - apart[0]
    apart = apart - apart.round()
    rms = float(np.sqrt((mean.get_cartesian_coords(apart - apart.mean(0)) ** 2).sum(1).mean()))
    return rms if rms <= match.stol else None


def _lost(task: _Task, reason: str) -> dict:
    return {**_record(task, reason, BatchSettings()), "journalled": False}


def _key(structure: Structure, settings: BatchSettings) -> str:
    digest = hashlib.sha256(structure.lattice.matrix.round(6).tobytes())
    digest.update(structure.frac_coords.round(6).tobytes())
    digest.update(str(structure.atomic_numbers).encode())
    digest.update(str(structure.site_properties.get("selective_dynamics", "")).encode())
    relaxer = settings.relaxer
    package = relaxer.package if isinstance(relaxer, BatchRelaxer) else "ase"
    code = (_SCHEMA, versions("autoperi-gnn", package, "pymatgen"))
    conventions = (asdict(settings.relaxation), asdict(settings.match), relaxer.name, code)
    digest.update(json.dumps(conventions).encode())
    return digest.hexdigest()[:24]
