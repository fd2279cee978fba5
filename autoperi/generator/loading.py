"""Checkpoints of generators: shipped ones by name, others by folder."""

from pathlib import Path
from typing import Any

from autoperi.crystals.device import usable_device
from autoperi.crystals.precision import single_precision
from autoperi.generator.crystal_generator import CrystalGenerator, GeneratorConfig
from autoperi.networks.checkpoint import find_checkpoint, half_precision, restore, write_checkpoint

PRETRAINED = Path(__file__).parents[1] / "pretrained"


MARK = "autoencoder"
"""Tells the configuration of such a checkpoint from others."""


def save(generator: CrystalGenerator, folder: Path, about: dict[str, Any]) -> str:
    """Write a checkpoint folder, weights in `half_precision`; returns their sha256."""
    return write_checkpoint(folder, half_precision(generator), generator.config, about)


@single_precision()
def load(name_or_path: str | Path = "mp_20", device: str = "cpu") -> CrystalGenerator:
    """A trained generator: a name of the shipped checkpoints (first), or a checkpoint folder.

    Raises:
        CheckpointError: no such checkpoint, or a damaged one.
        ValueError: a device that is not there.
    """
    device = usable_device(device)
    folder = find_checkpoint(name_or_path, {path.name: path for path in sorted(PRETRAINED.iterdir())})
    generator, content = restore(folder, GeneratorConfig, CrystalGenerator)
    generator.name, generator.sha256, generator.about = folder.name, content["sha256"], content["about"]
    return generator.to(device).eval()
