"""Teach our potential what CHGNet says of rattled, strained and substituted MP-20 crystals.

Run: python scripts/distil_potential.py --out runs/potential      (goes on where it was interrupted)
Then: python scripts/check_potential.py --folder runs/potential/checkpoint
"""

from dataclasses import asdict
from pathlib import Path

import torch
import tyro

from autoperi.dataset import load_dataset
from autoperi.train import FitConfig
from property_models.physics.chgnet_potential import CHGNetPotential
from property_models.physics.distillation import Configurations, distil, disturbed
from property_models.physics.distilled import DistilledConfig, save


def main(out: Path, configurations: int = 30000, held_out: int = 1000, epochs: int = 42) -> None:
    """Training configurations are drawn around train crystals, held-out ones around val crystals."""
    torch.set_num_threads(1)
    sets = {"train": configurations, "val": held_out}
    train, val = (_configurations(split, n, out / f"{split}-{n}.safetensors") for split, n in sets.items())
    fitting = FitConfig(epochs, cooldown=32 * epochs // 42, batch_size=32, lr=2e-3, weight_decay=1e-3)
    network = distil(train, val, out, fitting, DistilledConfig())
    save(network, out / "checkpoint", {"configurations": len(train), "fit": asdict(fitting)})


def _configurations(split: str, n: int, file: Path) -> Configurations:
    if not file.exists():
        crystals = disturbed(list(load_dataset("mp_20", split)), n, seed=0)
        Configurations.labelled(crystals, CHGNetPotential()).save(file)
    return Configurations.read(file)


if __name__ == "__main__":
    tyro.cli(main)
