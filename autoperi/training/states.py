"""Files of a training's weights and states: whole or not there, and read without executing anything."""

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from autoperi.data.cache import written_whole
from autoperi.data.run_folder import FolderError


def write_state(file: Path, state: Any) -> None:
    """Write what torch can save: whole, or not at all; raises OSError with the file's name."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        with written_whole(file) as part, part.open("wb") as stream:
            stream.write(buffer.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        text = f"{error.strerror}; what was trained before is kept"
        raise OSError(error.errno, text, str(file)) from error


def read_state(file: Path) -> dict[str, Any]:
    """What ``write_state`` wrote, without executing anything; raises FolderError for a damaged file."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises a dozen kinds
        raise FolderError(
            f"{file} is damaged, or not ours ({type(error).__name__}): delete it, and run again to begin "
            "this part of the training anew"
        ) from error


def averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint of `fit`, keyed as the bare network's."""
    state = read_state(checkpoint)["state_dict"]
    return {key.removeprefix("network."): value for key, value in state.items()}


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} ".encode() + weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints as `write_state` and `read_state` have them, in the training's own folder."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Called by Lightning."""
        del storage_options
        write_state(Path(path), checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Called by Lightning."""
        del map_location, weights_only
        return read_state(Path(path))
