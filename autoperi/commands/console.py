"""What a command prints: results on standard output, progress and complaints on standard error."""

import os
import sys
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

_WIDE = 240
"""Columns of a file or a pipe, which has no edge: wide tables are not folded into a terminal's 80."""

out = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE)
err = Console(stderr=True)


def summary(title: str, rows: Mapping[str, str]) -> None:
    """Print a small table of names and values."""
    table = Table(title=title, show_header=False, min_width=len(title) + 4)
    for name, value in rows.items():
        table.add_row(name, value)
    out.print(table)


def left_out(failures: Iterable[tuple[str, str, str]]) -> int:
    """Name what could not be used, as (id, where, reason); the exit status, 1 if there was anything."""
    status = 0
    for name, where, reason in failures:
        complain(f"left out: {name} ({where}): {reason}", "yellow")
        status = 1
    return status


def complain(text: str, style: str = "red") -> None:
    """Print one line on standard error, never broken, so that it can be searched for."""
    err.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def progress() -> Progress:
    """A bar that is gone when its work is done."""
    return Progress(console=err, transient=True)
