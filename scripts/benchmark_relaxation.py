"""Relaxations per minute: CHGNet's own relaxer one by one, the batch, and the batch with symmetry kept.

Run: python scripts/benchmark_relaxation.py --path samples.zip --n 24      (any file `read_structures` knows)
One thread; rates by processor time, so that other work on the machine does not count.
"""

import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import tyro
from chgnet.model.dynamics import StructOptimizer
from pymatgen.core import Structure

from evaluation import read_structures
from evaluation.relaxation import RelaxationSettings, Relaxed, relax_together


def one_by_one(crystals: list[tuple[str, Structure]]) -> Iterator[tuple[str, float, int]]:
    """CHGNet's own relaxer: names, energies per atom, steps."""
    with contextlib.redirect_stdout(io.StringIO()):
        own = StructOptimizer(use_device="cpu")
        runs = [own.relax(s.copy(), fmax=0.1, steps=500, verbose=False)["trajectory"] for _, s in crystals]
    yield from ((k, t.energies[-1] / len(s), len(t) - 2) for (k, s), t in zip(crystals, runs, strict=True))


def main(path: Path, n: int = 24) -> None:
    """Relax the first n crystals of a file in three ways and compare speed, steps and energies."""
    torch.set_num_threads(1)
    crystals = [(s.id, s.structure) for s in read_structures(path, limit=n).samples]
    own, seconds = {}, 0.0
    for mode in ("CHGNet StructOptimizer", "batched", "batched, symmetry kept"):
        together = relax_together(crystals, RelaxationSettings(keep_symmetry="kept" in mode))
        done = ((k, r.energy_per_atom, r.steps) for k, r in together if isinstance(r, Relaxed))
        started = time.process_time()
        found = list(done if own else one_by_one(crystals))
        spent = time.process_time() - started
        own, seconds = own or {k: e for k, e, _ in found}, seconds or spent
        off = np.percentile([1000 * abs(e - own[k]) for k, e, _ in found], [50, 90, 100]).round(3)
        print(f"{mode}: {len(found)} crystals, {sum(s for *_, s in found)} steps, {spent:.1f} s, ", end="")
        print(
            f"{60 * len(found) / spent:.1f} a minute ({seconds / spent:.2f}x), |dE| 50/90/100% {off} meV/atom"
        )


if __name__ == "__main__":
    tyro.cli(main)
