"""What is shipped, and what any checkpoint is: generators, property models and potentials alike."""

from pathlib import Path

from autoperi.generator import loading
from autoperi.networks.checkpoint import CheckpointError, find_checkpoint, read_config
from property_models import model
from property_models.potentials import distilled

_KINDS = (loading, model, distilled)


def shipped() -> dict[str, Path]:
    """Folder of every shipped checkpoint by its name."""
    folders = [*loading.shipped().values(), *model.PRETRAINED.iterdir(), distilled.SHIPPED]
    return {folder.name: folder for folder in sorted(folders)}


def sizes() -> dict[str, str]:
    """How large each shipped checkpoint is."""
    files = {name: [*folder.iterdir()] for name, folder in shipped().items()}
    return {name: f"{sum(f.stat().st_size for f in own) / 1e6:.1f} MB" for name, own in files.items()}


def find(name_or_path: str | Path) -> Path:
    """Folder of a checkpoint, given as such or by its shipped name; raises CheckpointError for neither."""
    return find_checkpoint(name_or_path, shipped())


def described(name_or_path: str | Path) -> tuple[str, dict[str, str]]:
    """Name of a checkpoint, and what it is in words: sizes, provenance, held-out figures, hash.

    Raises:
        CheckpointError: no such checkpoint, one of another package, or a damaged one.
    """
    folder = find(name_or_path)
    config = read_config(folder)["config"]
    kind = next((kind for kind in _KINDS if kind.MARK in config), None)
    if kind is None:
        raise CheckpointError(f"expected a checkpoint of this package: {folder} has {[*config]}")
    return folder.name, kind.load(folder).describe()
