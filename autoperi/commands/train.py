"""The train command."""

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from autoperi.commands import console

if TYPE_CHECKING:
    from autoperi.training.recipe import Recipe


@dataclass(frozen=True)
class Parts:
    """A part of a training, its data and its randomness.

    Attributes:
        stage: one stage alone, or all in order.
        data_dir: folder of the data sets; default AUTOPERI_DATA, else download.
        seed: overrides the recipe's seeds.
    """

    stage: Literal["all", "autoencoder", "genes", "critic", "flow", "assemble"] = "all"
    data_dir: Path | None = None
    seed: int | None = None


@dataclass(frozen=True)
class OwnProperty:
    """Instead of a whole training: another condition for a trained generator, from a few hundred labels.

    Its networks stay as they are, and so do crystals drawn without the new condition.

    Attributes:
        condition: numeric columns of the data, each NAME or NAME[unit]: hardness[GPa].
        data: labelled crystals: CSV with a column cif, poscar or structure, or anything readable that
            carries numbers.
        start: checkpoint that it is added to, a shipped one or a folder; by default mp_20.
    """

    condition: tuple[str, ...] = ()
    data: Path | None = None
    start: str | None = None


@dataclass(frozen=True)
class Train:
    """Train a generator; an interrupted run goes on where it stood.

    Examples:
        autoperi train --out runs/mp_20
        autoperi train --config my.toml --out runs/mine
        autoperi train --config four_gpus --out runs/mp_20
        autoperi train --start mp_20 --condition toughness --data mine.csv --out runs/tough

    Attributes:
        out: folder of logs, resumable checkpoints and the finished checkpoint.
        config: TOML file with what is to differ from the default recipe, e.g. data = "my/folder"; or one of
            the complete recipes cpu, one_gpu and four_gpus, which name every field.
    """

    out: Path
    config: Path | None = None
    own: Annotated[OwnProperty, tyro.conf.OmitArgPrefixes] = field(default_factory=OwnProperty)
    advanced: Annotated[Parts, tyro.conf.OmitArgPrefixes] = field(default_factory=Parts)

    def run(self) -> int:
        """Run the recipe; the exit status is that of the first stage that fails, 1 if a row was left out."""
        if self.own != OwnProperty():
            return self._add()
        from autoperi.training.folder import occupied
        from autoperi.training.pipeline import refuse_another_recipe
        from autoperi.training.recipe import read_recipe

        recipe = read_recipe(self.config, self.advanced.seed)
        with occupied(self.out):
            refuse_another_recipe(recipe, self.out)
            return self._all(recipe) if self.advanced.stage == "all" else self._one(recipe)

    def _add(self) -> int:
        """A property of one's own, by the condition that it becomes."""
        from autoperi.training.own_condition import add_conditions

        own, parts = self.own, self.advanced
        if not own.condition or own.data is None:
            raise ValueError(
                "expected --condition and --data together: got one of them, or --start alone; a whole "
                "training names data and start in its recipe (--config)"
            )
        if self.config is not None or replace(parts, seed=None) != Parts():
            raise ValueError("expected no recipe, stage or data folder where a condition is added: got one")
        added = add_conditions(own.start or "mp_20", own.condition, own.data, self.out, parts.seed or 0)
        ranges = {name: f"{c.low:g} to {c.high:g} {c.unit}".rstrip() for name, c in added.conditions.items()}
        console.summary(f"checkpoint in {added.checkpoint}", {**ranges, **added.about})
        return console.left_out(added.failures)

    def _all(self, recipe: "Recipe") -> int:
        """Each stage in a process of its own, so that DDP can start anew."""
        if "RANK" in os.environ:
            raise ValueError(
                "expected --stage with torchrun, whose processes meet once: launch one stage each"
            )
        from autoperi.training.recipe import FITTED

        trained = [stage for stage in FITTED if recipe.fit(stage).epochs]
        for stage in (*trained, "assemble"):
            command = [sys.executable, "-m", "autoperi.cli", *sys.argv[1:], "--stage", stage]
            status = subprocess.call(command)
            if status < 0:
                console.complain(f"autoperi: stage {stage} was ended by signal {-status}; run again to go on")
                return 128 - status
            if status:
                return status
        return 0

    def _one(self, recipe: "Recipe") -> int:
        from autoperi.training.pipeline import run_stage
        from evaluation.metrics.curve import training_figures
        from property_models.physics.training import training_physics

        stage = self.advanced.stage
        assert stage != "all"
        found = run_stage(recipe, self.out, stage, self.advanced.data_dir, training_figures, training_physics)
        if (
            os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
        ):  # the first of the processes that train together
            console.summary(f"training in {self.out}", {stage: str(found)})
        return 0
