"""Draws of the generator relaxed with their symmetry kept, and how far above the hull they end.

Run: python scripts/shipped/label_draws.py --n 20000 --seed 100 --out runs/labels     (300 a minute)
What the critic of stability (`train_stability.py`) and the energy models (`train_shipped_properties.py
--draws`) learn from. An interrupted run goes on where it stood.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro
from pymatgen.core import Structure
from rich.progress import track

import autoperi
from autoperi.crystals.symmetry import symmetrise
from autoperi.data.element_references import ElementReferences
from autoperi.data.files import crystal_record
from autoperi.data.reading import Sample
from autoperi.generator import SampleConfig
from evaluation.relaxation.batch import BatchSettings, relax_all
from evaluation.relaxation.chgnet import CHGNET
from evaluation.relaxation.relaxation import RelaxationSettings
from evaluation.relaxation.sevennet import SEVENNET
from evaluation.stability.hull import ConvexHull

PART = 1000


def main(
    n: int = 20_000,
    seed: int = 100,
    out: Path = Path("runs/labels"),
    checkpoint: str = "mp_20",
    workers: int = os.cpu_count() or 1,
    sevennet: bool = True,
) -> None:
    """Thousand by thousand, of seeds from ``seed`` on: one file of labels for each.

    ``sevennet``: SevenNet's energies of the relaxed crystals too, which the judge learns from.
    """
    generator = autoperi.load(checkpoint)
    settings = BatchSettings(RelaxationSettings(keep_symmetry=True), workers=workers)
    config = SampleConfig(stability=0.0, workers=workers)
    hull = ConvexHull.from_mp20()
    out.mkdir(parents=True, exist_ok=True)
    for own in range(seed, seed + -(-n // PART)):
        file = out / f"labels-{own}.jsonl"
        if file.exists():
            continue
        drawn = generator.sample(PART, own, config=config)
        samples = [Sample(crystal.id, crystal.to_structure()) for crystal in drawn]
        relaxed = relax_all(samples, settings, out / f"relaxations-{own}.jsonl")
        records = {r["number"]: r for r in track(relaxed, total=PART, description=file.name)}
        good = [k for k in range(len(drawn)) if not records[k]["error"]]
        lines = labels([drawn[k] for k in good], [records[k] for k in good], hull, sevennet)
        part = file.with_suffix(".partial")
        part.write_text("".join(json.dumps(line) + "\n" for line in lines))
        part.replace(file)
        stable = sum(line["e_above_hull"] < 0.08 for line in lines) / len(lines)
        print(f"{file}: {len(lines)} labels, {stable:.1%} within 0.08 eV/atom")


def labels(
    drawn: Sequence[autoperi.Crystal], records: Sequence[dict], hull: ConvexHull, sevennet: bool
) -> list[dict]:
    """Each draw as drawn and as relaxed with its energies, eV/atom; none of elements without a reference."""
    structures = [Structure.from_dict(record["relaxed"]) for record in records]
    judged = list(SEVENNET.static_energies(structures)) if sevennet else []
    references, others = CHGNET.references(), SEVENNET.references()
    found = []
    for k, (crystal, record, structure) in enumerate(zip(drawn, records, structures, strict=True)):
        formation = _formation(references, structure, record["energy_per_atom"])
        if formation is None:
            continue
        second = {"formation_energy_sevennet": _formation(others, structure, judged[k])} if sevennet else {}
        found.append(
            {
                "crystal": crystal_record(crystal),
                "relaxed": _symmetrised(structure),
                "formation_energy": formation,
                **second,
                "e_above_hull": hull.above(structure.composition, formation),
                "relaxed_by": record["start_energy_per_atom"] - record["energy_per_atom"],
                **{name: record[name] for name in ("steps", "converged", "matches_raw")},
            }
        )
    return found


def _formation(references: ElementReferences, structure: Structure, per_atom: float) -> float | None:
    """Formation energy, eV/atom; None where the potential or its references do not know an element."""
    if np.isnan(per_atom):
        return None
    try:
        return references.formation_energy(structure.composition, per_atom)
    except KeyError:
        return None


def _symmetrised(structure: Structure) -> dict | None:
    """Record of a relaxed crystal; None where atoms have fallen onto each other."""
    try:
        return crystal_record(symmetrise(structure))
    except ValueError:
        return None


if __name__ == "__main__":
    tyro.cli(main)
