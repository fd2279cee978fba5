"""Checkpoints of generators: shipped ones by name, others by folder."""

from pathlib import Path
from typing import Any

from autoperi.crystals.device import usable_device
from autoperi.crystals.precision import single_precision
from autoperi.generator.config import GeneratorConfig
from autoperi.generator.crystal_generator import CrystalGenerator
from autoperi.networks.checkpoint import (
    CheckpointError,
    find_checkpoint,
    half_precision,
    restore,
    write_checkpoint,
)

PRETRAINED = Path(__file__).parents[1] / "pretrained"
USUAL = "mp_20"
"""Name of the checkpoint of inorganic crystals, which is used where none is named."""
MARK = "autoencoder"
"""Tells the configuration of such a checkpoint from others."""


def shipped() -> dict[str, Path]:
    """Folders of the shipped checkpoints by name: that of inorganic crystals, and one for each class."""
    return {file.parent.name: file.parent for file in sorted(PRETRAINED.glob("*/config.json"))}


def classes() -> dict[str, Path]:
    """Folders of the classes for which a checkpoint is shipped."""
    return {name: folder for name, folder in shipped().items() if name != USUAL}


def of_class(name: str) -> Path:
    """Folder of the checkpoint of a class.

    Raises:
        CheckpointError: no such class, or one without weights; the message says what there is.
    """
    known = classes()
    if name in known:
        return known[name]
    if (PRETRAINED / name / "recipes").is_dir() and name != USUAL:
        raise CheckpointError(
            f"expected weights of class {name!r}: this version has only its recipe; autoperi train --config "
            f"{name} --out runs/{name} trains it, --checkpoint runs/{name}/checkpoint then draws"
        )
    raise CheckpointError(
        f"expected a class among {', '.join(known) or 'none'}: got {name!r}; inorganic crystals are drawn "
        "without --class, by a checkpoint of your own with --checkpoint FOLDER"
    )


def save(generator: CrystalGenerator, folder: Path, about: dict[str, Any]) -> str:
    """Write a checkpoint folder, weights in `half_precision`; returns their sha256."""
    return write_checkpoint(folder, half_precision(generator), generator.config, about)


@single_precision()
def load(name_or_path: str | Path = USUAL, device: str = "cpu") -> CrystalGenerator:
    """A trained generator: the name of a shipped one (first), which may be a class, or a checkpoint folder.

    Raises:
        CheckpointError: no such checkpoint, or a damaged one.
        ValueError: a device that is not there.
    """
    device = usable_device(device)
    folder = find_checkpoint(name_or_path, shipped())
    generator, content = restore(folder, GeneratorConfig, CrystalGenerator)
    generator.name, generator.sha256, generator.about = folder.name, content["sha256"], content["about"]
    return generator.to(device).eval()
