"""Relax with CHGNet, subtract the fitted element references, compare with the MP-20 hull."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
from pymatgen.core import Structure

from evaluation.element_references import ElementReferences
from evaluation.hull import ConvexHull
from evaluation.matching import MatchSettings
from evaluation.potential import MODEL_NAME
from evaluation.relaxation import RelaxationSettings, relax
from evaluation.readers import Sample


@dataclass(frozen=True)
class StabilitySettings:
    """How stability is judged.

    Attributes:
        relaxation: when a relaxation stops.
        match: when the relaxed crystal still counts as the raw one.
        thresholds: eV/atom above the hull up to which a crystal counts as stable; the field uses
            0 (FlowMM, SymmCD), 0.08 (WyFormer) and 0.1 (MatterGen).
        workers: processes that relax.
        device: torch device of CHGNet.
    """

    relaxation: RelaxationSettings = field(default_factory=RelaxationSettings)
    match: MatchSettings = field(default_factory=MatchSettings)
    thresholds: tuple[float, ...] = (0.0, 0.08, 0.1)
    workers: int = 1
    device: str = "cpu"

    def protocol(self) -> str:
        """As printed beside every figure."""
        return (
            f"CHGNet {MODEL_NAME} relaxation, fmax {self.relaxation.fmax} eV/Å, at most "
            f"{self.relaxation.max_steps} steps; element references fitted on MP-20; hull of the "
            "labelled MP-20 rows, all splits"
        )


COLUMNS = ("id", "e_above_hull", "formation_energy", "converged", "steps", "matches_raw", "error")


def relax_all(
    samples: Sequence[Sample],
    settings: StabilitySettings = StabilitySettings(),
    journal: Path | str | None = None,
) -> Iterator[dict]:
    """Relax every crystal; yields one record each, in the order they finish.

    A record holds id, key (hash of the crystal and the settings), energy_per_atom (eV/atom, NaN
    after a failure), converged, steps, matches_raw, error and the relaxed structure as a
    dictionary. With a journal (JSON lines) finished crystals are taken from there instead, so an
    interrupted run goes on where it stopped.
    """
    done = _read_journal(Path(journal)) if journal else {}
    todo: list[tuple[Sample, str]] = []
    for sample in samples:
        key = _key(sample.structure, settings)
        if key in done:
            yield {**done[key], "id": sample.id}
        else:
            todo.append((sample, key))
    for record in _run(todo, settings):
        if journal:
            with Path(journal).open("a") as stream:
                stream.write(json.dumps(record) + "\n")
        yield record


def stability_table(
    samples: Sequence[Sample],
    hull: ConvexHull,
    references: ElementReferences,
    settings: StabilitySettings = StabilitySettings(),
    journal: Path | str | None = None,
) -> pd.DataFrame:
    """One row per crystal with the columns of `COLUMNS`, indexed by id, in the samples' order.

    e_above_hull and formation_energy are eV/atom after relaxation, NaN when it failed; `error` then
    says why. An unconverged crystal keeps the energy it reached and says converged = False.
    """
    from rich.progress import track

    records = relax_all(samples, settings, journal)
    rows = {
        record["id"]: _judge(record, hull, references)
        for record in track(records, total=len(samples), description="relaxing with CHGNet")
    }
    table = pd.DataFrame([rows[sample.id] for sample in samples], columns=list(COLUMNS))
    return table.set_index("id")


def _judge(record: dict, hull: ConvexHull, references: ElementReferences) -> dict:
    row = {column: record.get(column) for column in COLUMNS}
    row["formation_energy"] = row["e_above_hull"] = float("nan")
    if not record["error"]:
        try:
            composition = Structure.from_dict(record["relaxed"]).composition
            formation = references.formation_energy(composition, record["energy_per_atom"])
            row["formation_energy"] = formation
            row["e_above_hull"] = hull.above(composition, formation)
        except KeyError as error:
            row["error"] = str(error)
    return row


def _run(todo: list[tuple[Sample, str]], settings: StabilitySettings) -> Iterable[dict]:
    arguments = [(sample, key, settings) for sample, key in todo]
    if settings.workers <= 1:
        yield from map(_relax_one, arguments)
        return
    with ProcessPoolExecutor(settings.workers) as pool:
        yield from pool.map(_relax_one, arguments)


def _relax_one(argument: tuple[Sample, str, StabilitySettings]) -> dict:
    sample, key, settings = argument
    record = {
        "id": sample.id,
        "key": key,
        "energy_per_atom": None,
        "converged": False,
        "steps": 0,
        "matches_raw": False,
        "error": "",
        "relaxed": None,
    }
    try:
        result = relax(sample.structure, settings.relaxation, settings.device)
    except Exception as error:
        return {**record, "error": f"{type(error).__name__}: {error}"[:300]}
    matches = settings.match.matcher().fit(sample.structure, result.structure)
    return {
        **record,
        "energy_per_atom": result.energy_per_atom,
        "converged": result.converged,
        "steps": result.steps,
        "matches_raw": bool(matches),
        "relaxed": result.structure.as_dict(),
    }


def _key(structure: Structure, settings: StabilitySettings) -> str:
    digest = hashlib.sha256(structure.lattice.matrix.round(6).tobytes())
    digest.update(structure.frac_coords.round(6).tobytes())
    digest.update(str(structure.atomic_numbers).encode())
    digest.update(json.dumps(asdict(settings.relaxation)).encode())
    return digest.hexdigest()[:24]


def _read_journal(path: Path) -> dict[str, dict]:
    """Finished records by key; a last line cut off by an interruption is skipped."""
    done: dict[str, dict] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            done[record["key"]] = record
    return done
