"""Table over the shipped classes: validity by their own rules, novelty, reconstruction, energies.

Run: python scripts/check_classes.py zeolite --n 200 --seed 0 --out classes     (needs AUTOPERI_DATA)
Drawn crystals stay in the folder, as `autoperi sample --class` writes them. Energies are CHGNet's, of the
first ``relaxed`` valid crystals, relaxed with their symmetry kept.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from pymatgen.core import Lattice, Structure

import autoperi
from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.frameworks.net import FrameworkError, framework
from evaluation import evaluate_class, read_structures
from evaluation.classes import zeolite
from evaluation.facts.matching import MatchSettings
from evaluation.options import ClassName
from evaluation.relaxation.relaxation import Relaxed, relax_together
from evaluation.relaxation.settings import RelaxationSettings
from evaluation.report.classes import CLASSES

QUARTZ = Structure.from_spacegroup(
    "P3_221",
    Lattice.hexagonal(4.913, 5.405),
    ["Si", "O"],
    [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]],
)
"""α-quartz at ambient conditions (Levien, Prewitt and Weidner, Am. Mineral. 65, 920, 1980)."""


def main(
    names: tyro.conf.Positional[tuple[ClassName, ...]],
    n: int = 200,
    seed: int = 0,
    relaxed: int = 50,
    held_out: int = 100,
    start: str = "auto",
    out: Path = Path("classes"),
) -> None:
    """Draw, judge, rebuild what is held out, relax; a column for each class."""
    columns = {name: _column(name, n, seed, relaxed, held_out, start, out / name) for name in names}
    rows = list(dict.fromkeys(key for column in columns.values() for key in column))
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {row} | {' | '.join(column.get(row, '') for column in columns.values())} |")


def _column(
    name: ClassName, n: int, seed: int, relaxed: int, held_out: int, start: str, out: Path
) -> dict[str, str]:
    began = time.perf_counter()
    asked = ["--class", name, "--n", str(n), "--seed", str(seed), "--start", start, "--workers", "1"]
    subprocess.run([sys.executable, "-m", "autoperi.cli", "sample", *asked, "--out", str(out)], check=False)
    seconds = time.perf_counter() - began
    crystals = autoperi.read_crystals(out)
    report = evaluate_class(read_structures(out), name)
    value = {key: metric.value for key, metric in report.metrics.items()}
    floor = {key: metric.floor or 0.0 for key, metric in report.metrics.items()}
    refused = [int(c.provenance.get("refused", 0)) for c in crystals]
    shares = ("valid", "uniqueness", "novelty", "valid_unique_novel")
    column = {
        "drawn": str(len(crystals)),
        "draws refused for each that is kept": f"{sum(refused) / len(crystals):.2f}",
        **{f"{key}, %": f"{100 * value[key]:.1f}" for key in shares},
        **{
            f"W({key}) (floor)": f"{value[f'wasserstein_{key}']:.3f} ({floor[f'wasserstein_{key}']:.3f})"
            for key in ("density", "volume_per_atom")
        },
        "seconds a crystal": f"{seconds / n:.2f}",
        "rebuilt of held out, %": _rebuilt(name, held_out, seed),
    }
    table = report.per_structure
    valid = [c.to_structure() for c, ok in zip(crystals, table["valid"], strict=True) if ok]
    if name == "zeolite":
        column |= _known_types(table, crystals)
    return column | _energies(name, valid[:relaxed])


def _rebuilt(name: ClassName, most: int, seed: int) -> str:
    """Share of held-out crystals that encoder and decoder give back, of at most 100 atoms."""
    generator = autoperi.load(name)
    test = load_dataset(CLASSES[name].reference, "test", progress=False)
    test = generator.seen(test.select(np.flatnonzero(test.n_atoms() <= 100)))
    chosen = np.random.default_rng(seed).choice(len(test), min(most, len(test)), replace=False)
    truth = list(test.select(chosen))
    decoded = generator.flow.decode(generator.flow.encode(truth), truth)
    matcher, found = MatchSettings().matcher(), 0
    for one, other in zip(truth, decoded, strict=True):
        try:
            pair = (framework(one), framework(other)) if name == "zeolite" else (one, other)
        except FrameworkError:
            continue
        found += matcher.fit(pair[0].to_structure(), pair[1].to_structure())
    return f"{100 * found / len(truth):.1f} of {len(truth)}"


def _known_types(table: Any, crystals: list) -> dict[str, str]:
    """Framework types and genes of what the generator has not seen, found again."""
    nets = autoperi.load("zeolite").seen
    known = nets(load_dataset("zeolites", "train", progress=False))
    hidden = [load_dataset("zeolites", split, progress=False) for split in ("val", "test")]
    types = {
        zeolite.judge(c.to_structure()).identity: c.id for part in hidden for c in part if c.n_atoms <= 300
    }
    drawn = [zeolite.judge(c.to_structure()).identity for c in crystals]
    again = sorted({types[label] for label in drawn if label and label in types})
    unseen = {c.gene for c in nets(CrystalDataset.joined(hidden))} - {c.gene for c in known}
    genes = {str(c.provenance.get("net")) for c in crystals} & unseen
    density = table.loc[table["valid"].astype(bool), "framework_density"]
    return {
        "T per 1,000 Å³, least to most": f"{density.min():.1f} to {density.max():.1f}",
        "held-out IZA types found again": f"{len(again)} ({', '.join(again) or 'none'})",
        "held-out genes found again": f"{len(genes)} of {len(unseen)}",
    }


def _energies(name: ClassName, structures: list[Structure]) -> dict[str, str]:
    """Energy above the relaxed form, and for frameworks above quartz and whether they stay four-connected."""
    settings = RelaxationSettings(keep_symmetry=True)
    done = {
        key: found
        for key, found in relax_together(enumerate([*structures, QUARTZ]), settings)
        if isinstance(found, Relaxed)
    }
    quartz = done.pop(len(structures), None)
    above = [1000 * (r.start_energy_per_atom - r.energy_per_atom) for r in done.values()]
    told = {"above the relaxed form, median meV/atom": f"{np.median(above):.0f} of {len(done)}"}
    if name == "zeolite" and quartz is not None:
        whole = np.mean([zeolite.judge(r.structure).valid for r in done.values()])
        height = [1000 * (r.energy_per_atom - quartz.energy_per_atom) for r in done.values()]
        told |= {
            "four-connected after relaxation, %": f"{100 * whole:.0f} of {len(done)}",
            "above quartz, median (most) meV/atom": f"{np.median(height):.0f} ({np.max(height):.0f})",
        }
    return told


if __name__ == "__main__":
    tyro.cli(main)
