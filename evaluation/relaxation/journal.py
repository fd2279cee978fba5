"""Results written down one by one, as JSON lines, so that a killed run continues where it stood."""

import json
from pathlib import Path
from typing import Any


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Records in the order they were written; a line cut off by a kill is skipped, no file holds none."""
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict):
                records.append(record)
    return records


def end_last_line(path: Path) -> None:
    """Close a line that a kill left open, so that the next record does not join it."""
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        with path.open("a") as stream:
            stream.write("\n")


def append(path: Path, record: dict[str, Any]) -> None:
    """Write one record; once this returns, the end of the process does not lose it."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
