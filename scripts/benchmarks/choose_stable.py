"""Crystals of anybody's file that the energy model puts near the hull, as CIFs: what choosing alone is worth.

Run: python scripts/benchmarks/choose_stable.py diffcsp_mp20.npz --out kept
"""

from pathlib import Path

import numpy as np
import torch
import tyro

import property_models
from evaluation import read_structures


def main(
    path: tyro.conf.Positional[Path], out: Path, n: int = 1000, most: int = 200, limit: float = 0.05
) -> None:
    """Of ``n`` crystals at random (seed 0) the first ``most`` within ``limit`` eV/atom of the hull."""
    torch.set_num_threads(1)
    samples = read_structures(path).samples
    some = [samples[k] for k in np.random.default_rng(0).permutation(len(samples))[:n]]
    told = property_models.load("e_above_hull").predict([sample.structure for sample in some])
    kept = np.flatnonzero(told["value"] <= limit)
    out.mkdir(parents=True)
    for number, k in enumerate(kept[:most]):
        some[k].structure.to(filename=str(out / f"{number:04d}.cif"))
    share = len(kept) / len(some)
    print(f"{len(kept)} of {len(some)} within {limit} eV/atom ({share:.1%}), {len(kept[:most])} in {out}")


if __name__ == "__main__":
    tyro.cli(main)
