"""A whole training as one typed recipe, from a TOML file."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from autoperi.generator import PRETRAINED, CrystalGenerator, GeneratorConfig, load
from autoperi.networks.checkpoint import CheckpointError
from autoperi.networks.config import ConfigError, check, merged_from_toml
from autoperi.networks.physics import PhysicsWeights
from autoperi.training.fit import FitConfig

Stage = Literal["autoencoder", "genes", "critic", "flow", "assemble"]
"""In their order; all but the last fit a network."""
FITTED: tuple[Stage, ...] = get_args(Stage)[:-1]

RECIPES = {file.stem: file for file in sorted(PRETRAINED.glob("*/recipes/*.toml"))}
"""Shipped recipes by name: of the classes, and the complete ones of mp_20, with every field explained."""


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, how long.

    Sizes default to those of ``mp_20``, whose model card says where its training differed.

    Attributes:
        data: data set or path; a path holds train.csv and val.csv.
        validation: crystals of the val split used to watch the losses.
        sampled: crystals drawn for the flow's curve of validity and novelty, from genes of the val split;
            the curve of the genes, which need no geometry, is of sixteen times as many.
        sample_every: epochs between them.
        start: checkpoint (shipped name or folder) whose weights training starts from: fine-tuning, or one
            more sitting. Its sizes are used, and its conditions beside those of the recipe.
        generator: sizes of all networks.
        physics: weights of physics losses in the training of autoencoder and flow; none by default.
        autoencoder, genes, critic, flow: how each is fitted; with ``epochs = 0`` it stays as it is in
            ``start``. The critic belongs to its gene network: train it again with that.
    """

    data: str = "mp_20"
    validation: int = 1000
    sampled: int = 128
    sample_every: int = 5
    start: str | None = None
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    physics: PhysicsWeights = field(default_factory=PhysicsWeights)
    autoencoder: FitConfig = field(
        default_factory=lambda: FitConfig(epochs=16, cooldown=8, lr=2e-3, ema=0.995)
    )
    genes: FitConfig = field(default_factory=lambda: FitConfig(epochs=60, cooldown=30, weight_decay=0.05))
    critic: FitConfig = field(
        default_factory=lambda: FitConfig(epochs=20, cooldown=20, batch_size=512, ema=0.99, weight_decay=0.05)
    )
    flow: FitConfig = field(default_factory=lambda: FitConfig(epochs=100, cooldown=20, mixed=True))

    def __post_init__(self) -> None:
        check(self, validation=(1, math.inf), sampled=(1, math.inf), sample_every=(1, math.inf))
        idle = [name for name in FITTED if self.fit(name).epochs == 0]
        if self.start is None and idle:
            raise ConfigError("start", f"expected a checkpoint that has {', '.join(idle)}, with epochs = 0")
        for name in ("stability", "targets"):
            if self.start is None and getattr(self.generator, name):
                raise ConfigError(
                    f"generator.{name}",
                    f"no stage fits it: use scripts/shipped/train_{name}.py after training",
                )

    def fit(self, stage: Stage) -> FitConfig:
        """How the network of a stage is fitted."""
        return getattr(self, stage)


def read_recipe(config: Path | None, seed: int | None = None) -> Recipe:
    """The default recipe, or what a TOML file changes of it; ``seed`` replaces the seeds of all stages.

    Args:
        config: a file, or a name in ``RECIPES``, such as ``four_gpus``.
        seed: of all stages.

    Raises:
        ConfigError: no such file, no TOML, a field that is unknown or of another type, a ``start`` that is
            no checkpoint or has other sizes than asked for.
    """
    recipe = Recipe()
    if config is not None:
        if not config.exists() and str(config) not in RECIPES:
            raise ConfigError(
                "", f"expected a TOML file or a recipe among {', '.join(RECIPES)}: got {config}"
            )
        recipe = merged_from_toml(recipe, config if config.exists() else RECIPES[str(config)])
    if seed is not None:
        recipe = replace(recipe, **{name: replace(recipe.fit(name), seed=seed) for name in FITTED})
    if recipe.start is None:
        return recipe
    try:
        started = load(recipe.start).config
    except CheckpointError as error:
        raise ConfigError("start", str(error)) from error
    conditions = {**started.conditions, **recipe.generator.conditions}
    sizes = replace(started, conditions=conditions)
    asked, default = (replace(part, conditions=conditions) for part in (recipe.generator, GeneratorConfig()))
    if asked not in (default, sizes):
        raise ConfigError("generator", f"expected the sizes of {recipe.start}, or none: got others")
    return replace(recipe, generator=sizes)


def starting_generator(recipe: Recipe) -> CrystalGenerator | None:
    """The checkpoint that training starts from, if any, with the recipe's conditions."""
    if recipe.start is None:
        return None
    generator = load(recipe.start)
    if generator.config.conditions == recipe.generator.conditions:
        return generator
    started = generator.with_conditions(recipe.generator.conditions)
    started.name, started.sha256, started.about = generator.name, generator.sha256, generator.about
    return started
