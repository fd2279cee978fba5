"""Checkpoints: ``model.safetensors`` + ``config.json`` + ``MODEL_CARD.md`` in a folder."""

import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from autoperi.data.cache import written_whole
from autoperi.networks.config import build

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)

FORMAT = 1
"""Raised when an older reader could not read a newer checkpoint."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another format; the text says what to do."""


def refuse_divergence(model: nn.Module, of: str = "a training") -> None:
    """Raise ValueError for a parameter that is not finite in float16, naming it and its training."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.detach().half().isfinite().all()):
            raise ValueError(
                f"{of} has diverged: {name} holds NaN, infinity or a number beyond float16; begin anew with "
                "a lower lr"
            )


def half_precision(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with its parameters of two and more axes rounded to float16; other entries as they are.

    Half the size on disk, at a relative error of 5e-4 a weight; they are float32 again once loaded.

    Raises:
        ValueError: a parameter that is not finite in float16, as a training that has diverged leaves it.
    """
    refuse_divergence(model)
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
    data = save({k: v.detach().cpu().contiguous() for k, v in weights.items()})
    digest = hashlib.sha256(data).hexdigest()
    content = {"format": FORMAT, "sha256": digest, "config": dataclasses.asdict(config), "about": about}
    with written_whole(folder / "model.safetensors") as part:
        part.write_bytes(data)
    with written_whole(folder / "config.json") as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
    return digest


def find_checkpoint(name_or_path: str | Path, shipped: Mapping[str, Path]) -> Path:
    """Folder of a checkpoint: names of shipped ones first, whatever lies in the working directory.

    Args:
        name_or_path: a name, or a folder; a ``Path`` is always a folder.
        shipped: folders by name.

    Raises:
        CheckpointError: neither; the names are listed.
    """
    if isinstance(name_or_path, str) and name_or_path in shipped:
        return shipped[name_or_path]
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        raise CheckpointError(
            f"expected a checkpoint folder or one of {', '.join(shipped)}: got {str(name_or_path)!r}, which "
            "is neither"
        )
    return folder


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


def restore(folder: Path, kind: type[C], make: Callable[[C], M]) -> tuple[M, dict[str, Any]]:
    """A model with the weights of a checkpoint, and the content of its ``config.json``.

    Memory is taken for no more parameters than there are in the file, whatever sizes config.json claims.

    Args:
        folder: the checkpoint.
        kind: the dataclass of its configuration.
        make: builds the model from it.

    Raises:
        CheckpointError: a missing, damaged or foreign file, or sizes that do not fit the weights.
    """
    content = read_config(folder)
    file = folder / "model.safetensors"
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != content["sha256"]:
        raise CheckpointError(
            f"{file} is damaged: its sha256 is {digest[:12]}..., config.json says "
            f"{str(content['sha256'])[:12]}...; fetch or train it again"
        )
    try:
        weights = load(data)
        with _at_most(sum(tensor.numel() for tensor in weights.values())):
            model = make(build(kind, content["config"]))
        _refuse_no_numbers(weights, model, file)
        model.load_state_dict(weights)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{file} does not fit its config.json: {reason}") from error
    return model, content


def _refuse_no_numbers(weights: Mapping[str, Tensor], model: nn.Module, file: Path) -> None:
    """Raise where a weight is NaN or infinite; a limit that is infinite in a new model may stay so."""
    own = model.state_dict()
    for name in (n for n in weights if n in own and bool(own[n].isfinite().all())):
        bad = int((~weights[name].isfinite()).sum())
        if bad:
            raise CheckpointError(
                f"expected finite weights in {file}: got NaN or infinity in {bad} of "
                f"{weights[name].numel()} numbers of {name!r}; fetch or train it again"
            )


@contextmanager
def _at_most(numbers: int) -> Iterator[None]:
    """Refuse to register more parameters than this in this thread, before their memory is written to."""
    thread, registered = threading.get_ident(), 0

    def count(_: nn.Module, __: str, parameter: nn.Parameter | None) -> None:
        nonlocal registered
        if threading.get_ident() == thread and parameter is not None:
            registered += parameter.numel()
            if registered > numbers:
                raise RuntimeError(f"it asks for more than the {numbers} numbers of the weights")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


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
