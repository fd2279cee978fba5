"""What a command was asked for, as far as it decides the results."""

import re
from dataclasses import asdict, is_dataclass
from typing import Any

_ONLY_HOW = {"out", "workers", "device", "data_dir"}


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
