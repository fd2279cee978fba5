"""What each convolution is worth: the same rows of MP-20, the same sizes and fit, one row of a table each.

Run: python scripts/benchmarks/compare_convolutions.py --limit 2000 --epochs 10
Formation energy of the val split, eV/atom; times are processor times of one thread. An interrupted comparison
goes on where it stopped (its training seconds are then those of the rest).
"""

import time
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

from autoperi.data.dataset import load_dataset
from autoperi.training.fit import FitConfig
from property_models.convolutions import CONVOLUTIONS, convolution_class
from property_models.networks.crystal_gnn import CrystalGNNConfig
from property_models.networks.ensemble import Ensemble, figures
from property_models.training.fit_ensemble import LabelledGraphs, PropertyRecipe, fit_members

_NEAREST = 12
"""Neighbours of the networks whose papers keep so many; smooth filters take all within the cutoff."""


def main(limit: int = 2000, epochs: int = 10, width: int = 64, only: tuple[str, ...] = ()) -> None:
    """Train one network of each and print what it is worth."""
    torch.set_num_threads(1)
    train, val = (load_dataset("mp_20", split)[:limit] for split in ("train", "val"))
    fit = FitConfig(epochs=epochs, cooldown=epochs // 2, batch_size=32, warmup=50, ema=0.99)
    out = Path(f"runs/compare_convolutions/{limit}-{epochs}-{width}")
    columns = ("convolution", "MAE", "R2", "parameters", "ms per crystal", "training s")
    table = Table(*columns, title=f"n {limit}")
    for name in only or CONVOLUTIONS:
        nearest = None if convolution_class(name).is_smooth else _NEAREST
        network = CrystalGNNConfig(convolution=name, width=width, layers=3, nearest=nearest)
        recipe = PropertyRecipe(members=1, family=name, network=network, fit=fit).filled()
        seen, held_out = (LabelledGraphs.from_dataset(part, recipe.network) for part in (train, val))
        began = time.process_time()
        ensemble = Ensemble.of(fit_members(recipe, seen, held_out, out / name), name)
        trained = time.process_time()
        with torch.no_grad():
            ensemble.predict(held_out.graphs)
        milliseconds = 1e3 * (time.process_time() - trained) / len(held_out)
        found = figures(ensemble, held_out.graphs, held_out.labels)["formation_energy"]
        size = sum(p.numel() for p in ensemble.parameters())
        row = (f"{found['mae']:.3f}", f"{found['r2']:.3f}", f"{size:,}", f"{milliseconds:.2f}")
        table.add_row(name, *row, f"{trained - began:.0f}")
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
