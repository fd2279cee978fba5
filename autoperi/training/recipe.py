"""A whole training as one typed recipe, run stage by stage; every stage resumes where it stood."""

import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import lightning
import numpy as np
import torch
from torch import nn

from autoperi.data.cache import versions
from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.flow.sampler import FlowModel
from autoperi.flow.settings import FlowSettings, Restart, Solver
from autoperi.flow.velocity import VelocityNetwork
from autoperi.generator import CrystalGenerator, GeneratorConfig, load, save
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critic import GeneCritic, RealVsDrawn
from autoperi.genes.network import GeneNetwork
from autoperi.genes.prior import EmpiricalGenes, LearnedGenes
from autoperi.networks.autoencoder import Autoencoder
from autoperi.networks.checkpoint import build
from autoperi.networks.physics import Physics, PhysicsWeights
from autoperi.training.fit import BatchData, FitConfig, averaged_weights, fit
from autoperi.training.model_card import Trained, model_card
from autoperi.training.stages import (
    AutoencoderTraining,
    CriticTraining,
    FlowTraining,
    GeneTraining,
    SampleCurve,
    TrainingSet,
)

if TYPE_CHECKING:
    from pymatgen.core import Composition, Structure

Judge = Callable[[list["Structure"] | list["Composition"], set[str]], dict[str, float]]
"""Figures of what was drawn, given the training formulas; comes from the evaluation room."""

PhysicsMaker = Callable[[PhysicsWeights, CrystalDataset], Physics]
"""Makes the physics that a recipe weighs, given the train split; comes from the room of property models."""

Stage = Literal["all", "autoencoder", "genes", "critic", "flow", "assemble"]
_FITTED: tuple[Stage, ...] = ("autoencoder", "genes", "critic", "flow")
_CHOSEN = "chosen.ckpt"
_STAGES: tuple[Stage, ...] = (*_FITTED, "assemble")


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
        default_factory=lambda: FitConfig(epochs=16, cooldown=8, batch_size=64, lr=2e-3, ema=0.995, devices=2)
    )
    genes: FitConfig = field(
        default_factory=lambda: FitConfig(epochs=60, cooldown=30, weight_decay=0.05, devices=1)
    )
    critic: FitConfig = field(
        default_factory=lambda: FitConfig(epochs=20, cooldown=20, batch_size=512, ema=0.99, weight_decay=0.05)
    )
    flow: FitConfig = field(
        default_factory=lambda: FitConfig(
            epochs=100, cooldown=20, batch_size=64, lr=1e-3, devices=2, mixed=True
        )
    )


def read_recipe(path: Path | None, seed: int | None = None) -> Recipe:
    """The default recipe, or one from a TOML file; ``seed`` replaces the seeds of all stages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not TOML, or unknown fields.
    """
    recipe = Recipe()
    if path is not None:
        try:
            recipe = build(Recipe, tomllib.loads(path.read_text()))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"expected TOML in {path}: {error}") from error
    if seed is not None:
        fits = {name: replace(getattr(recipe, name), seed=seed) for name in _FITTED}
        recipe = replace(recipe, **fits)
    if recipe.start is None:
        idle = [name for name in _FITTED if getattr(recipe, name).epochs == 0]
        if idle:
            raise ValueError(f"expected `start`, a checkpoint, for parts that are not trained: {idle}")
        return recipe
    started = load(recipe.start).config
    conditions = {**started.conditions, **recipe.generator.conditions}
    return replace(recipe, generator=replace(started, conditions=conditions))


