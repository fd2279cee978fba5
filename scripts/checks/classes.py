"""One table over the shipped checkpoints: validity by the rules of each class, novelty, rebuilding, energies.

Run: python scripts/checks/classes.py --n 200 --seed 0 --out classes     (needs AUTOPERI_DATA)
What is drawn stays in the folder, as `autoperi sample --class` writes it. The classes are judged as by
`autoperi evaluate --class`, mp_20 against its train split. Held-out crystals are of the test split, encoded,
and decoded from their true geometry with species hidden; frameworks are given their oxygen again, and
compared with the whole crystal. Energies are CHGNet's, of the first ``relaxed`` valid crystals, relaxed
with their space group kept; times are those of one core.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from pymatgen.core import Lattice, Structure

import autoperi
from autoperi.crystals.crystal import Crystal
from autoperi.data.dataset import load_dataset
from autoperi.frameworks.net import FrameworkError, framework
from evaluation import evaluate, evaluate_class, read_structures
from evaluation.metrics.reconstruction import STRICT_MATCH, reconstruction_metrics, reconstruction_table
from evaluation.options import ClassName
from evaluation.relaxation.relaxation import Relaxed, relax_together
from evaluation.relaxation.settings import RelaxationSettings
from evaluation.report.classes import CLASSES

Name = Literal["mp_20"] | ClassName

QUARTZ = Structure.from_spacegroup(
    "P3_221",
    Lattice.hexagonal(4.913, 5.405),
    ["Si", "O"],
    [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]],
)
"""α-quartz at ambient conditions (Levien, Prewitt and Weidner, Am. Mineral. 65, 920, 1980)."""
DIAMOND = Structure.from_spacegroup("Fd-3m", Lattice.cubic(3.567), ["C"], [[0, 0, 0]])
KNOWN = {"zeolite": ("quartz", QUARTZ), "carbon": ("diamond", DIAMOND)}
"""Crystals above which heights are told, relaxed alike."""
_SHARES = ("valid", "uniqueness", "novelty", "valid_unique_novel")
_DISTANCES = ("wasserstein_density", "wasserstein_volume_per_atom")
_COLUMNS = (
    "",
    "n",
    "valid %",
    "unique %",
    "novel %",
    "all three %",
    "W(density), g/cm³ (floor)",
    "W(volume per atom), Å³ (floor)",
    "held out, rebuilt %",
    "RMSE",
    "MSE of atoms / bonds / cell lengths, Å²",
    "above relaxed form, median meV/atom",
    "valid when relaxed %",
    "above a known crystal, median (least) meV/atom",
    "s a crystal",
)


def main(
    names: tyro.conf.Positional[tuple[Name, ...]] = ("mp_20", "perovskite", "carbon", "zeolite"),
    n: int = 200,
    seed: int = 0,
    relaxed: int = 50,
    held_out: int = 200,
    out: Path = Path("classes"),
) -> None:
    """Draw, judge, rebuild what is held out, relax; a row for each checkpoint."""
    torch.set_num_threads(1)
    print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
    for name in names:
        print(f"| {' | '.join(_row(name, n, seed, relaxed, held_out, out / name))} |", flush=True)


def _row(name: Name, n: int, seed: int, relaxed: int, held_out: int, out: Path) -> list[str]:
    generator = autoperi.load(name)
    began = time.process_time()
    crystals = generator.sample(n, seed)
    seconds = (time.process_time() - began) / n
    run = {"seed": seed, "checkpoint": {"name": name, "sha256": generator.sha256}}
    autoperi.write_crystals(crystals, out, run)
    read = read_structures(out)
    report = evaluate(read, reference=name) if name == "mp_20" else evaluate_class(read, name)
    valid = report.per_structure["valid"].to_numpy(dtype=bool)
    good = [structure for structure, ok in zip(read.structures, valid, strict=True) if ok]
    figures = report.metrics
    return [
        name,
        str(len(crystals)),
        *(f"{100 * figures[key].value:.1f}" for key in _SHARES),
        *(f"{figures[key].value:.3f} ({figures[key].floor or 0:.3f})" for key in _DISTANCES),
        *_rebuilt(generator, "mp_20" if name == "mp_20" else CLASSES[name].reference, held_out, seed),
        *_energies(name, good[:relaxed]),
        f"{seconds:.2f}",
    ]


def _rebuilt(generator: autoperi.CrystalGenerator, data: str, most: int, seed: int) -> list[str]:
    """Match rate and errors of held-out crystals of at most 100 atoms, encoded and decoded."""
    test = load_dataset(data, "test", progress=False)
    test = test.select(np.flatnonzero(test.n_atoms() <= 100))
    whole = {crystal.id: crystal for crystal in test}
    seen = generator.seen(test)
    chosen = np.random.default_rng(seed).choice(len(seen), min(most, len(seen)), replace=False)
    truth = list(seen.select(chosen))
    decoded = generator.flow.decode(generator.flow.encode(truth), truth)
    nets = generator.config.sites != "all"
    rebuilt = [_completed(crystal) if nets else crystal.to_structure() for crystal in decoded]
    targets = [whole[crystal.id].to_structure() for crystal in truth]
    found = reconstruction_metrics(reconstruction_table(rebuilt, targets, STRICT_MATCH), STRICT_MATCH)
    errors = [f"{found[key].value:.1e}" for key in ("coordinate_mse", "bond_mse", "length_mse")]
    rate = f"{100 * found['match_rate'].value:.1f} of {len(truth)}"
    return [rate, f"{found['rmse'].value:.4f}", " / ".join(errors)]


def _completed(net: Crystal) -> Structure | None:
    try:
        return framework(net).to_structure()
    except FrameworkError:
        return None


def _energies(name: Name, structures: Sequence[Structure]) -> list[str]:
    """Height above the relaxed form, validity of that, height above a known crystal."""
    told, known = KNOWN.get(name, ("", None))
    asked = dict(enumerate([*structures, *([known] if known else [])]))
    settings = RelaxationSettings(keep_symmetry=True)
    done = {key: r for key, r in relax_together(asked.items(), settings) if isinstance(r, Relaxed)}
    ground = done.pop(len(structures)) if known else None
    above = [1000 * (r.start_energy_per_atom - r.energy_per_atom) for r in done.values()]
    row = [f"{np.median(above):.0f} of {len(done)}", "", ""]
    if name != "mp_20":
        row[1] = f"{100 * np.mean([CLASSES[name].judge(r.structure).valid for r in done.values()]):.0f}"
    if ground:
        heights = [1000 * (r.energy_per_atom - ground.energy_per_atom) for r in done.values()]
        row[2] = f"{told}: {np.median(heights):.0f} ({np.min(heights):.0f})"
    return row


if __name__ == "__main__":
    tyro.cli(main)
