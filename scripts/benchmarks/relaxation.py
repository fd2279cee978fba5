"""Relaxations per minute: CHGNet's own relaxer one by one, the batch, and the batch with symmetry kept.

Run: python scripts/benchmarks/relaxation.py --path samples.zip --n 24
(any file that `read_structures` knows)
One thread; rates by processor time, so that other work on the machine does not count.
"""

import time
from pathlib import Path

import numpy as np
import torch
import tyro
from chgnet.model.dynamics import StructOptimizer

from evaluation import read_structures
from evaluation.relaxation.relaxation import RelaxationSettings, Relaxed, relax_together


def main(path: Path, n: int = 24) -> None:
    """Relax the first n crystals of a file in three ways and compare speed, steps and energies."""
    torch.set_num_threads(1)
    crystals = {s.id: s.structure for s in read_structures(path, limit=n).samples}
    alone, started = StructOptimizer(use_device="cpu"), time.process_time()
    runs = {k: alone.relax(s, fmax=0.1, steps=500, verbose=False)["trajectory"] for k, s in crystals.items()}
    own_rate = 60 * len(runs) / (time.process_time() - started)
    energies = {k: run.energies[-1] / len(crystals[k]) for k, run in runs.items()}  # type: ignore
    print(f"CHGNet alone: {own_rate:.1f} a minute, {sum(len(r) - 2 for r in runs.values())} steps")
    for keep in (False, True):
        started = time.process_time()
        done = list(relax_together(crystals.items(), RelaxationSettings(keep_symmetry=keep)))
        rate = 60 * len(done) / (time.process_time() - started)
        found = {k: r for k, r in done if isinstance(r, Relaxed)}
        off = [1000 * abs(r.energy_per_atom - energies[k]) for k, r in found.items()]
        print(f"batched{', symmetry kept' * keep}: {rate:.1f} a minute ({rate / own_rate:.2f}x), ", end="")
        print(f"{sum(r.steps for r in found.values())} steps, {len(done) - len(found)} failed; ", end="")
        print(f"|dE| 50/90/100%: {np.percentile(off, [50, 90, 100]).round(3)} meV/atom")


if __name__ == "__main__":
    tyro.cli(main)
