"""The train command."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autoperi.commands import console


@dataclass(frozen=True)
class Train:
    """Train a generator; interrupted runs resume where they stood.

    Examples:
        autoperi train --out runs/mp_20
        autoperi train --config my.toml --out runs/mine

    Attributes:
        out: folder of logs, resumable checkpoints and the finished checkpoint.
        config: TOML file with fields of `recipe.Recipe`; sizes default to the shipped checkpoint's.
        stage: one stage alone, or all in order.
        data_dir: folder of the data sets; default AUTOPERI_DATA, else download.
        seed: overrides the recipe's seeds.
    """

    out: Path
    config: Path | None = None
    stage: Literal["all", "autoencoder", "genes", "critic", "flow", "assemble"] = "all"
    data_dir: Path | None = None
    seed: int | None = None

    def run(self) -> int:
        """Run the recipe."""
        from autoperi.training.recipe import read_recipe, run_stages
        from evaluation.metrics.curve import training_figures
        from property_models.physics.training import training_physics

        recipe = read_recipe(self.config, self.seed)
        rooms = (training_figures, training_physics)
        figures = run_stages(recipe, self.out, self.stage, self.data_dir, sys.argv, *rooms)
        console.summary(f"training in {self.out}", figures)
        return 0
