"""What a command prints: results on standard output, progress and complaints on standard error."""

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

out = Console()
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
        err.print(f"left out: {name} ({where}): {reason}", style="yellow", highlight=False, markup=False)
        status = 1
    return status


def progress() -> Progress:
    """A bar that is gone when its work is done."""
    return Progress(console=err, transient=True)
