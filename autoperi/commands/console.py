"""What a command prints: results on standard output, progress and complaints on standard error."""

import os
import sys
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from autoperi.data.names import one_line

_WIDE = 240
"""Columns of a file or a pipe, which has no edge: wide tables are not folded into a terminal's 80."""

out = Console(
    width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE, markup=False, emoji=False
)
err = Console(stderr=True, markup=False, emoji=False)  # else the gene 221:abc would have a picture


def summary(title: str, rows: Mapping[str, str]) -> None:
    """Print a small table of names and values, as text: no markup, nothing that a terminal would obey."""
    title = one_line(title)
    table = Table(title=Text(title), show_header=False, min_width=len(title) + 4)
    for name, value in rows.items():
        table.add_row(Text(one_line(name)), Text("\n".join(map(one_line, value.split("\n")))))
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
    err.print(one_line(text), style=style, highlight=False, soft_wrap=True)


def progress() -> Progress:
    """A bar that is gone when its work is done; a file or a pipe has none."""
    return Progress(console=err, transient=True, disable=not err.is_terminal)
