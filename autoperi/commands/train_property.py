"""The train-property command."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from autoperi.commands import console


@dataclass(frozen=True)
class Learning:
    """How training goes.

    Attributes:
        start: checkpoint to start from, a shipped one (`autoperi info`) or a folder: few labels go further.
        search: trials of a search for better sizes and learning rate first (needs the extra `search`).
        seed: overrides the recipe's.
        workers: processes that symmetrise, and networks trained at once.
    """

    start: str | None = None
    search: int = 0
    seed: int | None = None
    workers: int = 2


@dataclass(frozen=True)
class TrainProperty:
    """Learn any numeric columns of a table of crystals; an interrupted run resumes where it stood.

    Examples:
        autoperi train-property mine.csv --targets toughness --out runs/toughness
        autoperi predict new.csv --checkpoint runs/toughness/checkpoint --out predicted

    Attributes:
        table: CSV with a column cif, poscar or structure, or anything readable that carries numbers.
        targets: columns to learn together; empty cells are missing labels.
        out: folder of logs, resumable checkpoints, the finished checkpoint and run.json.
        config: TOML file with what is to differ from the default recipe, e.g. members = 5 and, in a
            section [fit], epochs = 100; `property_models/training/recipe.toml` names every field.
    """

    table: Annotated[Path, tyro.conf.Positional]
    targets: tuple[str, ...]
    out: Path
    config: Path | None = None
    advanced: Annotated[Learning, tyro.conf.OmitArgPrefixes] = field(default_factory=Learning)

    def run(self) -> int:
        """Train, calibrate, measure on held-out compounds; exit status 1 if any row could not be read."""
        from autoperi.training.folder import occupied
        from property_models.training.fit_ensemble import PropertyRecipe
        from property_models.training.train_property import train_property

        recipe = PropertyRecipe.read(self.config) if self.config else None
        what = (self.table, self.targets, self.out, recipe)
        with occupied(self.out):
            trained = train_property(*what, **asdict(self.advanced))
        console.summary(f"checkpoint in {self.out / 'checkpoint'}", trained.summary())
        return console.left_out(trained.left_out)