def run_stages(
    recipe: Recipe,
    out: Path,
    stage: Stage,
    data_dir: Path | None,
    command: Sequence[str],
    judge: Judge,
    physics: PhysicsMaker | None = None,
) -> dict[str, str]:
    """Run one stage, or all in order, each in a process of its own so that DDP can start anew.

    Returns:
        What to show: where the stage's result lies.

    Raises:
        ValueError: the recipe weighs physics, and there is none.
    """
    weighed = recipe.physics != PhysicsWeights()
    if weighed and physics is None:
        raise ValueError(f"expected physics to be handed in for {recipe.physics}: got none")
    if stage == "all":
        for name in _STAGES:
            subprocess.run([sys.executable, "-m", "autoperi.cli", *command[1:], "--stage", name], check=True)
        return {"checkpoint": str(out / "checkpoint")}
    if stage in _FITTED and getattr(recipe, stage).epochs == 0:
        return {stage: f"as in {recipe.start}"}
    torch.set_num_threads(1)
    splits = (load_dataset(recipe.data, split, data_dir, fill_hull=True) for split in ("train", "val"))
    train, val = splits
    for part in (train, val):
        part.conditions([], recipe.generator.conditions)  # refuses conditions without a label
    val = val.select(range(min(recipe.validation, len(val))))
    made = (
        physics(recipe.physics, train) if weighed and physics and stage in ("autoencoder", "flow") else None
    )
    if stage == "genes":
        return {stage: str(_genes(recipe, train, val, out, judge))}
    if stage == "critic":
        return {stage: str(_critic(recipe, train, val, out))}
    if stage == "flow":
        return {stage: str(_flow(recipe, train, val, out, judge, made))}
    if stage == "autoencoder":
        return {stage: str(_autoencoder(recipe, train, val, out, made))}
    return {stage: str(_assemble(recipe, train, out))}


def _autoencoder(
    recipe: Recipe, train: CrystalDataset, val: CrystalDataset, out: Path, physics: Physics | None
) -> Path:
    config = recipe.autoencoder
    lightning.seed_everything(config.seed, workers=True)
    data = BatchData(
        TrainingSet.from_dataset(train, ()), TrainingSet.from_dataset(val, ()), config.batch_size, config.seed
    )
    if recipe.start:
        network = load(recipe.start).flow.autoencoder.train()
    else:
        network = Autoencoder(recipe.generator.autoencoder)
        network.decoder.scale.fit(data.train.crystals)
    return fit(AutoencoderTraining(network, config, physics), data, config, out / "autoencoder")


def _genes(recipe: Recipe, train: CrystalDataset, val: CrystalDataset, out: Path, judge: Judge) -> Path:
    from pymatgen.core import Composition

    config = recipe.genes
    lightning.seed_everything(config.seed, workers=True)
    names = recipe.generator.conditions
    seen, held_out = (GeneBatch.from_crystals(part, names) for part in (train, val))
    data = BatchData(seen, held_out, config.batch_size, config.seed)
    network = (
        starting_generator(recipe).gene_network
        if recipe.start
        else GeneNetwork(recipe.generator.genes, names)
    )
    known, n = _formulas(train), 16 * recipe.sampled

    def sampled(genes: nn.Module, epoch: int) -> dict[str, float]:
        drawn = LearnedGenes(cast(GeneNetwork, genes)).sample(range(n), epoch)
        return judge([Composition(c.formula) for c in drawn], known)

    curve = SampleCurve(sampled, recipe.sample_every, n, out / "genes" / _CHOSEN, config)
    return fit(GeneTraining(network.train(), config), data, config, out / "genes", callbacks=[curve])


def _critic(recipe: Recipe, train: CrystalDataset, val: CrystalDataset, out: Path) -> Path:
    """Learned from as many draws as there are real crystals, made as the sampler makes them by default."""
    config = recipe.critic
    network = GeneNetwork(recipe.generator.genes, recipe.generator.conditions)
    network.load_state_dict(_weights(recipe, out, "genes"))
    prior = LearnedGenes(network, EmpiricalGenes.from_crystals(train).names())
    drawn = prior.sample(range(len(train) + len(val)), config.seed)
    lightning.seed_everything(config.seed, workers=True)
    seen = RealVsDrawn.of(list(train), drawn[: len(train)])
    held_out = RealVsDrawn.of(list(val), drawn[len(train) :])
    critic = GeneCritic(recipe.generator.critic)
    critic.standardise(seen.genes)
    data = BatchData(seen, held_out, config.batch_size, config.seed)
    return fit(CriticTraining(critic, config), data, config, out / "critic")


