"""Draws of the generator relaxed with their symmetry kept, and how far above the hull they end.

Run: python scripts/label_draws.py --n 20000 --seed 100 --out runs/labels     (300 a minute on two cores)
What the critic of stability learns from (`train_stability.py`). An interrupted run goes on where it stood.
"""

import json
import os
from pathlib import Path

import tyro
from rich.progress import track

import autoperi
from autoperi.data.element_references import SHIPPED, ElementReferences
from autoperi.data.files import crystal_record
from autoperi.data.reading import Sample
from autoperi.generator import SampleConfig
from evaluation.relaxation.batch import BatchSettings, relax_all
from evaluation.relaxation.relaxation import RelaxationSettings
from evaluation.stability.hull import ConvexHull

PART = 1000


def main(
    n: int = 20_000,
    seed: int = 100,
    out: Path = Path("runs/labels"),
    checkpoint: str = "mp_20",
    workers: int = os.cpu_count() or 1,
) -> None:
    """Thousand by thousand, of seeds from ``seed`` on: one file of labels for each."""
    generator = autoperi.load(checkpoint)
    hull, references = ConvexHull.from_mp20(), ElementReferences.load(SHIPPED)
    settings = BatchSettings(RelaxationSettings(keep_symmetry=True), workers=workers)
    config = SampleConfig(stability=0.0, workers=workers)
    out.mkdir(parents=True, exist_ok=True)
    for own in range(seed, seed + -(-n // PART)):
        file = out / f"labels-{own}.jsonl"
        if file.exists():
            continue
        drawn = generator.sample(PART, own, config=config)
        samples = [Sample(crystal.id, crystal.to_structure()) for crystal in drawn]
        relaxed = relax_all(samples, settings, out / f"relaxations-{own}.jsonl")
        records = {r["number"]: r for r in track(relaxed, total=PART, description=file.name)}
        lines = [_label(drawn[k], records[k], hull, references) for k in range(len(drawn))]
        part = file.with_suffix(".partial")
        part.write_text("".join(json.dumps(line) + "\n" for line in lines if line))
        part.replace(file)
        known = [line["e_above_hull"] for line in lines if line]
        stable = sum(energy < 0.08 for energy in known) / len(known)
        print(f"{file}: {len(known)} labels, {stable:.1%} within 0.08 eV/atom")


def _label(
    crystal: autoperi.Crystal, record: dict, hull: ConvexHull, references: ElementReferences
) -> dict | None:
    """The crystal with its energies, eV/atom; None where it was not relaxed or has an unknown element."""
    if record["error"]:
        return None
    composition = crystal.to_structure().composition
    try:
        formation = references.formation_energy(composition, record["energy_per_atom"])
    except KeyError:
        return None
    return {
        "crystal": crystal_record(crystal),
        "formation_energy": formation,
        "e_above_hull": hull.above(composition, formation),
        "relaxed_by": record["start_energy_per_atom"] - record["energy_per_atom"],
        **{name: record[name] for name in ("steps", "converged", "matches_raw")},
    }


if __name__ == "__main__":
    tyro.cli(main)
