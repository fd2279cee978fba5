"""From a command line to a command; its help has every example on a line of its own.

A command is a frozen dataclass. The first paragraph of its docstring is its sentence, a Google section
``Examples:`` its examples, ``Attributes:`` the help of its options. A field that is a dataclass itself,
``Annotated[Targets, tyro.conf.OmitArgPrefixes]``, is a group of options: the field's name is the heading, the
first paragraph of the class stands below it, and its options keep their short names.
"""

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import tyro

_STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
"""``--stability`` without a ``--no-stability``; what has no default is left out, never called None."""

_ONLY_HOW = {"out", "workers", "device", "data_dir"}


@dataclass(frozen=True)
class Computing:
    """Where it is computed; results do not depend on it.

    Attributes:
        workers: processes that share the work.
        device: of the networks: cpu, cuda or cuda:N.
    """

    workers: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Judging:
    """Where data lie and how the work is shared; results do not depend on it.

    Attributes:
        data_dir: folder of the data sets; default AUTOPERI_DATA, else download.
        workers: processes that share the work.
    """

    data_dir: Path | None = None
    workers: int = 1


@dataclass(frozen=True)
class Generating:
    """Whose networks are used, and where they run.

    Attributes:
        checkpoint: a shipped checkpoint or a checkpoint folder.
        device: cpu, cuda or cuda:N.
    """

    checkpoint: str = "mp_20"
    device: str = "cpu"


def parse(commands: Mapping[str, type], about: str) -> Any:
    """The command that was asked for, from ``sys.argv``; prints help or what is wrong, and exits, if need be.

    Args:
        commands: by name, in the order in which they are listed.
        about: what the program is for.
    """
    name, *rest = sys.argv[1:] or [""]
    if name not in commands:
        known = dict(commands)
        return tyro.extras.subcommand_cli_from_dict(known, prog="autoperi", description=about, config=_STYLE)
    chosen, prog = commands[name], f"autoperi {name}"
    return tyro.cli(chosen, prog=prog, description=_described(chosen), args=rest, config=_STYLE)


def _described(command: type) -> str:
    """The first paragraph and the examples of a docstring; indented lines are kept apart by tyro."""
    text = inspect.getdoc(command) or ""
    sentence = text.partition("\n\n")[0]
    examples = re.search(r"^Examples:\n((?:    .*\n)+)", text, re.MULTILINE)
    return f"{sentence}\n\nExamples\n{examples[1].rstrip()}" if examples else sentence


def named_windows(told: Sequence[str], already: Mapping[str, str]) -> dict[str, str]:
    """What ``--condition NAME=WINDOW`` asks, by name, after what other options ask.

    Raises:
        ValueError: no name and window, or a name that is asked twice.
    """
    windows = dict(already)
    for text in told:
        name, sign, window = text.partition("=")
        if not sign:
            raise ValueError(f"expected --condition as NAME=WINDOW, e.g. band_gap=1.1:1.7: got {text!r}")
        if name in windows:
            raise ValueError(f"expected each condition once: got {name!r} twice")
        windows[name] = window
    return windows


def asked(command: object, **content: str) -> dict[str, Any]:
    """The fields of a command by name, for `run_folder`; where results go and how fast is left out.

    Args:
        command: a dataclass of ``autoperi.commands``.
        content: hashes of what its fields only name, ``checkpoint=generator.sha256``.
    """
    assert is_dataclass(command)
    assert not isinstance(command, type)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(command).__name__).lower()
    fields = {key: value for key, value in _deciding(asdict(command)).items() if key != "path"}
    return {"command": name, **fields, **content}


def _deciding(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _deciding(value) if isinstance(value, dict) else value
        for key, value in fields.items()
        if key not in _ONLY_HOW
    }
