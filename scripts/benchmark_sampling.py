"""Seconds and memory of sampling, and how they grow with the cell: run once, quote ratios.

Run: python scripts/benchmark_sampling.py --n 1000 --workers 2
"""

import resource
import time

import numpy as np
import torch
import tyro

import autoperi
from autoperi.crystal import Crystal
from autoperi.flow import Solver
from autoperi.generator import SampleConfig
from autoperi.model import FlowSettings, Restart
from autoperi.wyckoff import wyckoff_table


def main(n: int = 1000, workers: int = 2, sizes: tuple[int, ...] = (10, 20, 50, 100, 200)) -> None:
    """Time genes, geometry and, for P1 cells of growing size, one step of one crystal's geometry."""
    generator = autoperi.load("mp_20")
    began = time.perf_counter()
    genes = generator.learned_genes().sample(n, 0)
    middle = time.perf_counter()
    generator.draw(genes, 0, config=SampleConfig(workers=workers))
    print(f"{n} crystals: genes {middle - began:.1f} s, geometry {time.perf_counter() - middle:.1f} s")
    torch.set_num_threads(1)
    p1 = wyckoff_table().index(1, "a")
    for size in sizes:
        gene = Crystal(1, np.full(size, p1), np.full(size, 14), np.zeros((size, 3)), np.zeros(6))
        began = time.perf_counter()
        plain = FlowSettings(Solver(steps=5), Restart(rounds=0), corrections=0)
        generator.draw([gene], 0, config=SampleConfig(flow=plain))
        print(f"{size:4d} atoms, all distinct: {(time.perf_counter() - began) / 5 * 1e3:.0f} ms a step")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    tyro.cli(main)
