"""A decade of crystal graph networks on the same rows of MP-20, with the same budget.

Run: python scripts/compare_convolutions.py --limit 2000 --epochs 10
Formation energy of the val split, eV/atom; times are processor times of one thread.
"""

from dataclasses import astuple
from pathlib import Path
from typing import get_args

import torch
import tyro
from rich.console import Console
from rich.table import Table

from autoperi.data.dataset import load_dataset
from autoperi.training.fit import FitConfig
from property_models.networks.crystal_gnn import Convolution, CrystalGNNConfig
from property_models.training.comparison import compare
from property_models.training.fit_ensemble import PropertyRecipe


def main(limit: int = 2000, epochs: int = 10, width: int = 64, only: tuple[Convolution, ...] = ()) -> None:
    """Train each and print what it is worth."""
    torch.set_num_threads(1)
    train, val = (load_dataset("mp_20", split)[:limit] for split in ("train", "val"))
    fit = FitConfig(epochs=epochs, cooldown=epochs // 2, batch_size=32, warmup=50, ema=0.99)
    recipe = PropertyRecipe(network=CrystalGNNConfig(width=width, layers=3), fit=fit)
    out = Path(f"runs/compare_convolutions/{limit}-{epochs}-{width}")
    table = Table(
        "convolution", "MAE", "R2", "parameters", "ms per crystal", "training s", title=f"n {limit}"
    )
    for row in compare(only or get_args(Convolution), train, val, recipe, out):
        name, mae, r2, parameters, ms, seconds = astuple(row)
        table.add_row(name, f"{mae:.3f}", f"{r2:.3f}", f"{parameters:,}", f"{ms:.2f}", f"{seconds:.0f}")
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