def _flow(
    recipe: Recipe,
    train: CrystalDataset,
    val: CrystalDataset,
    out: Path,
    judge: Judge,
    physics: Physics | None,
) -> Path:
    config = recipe.flow
    autoencoder = Autoencoder(recipe.generator.autoencoder).eval()
    autoencoder.load_state_dict(_weights(recipe, out, "autoencoder"))
    lightning.seed_everything(config.seed, workers=True)
    seen, held_out = (
        TrainingSet.from_dataset(part, recipe.generator.conditions).encoded(autoencoder.encoder)
        for part in (train, val)
    )
    data = BatchData(seen, held_out, config.batch_size, config.seed)
    if recipe.start:
        network = starting_generator(recipe).flow.velocity.train()
    else:
        network = VelocityNetwork(recipe.generator.velocity, recipe.generator.conditions)
        network.scale.fit(data.train.crystals)
    sizes = recipe.generator
    model = FlowModel(sizes.autoencoder, sizes.velocity, sizes.conditions)
    model.autoencoder = autoencoder
    known = _formulas(train)
    some = list(val)[: recipe.sampled]
    blank = [replace(c, species=np.zeros_like(c.species)) for c in some]

    def sampled(velocity: nn.Module, epoch: int) -> dict[str, float]:
        model.velocity = cast(VelocityNetwork, velocity)
        model.to(next(velocity.parameters()).device)
        settings = FlowSettings(Solver(steps=20), Restart(rounds=0), corrections=1)
        drawn = {
            "prior": model.draw(some, epoch, settings=settings),
            "flow": model.draw(blank, epoch, settings=settings),
        }
        figures = {
            f"{mode}/{name}": value
            for mode, crystals in drawn.items()
            for name, value in judge([c.to_structure() for c in crystals], known).items()
        }
        both = [figures[f"{mode}/valid_and_new"] for mode in drawn]
        return {**figures, "valid_and_new": sum(both) / len(both)}

    curve = SampleCurve(sampled, recipe.sample_every, 2 * len(some), out / "flow" / _CHOSEN, config)
    return fit(FlowTraining(network, config, physics), data, config, out / "flow", callbacks=[curve])


def _assemble(recipe: Recipe, train: CrystalDataset, out: Path) -> Path:
    generator = CrystalGenerator(recipe.generator)
    for stage in _FITTED:
        _part(generator, stage).load_state_dict(_weights(recipe, out, stage))
    generator.empirical.put(EmpiricalGenes.from_crystals(train, recipe.generator.conditions).state_dict())
    origin, folder = provenance(train), out / "checkpoint"
    save(generator, folder, {"recipe": asdict(recipe), **origin})
    parts = [
        Trained(
            name=stage,
            parameters=sum(p.numel() for p in _part(generator, stage).parameters()),
            fit=getattr(recipe, stage),
            folder=out / stage,
        )
        for stage in _FITTED
    ]
    (folder / "MODEL_CARD.md").write_text(model_card(out.name, origin, recipe.start, parts))
    return folder


def provenance(train: CrystalDataset) -> dict[str, str]:
    """What a checkpoint must say of where it comes from: data, its hash, versions."""
    made_with = versions("autoperi-gnn", "torch", "lightning", "e3nn")
    return {
        "data": train.name,
        "crystals": str(len(train)),
        "data sha256": train.content_hash(),
        "versions": ", ".join(f"{name} {version}" for name, version in made_with.items()),
    }


def starting_generator(recipe: Recipe) -> CrystalGenerator:
    """The checkpoint that training starts from, with the recipe's conditions."""
    assert recipe.start is not None
    generator = load(recipe.start)
    if generator.config.conditions == recipe.generator.conditions:
        return generator
    return generator.with_conditions(recipe.generator.conditions)


def _formulas(dataset: CrystalDataset) -> set[str]:
    return {crystal.formula for crystal in dataset}


def _part(generator: CrystalGenerator, stage: Stage) -> nn.Module:
    parts = {
        "autoencoder": generator.flow.autoencoder,
        "genes": generator.gene_network,
        "critic": generator.critic,
        "flow": generator.flow.velocity,
    }
    return parts[stage]


def _weights(recipe: Recipe, out: Path, stage: Stage) -> dict[str, torch.Tensor]:
    """What a stage ended with, its averaged weights, or those of ``start`` where it was not run.

    The critic's are those of the lowest held-out loss: one that knows train by heart would only copy it.
    """
    if recipe.start and getattr(recipe, stage).epochs == 0:
        return _part(starting_generator(recipe), stage).state_dict()
    path = out / stage / ("best.ckpt" if stage == "critic" else _CHOSEN)
    if not path.exists():
        path = out / stage / "last.ckpt"
    if not path.exists():
        raise FileNotFoundError(f"expected {path} from the stage {stage}: run --stage {stage} first")
    return averaged_weights(path)
