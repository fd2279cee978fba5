"""From a command line to a command; its help has every example on a line of its own.

A command is a frozen dataclass. The first paragraph of its docstring is its sentence, a Google section
``Examples:`` its examples, ``Attributes:`` the help of its options. A field that is a dataclass itself,
``Annotated[Targets, tyro.conf.OmitArgPrefixes]``, is a group of options: the field's name is the heading, the
first paragraph of the class stands below it, and its options keep their short names.
"""

import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any

import tyro

_STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
"""``--stability`` without a ``--no-stability``; what has no default is left out, never called None."""


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
