"""Our potential against CHGNet on disturbed MP-20 test crystals it has not seen: errors and speed.

Run: python scripts/checks/potential.py --n 1000 --threads 2
Mean absolute errors of energies (meV/atom), force components (meV/Å) and stress components (meV/Å³).
"""

from pathlib import Path
from timeit import timeit

import torch
import tyro

from autoperi.crystals.crystal import CrystalBatch
from autoperi.data.dataset import load_dataset
from property_models.potentials.chgnet_potential import CHGNetPotential
from property_models.potentials.distillation import Configurations, Disturbance, disturbed, imitation_errors
from property_models.potentials.distilled import SHIPPED, load

KINDS = {"rattled": (1.0, 0.0), "one element replaced": (1.0, 1.0), "mixture of the training": (0.5, 0.25)}


@torch.no_grad()
def main(n: int = 1000, folder: Path = SHIPPED, threads: int = 1) -> None:
    """Rattled crystals; the same with one element replaced; those of the training's mixture."""
    torch.set_num_threads(threads)
    ours, teacher, crystals = load(folder), CHGNetPotential(), list(load_dataset("mp_20", "test"))
    for name, (rattled, substituted) in KINDS.items():
        how = Disturbance(rattled=rattled, substituted=substituted)
        truth = Configurations.labelled(disturbed(crystals, n, 1, how), teacher, batch_size=64)
        sums = dict.fromkeys(("energy", "force", "stress"), 0.0)
        for part in (truth.select(rows) for rows in torch.arange(len(truth)).split(64)):
            errors = imitation_errors(ours(part.crystals), part)
            sums = {k: v + 1000 * float(errors[k]) * len(part) / len(truth) for k, v in sums.items()}
        print(f"{name} ({len(truth)}): {', '.join(f'{k} {v:.1f}' for k, v in sums.items())}")
    batch = CrystalBatch.from_crystals(disturbed(crystals, 64, 2)).to(dtype=torch.float32)
    a, b = (timeit(lambda p=p: p(batch), "", number=6) / 6 for p in (teacher, ours))
    print(f"64 crystals, {threads} threads: CHGNet {a:.3f} s, ours {b:.3f} s ({a / b:.1f}x)")


if __name__ == "__main__":
    tyro.cli(main)
