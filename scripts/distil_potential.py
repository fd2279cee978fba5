"""Teach our potential what CHGNet says of rattled, strained and substituted MP-20 crystals.

Run: python scripts/distil_potential.py --out runs/potential      (goes on where it was interrupted)
"""

from pathlib import Path

import torch
import tyro
from rich import print as show

from autoperi.dataset import load_dataset
from autoperi.train import FitConfig
from property_models.physics.chgnet_potential import CHGNetPotential
from property_models.physics.distillation import Configurations, distil, disturbed
from property_models.physics.distilled import DistilledConfig


def main(out: Path, configurations: int = 20000, held_out: int = 1000, epochs: int = 40) -> None:
    """Training configurations are drawn around train crystals, held-out ones around val crystals."""
    torch.set_num_threads(1)
    train = _configurations("train", configurations, out)
    val = _configurations("val", held_out, out)
    fitting = FitConfig(epochs=epochs, cooldown=epochs // 2, batch_size=16, lr=3e-3)
    network = distil(train, val, out, fitting, DistilledConfig())
    show({"parameters": sum(p.numel() for p in network.parameters()), "configurations": len(train)})


def _configurations(split: str, n: int, out: Path) -> Configurations:
    file = out / f"{split}-{n}.safetensors"
    if not file.exists():
        crystals = disturbed(list(load_dataset("mp_20", split)), n, seed=0)
        Configurations.labelled(crystals, CHGNetPotential()).save(file)
    return Configurations.read(file)


if __name__ == "__main__":
    tyro.cli(main)
