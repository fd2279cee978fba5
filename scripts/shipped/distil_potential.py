"""Teach our potential what CHGNet says of rattled, strained and substituted MP-20 crystals.

Run: python scripts/shipped/distil_potential.py --out runs/potential      (goes on where it was interrupted)
Then: python scripts/checks/potential.py --folder runs/potential/checkpoint
"""

from dataclasses import asdict
from pathlib import Path

import torch
import tyro

from autoperi.data.dataset import load_dataset
from autoperi.training.fit import FitConfig
from property_models.potentials.chgnet_potential import CHGNetPotential
from property_models.potentials.distillation import Configurations, distil, disturbed
from property_models.potentials.distilled import load, save

_PART = 10_000


def main(
    out: Path,
    configurations: int = 90_000,
    held_out: int = 1000,
    epochs: int = 30,
    lr: float = 2e-3,
    start: Path | None = None,
) -> None:
    """Training configurations are drawn around train crystals, held-out ones around val crystals.

    ``start`` is the checkpoint of a pupil to begin from.
    """
    torch.set_num_threads(1)
    train, val = (_configurations(s, n, out) for s, n in (("train", configurations), ("val", held_out)))
    fitting = FitConfig(
        epochs, cooldown=11 * epochs // 14, batch_size=32, lr=lr, weight_decay=1e-3, devices=1
    )
    network = distil(train, val, out, fitting, start=load(start) if start else None)
    save(network, out / "checkpoint", {"configurations": len(train), "fit": asdict(fitting)})


def _configurations(split: str, n: int, out: Path) -> Configurations:
    """In parts that are kept: an interrupted labelling loses the part it was at."""
    crystals = list(load_dataset("mp_20", split))
    parts = []
    for first in range(0, n, _PART):
        count = min(_PART, n - first)
        file = out / f"{split}-{first}-{first + count}.safetensors"
        if not file.exists():
            drawn = disturbed(crystals, count, seed=0, first=first)
            Configurations.labelled(drawn, CHGNetPotential()).save(file)
        parts.append(Configurations.read(file))
    return Configurations.joined(parts)


if __name__ == "__main__":
    tyro.cli(main)
