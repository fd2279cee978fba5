"""Long drawings in parts: what was drawn outlives an interruption."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from autoperi.crystals.crystal import Crystal
from autoperi.data.files import crystal_of_record, crystal_record

PART = 1000
"""Crystals of a part: batches of like size are made up within it."""


class Drawing:
    """Crystals 0 to n - 1, drawn in parts that are kept in a folder until the drawing is used up.

    Part k holds the crystals from k * PART on and depends on nothing else, so that what was left by a
    drawing that ended at any moment is taken over by the next one.

    Args:
        folder: for the parts; claimed by the caller, so that they are of no other drawing.
        n: crystals in all.
    """

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.n = folder, n

    def crystals(self, draw: Callable[[int, int], Sequence[Crystal]]) -> list[Crystal]:
        """All crystals; ``draw(first, count)`` is asked for the parts that are not there yet.

        Raises:
            ValueError: a part was damaged by other hands.
        """
        found: list[Crystal] = []
        for first in range(0, self.n, PART):
            count, file = min(PART, self.n - first), self.folder / f"{first:09d}.jsonl"
            if file.exists():
                found += _read(file)
                continue
            part = draw(first, count)
            self.folder.mkdir(exist_ok=True)  # a drawing that came to nothing leaves nothing
            _write(part, file)
            found += part
        return found

    def left(self) -> int:
        """Crystals that parts of an earlier drawing already hold."""
        starts = [first for first in range(0, self.n, PART) if (self.folder / f"{first:09d}.jsonl").exists()]
        return sum(min(PART, self.n - first) for first in starts)

    def forget(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(crystals: Sequence[Crystal], file: Path) -> None:
    """Whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text("".join(json.dumps(crystal_record(c)) + "\n" for c in crystals), encoding="utf-8")
    partial.replace(file)


def _read(file: Path) -> list[Crystal]:
    try:
        return [crystal_of_record(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{file} is damaged: delete it, and the crystals are drawn again") from error
