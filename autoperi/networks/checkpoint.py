"""Checkpoints: ``model.safetensors`` + ``config.json`` + ``MODEL_CARD.md`` in a folder."""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

T = typing.TypeVar("T")

FORMAT = 1
"""Raised when an older reader could not read a newer checkpoint."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another format; the text says what to do."""


def half_precision(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with its parameters of two and more axes rounded to float16; other entries as they are.

    Half the size on disk, at a relative error of 5e-4 a weight; they are float32 again once loaded.
    """
    matrices = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    return {k: v.detach().half() if k in matrices else v for k, v in model.state_dict().items()}


def write_checkpoint(folder: Path, weights: Mapping[str, Tensor], config: Any, about: dict[str, Any]) -> str:
    """Write weights and typed config; returns the weights' sha256.

    Args:
        folder: created if absent; files in it are replaced.
        weights: state dict of the model.
        config: the dataclass the model is rebuilt from.
        about: provenance kept beside it: data hashes, versions, command, seed, figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    content = {"format": FORMAT, "sha256": digest, "config": dataclasses.asdict(config), "about": about}
    (folder / "config.json").write_text(json.dumps(content, indent=1) + "\n")
    return digest


def read_config(folder: Path) -> dict[str, Any]:
    """The content of ``config.json``; raises CheckpointError for anything but a whole checkpoint."""
    missing = [n for n in ("config.json", "model.safetensors") if not (folder / n).is_file()]
    if missing:
        inside = folder / "checkpoint"
        hint = f"; did you mean {inside}?" if (inside / "config.json").is_file() else ""
        raise CheckpointError(
            f"expected a checkpoint folder with config.json and model.safetensors: {folder} "
            f"lacks {' and '.join(missing)}{hint}"
        )
    try:
        content = json.loads((folder / "config.json").read_text())
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"expected checkpoint format {FORMAT}: {folder} has {content['format']}; "
                "install the matching version"
            )
        missing = {"config", "sha256", "about"} - set(content)
        if missing:
            raise KeyError(*missing)
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is damaged ({error!r}): fetch it again") from error
    return content


def read_weights(folder: Path, model: nn.Module, sha256: str) -> None:
    """Load weights into ``model``; raises CheckpointError where a byte differs or shapes do not fit."""
    weights = folder / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != sha256:
        raise CheckpointError(
            f"{weights} is damaged: its sha256 is {digest[:12]}..., config.json says {sha256[:12]}...; "
            "fetch or train it again"
        )
    try:
        model.load_state_dict(load_file(weights))
    except RuntimeError as error:
        raise CheckpointError(f"{weights} does not fit its config.json: {error}") from error


def build(kind: type[T], values: dict[str, Any]) -> T:
    """A (nested) config dataclass from plain JSON values; raises CheckpointError for unknown keys."""
    hints = typing.get_type_hints(kind)
    unknown = set(values) - set(hints)
    if unknown:
        raise CheckpointError(f"{kind.__name__} has no {sorted(unknown)}; known: {sorted(hints)}")
    arguments = {}
    for name, value in values.items():
        hint = hints[name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            value = build(hint, value)
        elif typing.get_origin(hint) is dict and dataclasses.is_dataclass(typing.get_args(hint)[1]):
            value = {key: build(typing.get_args(hint)[1], part) for key, part in value.items()}
        elif typing.get_origin(hint) is tuple and value is not None:
            value = tuple(value)
        arguments[name] = value
    return kind(**arguments)


def readable(about: Mapping[str, Any]) -> dict[str, str]:
    """The ``about`` of a checkpoint, for people: a line for each part of a nested entry."""
    return {name: _lines(value) for name, value in about.items()}


def _lines(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return "\n".join(f"{name}: {_line(part)}" for name, part in value.items())


def _line(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(
        f"{name} ({_line(v)})" if isinstance(v, dict) else f"{name} {_line(v)}" for name, v in value.items()
    )


class Arrays(nn.Module):
    """Named constant tensors inside a state dict; names and shapes are taken from what is loaded."""

    def put(self, arrays: dict[str, Tensor]) -> None:
        """Keep tensors under their names."""
        for name, tensor in arrays.items():
            self.register_buffer(name, tensor)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *_: Any) -> None:
        self.put({k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)})
