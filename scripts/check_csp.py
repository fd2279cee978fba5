"""Structure prediction with the true gene and composition: match rate and RMSE by free coordinates.

Run: python scripts/check_csp.py --n 1000 --seed 0     (needs AUTOPERI_DATA or a download)
Matcher: StructureMatcher(stol .5, ltol .3, angle 10), RMSE in units of (V/N)^(1/3), one sample each.
"""

import numpy as np
import torch
import tyro
from pymatgen.analysis.structure_matcher import StructureMatcher
from rich.progress import track

import autoperi
from autoperi.data.dataset import load_dataset
from autoperi.generator import SampleConfig


def main(
    n: int = 1000, seed: int = 0, split: str = "test", checkpoint: str = "mp_20", workers: int = 2
) -> None:
    """Predict n random held-out crystals of MP-20, one sample each."""
    held_out = load_dataset("mp_20", split)
    chosen = np.random.default_rng(seed).choice(len(held_out), min(n, len(held_out)), replace=False)
    truth = list(held_out.select(torch.from_numpy(chosen)))
    drawn = autoperi.load(checkpoint).draw(truth, seed, config=SampleConfig(workers=workers))
    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    pairs = zip(track(truth, "matching"), drawn, strict=True)
    distances = [matcher.get_rms_dist(a.to_structure(), b.to_structure()) for a, b in pairs]
    free = np.array([c.n_free for c in truth])
    for name, low, high in (("all", 0, 999), ("0", 0, 0), ("1-4", 1, 4), ("5-8", 5, 8), (">=9", 9, 999)):
        rows = np.flatnonzero((free >= low) & (free <= high))
        hits = [float(d[0]) for i in rows if (d := distances[i]) is not None]
        print(
            f"free coordinates {name:4s} n {len(rows):5d} match {100 * len(hits) / len(rows):5.1f}% "
            f"RMSE {np.mean(hits) if hits else float('nan'):.4f}"
        )


if __name__ == "__main__":
    tyro.cli(main)
