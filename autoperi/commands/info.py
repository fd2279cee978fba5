"""The info command."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from autoperi.commands import console


@dataclass(frozen=True)
class Info:
    """Show what is shipped, or what a checkpoint is: sizes, provenance, held-out figures, hash.

    Examples:
        autoperi info
        autoperi info band_gap_judge

    Attributes:
        checkpoint: a shipped checkpoint or a checkpoint folder, of a generator or of a property model;
            without it, the names of all that are shipped.
        out: folder for info.json, if wanted.
    """

    checkpoint: Annotated[str, tyro.conf.Positional] = ""
    out: Path | None = None

    def run(self) -> int:
        """Print and, if asked, write."""
        from autoperi.data.cache import written_whole
        from property_models.catalogue import described, sizes

        title, rows = "shipped", sizes()
        if self.checkpoint:
            name, rows = described(self.checkpoint)
            title = f"checkpoint {name}"
        console.summary(title, rows)
        if self.out:
            told = json.dumps({"name": self.checkpoint or title, **rows}, indent=1)
            with written_whole(self.out / "info.json") as part:
                part.write_text(told + "\n", encoding="utf-8")
        return 0
