"""Seconds and memory of sampling and of training, and how they grow with the cell: run once, quote ratios.

Run: python scripts/benchmarks/generator.py --n 1000 --workers 2
GPU: python scripts/benchmarks/generator.py --n 10000 --device cuda --batch-size 1024 --trained 512
"""

import copy
import resource
import time

import numpy as np
import torch
import tyro

import autoperi
from autoperi.crystals.crystal import Crystal
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.data.dataset import CrystalDataset
from autoperi.flow.settings import FlowSettings, Restart, Solver, StartSettings
from autoperi.generator import CrystalGenerator, SampleConfig
from autoperi.training.fit import FitConfig
from autoperi.training.stages import FlowTraining, TrainingSet


def main(
    n: int = 1000,
    workers: int = 2,
    sizes: tuple[int, ...] = (10, 20, 50, 100, 200),
    device: str = "cpu",
    batch_size: int = 128,
    trained: int = 128,
) -> None:
    """Time genes, geometry and training; then, for one P1 cell of growing size, a step of either.

    Args:
        n: crystals drawn, all from noise.
        workers: threads.
        sizes: atoms of the growing cell.
        device: of the networks.
        batch_size: crystals integrated together.
        trained: crystals of a training step.
    """
    generator = autoperi.load("mp_20", device)
    began = time.perf_counter()
    genes = generator.learned_genes().sample(range(n), 0)
    middle = time.perf_counter()
    noise = FlowSettings(batch_size=batch_size, start=StartSettings("noise"))
    drawn = generator.draw(genes, 0, config=SampleConfig(flow=noise, workers=workers))
    print(f"{n} crystals: genes {middle - began:.1f} s, geometry {time.perf_counter() - middle:.1f} s")
    torch.set_num_threads(1)
    batch = drawn[:trained]
    rate = len(batch) / _training_step(generator, batch)
    print(f"training of the flow, one thread, paths and graphs included: {rate:.0f} crystals/s")
    if torch.cuda.is_available():
        print(f"peak memory of the device {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")
    p1 = wyckoff_table().index(1, "a")
    for size in sizes:
        gene = Crystal(1, np.full(size, p1), np.full(size, 14), np.zeros((size, 3)), np.zeros(6))
        began = time.perf_counter()
        plain = FlowSettings(Solver(steps=5), Restart(rounds=0), corrections=0)
        cells = generator.draw([gene], 0, config=SampleConfig(flow=plain))
        sampling = (time.perf_counter() - began) / 5
        training = _training_step(generator, cells)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{size:4d} atoms, all distinct: a step of sampling {sampling * 1e3:.0f} ms, of training "
            f"{training * 1e3:.0f} ms; peak memory {peak:.2f} GB"
        )


def _training_step(generator: CrystalGenerator, crystals: list[Crystal], repeats: int = 3) -> float:
    """Seconds of loss and gradients of one batch, after one to warm up."""
    with torch.no_grad():
        data = TrainingSet.from_dataset(CrystalDataset.from_crystals(crystals), generator.config.conditions)
        data = data.encoded(generator.flow.autoencoder.encoder)
        data = data.to(next(generator.flow.parameters()).device)
    training = FlowTraining(copy.deepcopy(generator.flow.velocity).train(), FitConfig())
    draws = torch.Generator().manual_seed(0)
    for turn in range(repeats + 1):
        if turn == 1:
            began = time.perf_counter()
        training.loss(data, draws)["total"].backward()
    return (time.perf_counter() - began) / repeats


if __name__ == "__main__":
    tyro.cli(main)
