"""The stages of a recipe: what each is trained on, where it begins, and that it is the one begun there."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.flow.relatives import Relatives
from autoperi.flow.sampler import FlowModel
from autoperi.flow.settings import FlowSettings, Restart, Solver
from autoperi.flow.velocity import VelocityNetwork
from autoperi.frameworks.net import nets
from autoperi.generator import CrystalGenerator
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.kin import KIN
from autoperi.genes.critics.real import GeneCritic, RealVsDrawn
from autoperi.genes.empirical import EmpiricalGenes
from autoperi.genes.network import GeneNetwork
from autoperi.genes.prior import LearnedGenes
from autoperi.networks.autoencoder import Autoencoder
from autoperi.networks.config import ConfigError
from autoperi.networks.physics import Physics, PhysicsWeights
from autoperi.training.assemble import assemble, part_of
from autoperi.training.fit import BatchData, FitConfig, fit, seeded
from autoperi.training.folder import CLAIM, claim, refuse_changes
from autoperi.training.kin import Kin
from autoperi.training.recipe import FITTED, Recipe, Stage, starting_generator
from autoperi.training.stages import (
    CHOSEN,
    AutoencoderTraining,
    CriticTraining,
    FlowTraining,
    GeneTraining,
    SampleCurve,
    TrainingSet,
)
from autoperi.training.states import averaged_weights, weights_hash

if TYPE_CHECKING:
    from pymatgen.core import Composition, Structure

Judge = Callable[[list["Structure"] | list["Composition"], set[str]], dict[str, float]]
"""Figures of what was drawn, given the training formulas; comes from the evaluation room."""

PhysicsMaker = Callable[[PhysicsWeights, CrystalDataset], Physics]
"""Makes the physics that a recipe weighs, given the train split; comes from the room of property models."""

_SIZES: Mapping[Stage, tuple[str, ...]] = {
    "autoencoder": ("autoencoder",),
    "genes": ("genes", "conditions"),
    "critic": ("genes", "critic", "conditions"),
    "flow": ("autoencoder", "velocity", "conditions"),
}
_LEARNS_FROM: Mapping[Stage, Stage] = {"critic": "genes", "flow": "autoencoder"}


def run_stage(
    recipe: Recipe,
    out: Path,
    stage: Stage,
    data_dir: Path | None,
    judge: Judge,
    physics: PhysicsMaker | None = None,
) -> Path:
    """Run one stage, or go on where it stood; returns where its result lies.

    Each needs a process of its own where there are several devices, so that DDP can start anew.

    Raises:
        ConfigError: no such data, or no epochs.
        FolderError: the stage was begun with another recipe, other data or after other weights.
        FileNotFoundError: a stage before it has not been run.
        ValueError: the recipe weighs physics, and there is none.
    """
    if stage in FITTED and recipe.fit(stage).epochs == 0:
        raise ConfigError(f"{stage}.epochs", f"expected at least one: with 0 it stays as in {recipe.start}")
    if recipe.physics != PhysicsWeights() and physics is None:
        raise ValueError(f"expected physics to be handed in for {recipe.physics}: got none")
    torch.set_num_threads(1)
    try:
        splits = (load_dataset(recipe.data, split, data_dir, fill_hull=True) for split in ("train", "val"))
        train, val = splits
        if recipe.generator.sites == "tetrahedral":
            train, val = (nets(part, recipe.generator.genes.n_max) for part in (train, val))
        for part in (train, val):
            part.conditions([], recipe.generator.conditions)  # refuses conditions without a label
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError("data", str(error)) from error
    return getattr(_Stages(recipe, out, train, val[: recipe.validation], judge, physics), stage)()


def refuse_another_recipe(recipe: Recipe, out: Path) -> None:
    """Look at all stages before one of them computes anything.

    Raises:
        FolderError: a stage was begun with another recipe, or one that others have learned from would grow.
    """
    start = starting_generator(recipe)
    for stage in FITTED:
        if recipe.fit(stage).epochs:
            built_on = any(
                (out / s / CLAIM).exists() for s, before in _LEARNS_FROM.items() if before == stage
            )
            grows = [] if built_on else [f"{stage}.epochs"]
            refuse_changes(out / stage, _of_recipe(recipe, stage, start), grows)


class _Stages:
    """One method a stage: what is trained, on what, judged how; ends with where the result lies."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        train: CrystalDataset,
        val: CrystalDataset,
        judge: Judge,
        physics: PhysicsMaker | None,
    ) -> None:
        self.recipe, self.out, self.train, self.val, self.judge = recipe, out, train, val, judge
        self.start = starting_generator(recipe)
        self.known = {crystal.formula for crystal in train}
        self.maker = physics

    def autoencoder(self) -> Path:
        """Encoder and decoder; here the scale of the lattice coordinates is fitted, for the flow too."""
        config, folder = self._begin("autoencoder")
        seen, held_out = (TrainingSet.from_dataset(part, ()) for part in (self.train, self.val))
        if self.start:
            network = self.start.flow.autoencoder
        else:
            with seeded(config.seed):
                network = Autoencoder(self.recipe.generator.autoencoder)
            network.decoder.scale.fit(seen.crystals)
        data = BatchData(seen, held_out, config.batch_size, config.seed)
        return fit(AutoencoderTraining(network.train(), config, self._physics()), data, config, folder)

    def genes(self) -> Path:
        """The gene network; of its curve the weights are chosen."""
        from pymatgen.core import Composition

        (config, folder), sizes = self._begin("genes"), self.recipe.generator
        seen, held_out = (GeneBatch.from_crystals(part, sizes.conditions) for part in (self.train, self.val))
        with seeded(config.seed):
            network = GeneNetwork(sizes.genes, sizes.conditions)
        if self.start:
            network = self.start.gene_network
        n = 16 * self.recipe.sampled

        def sampled(genes: nn.Module, epoch: int) -> dict[str, float]:
            drawn = LearnedGenes(cast(GeneNetwork, genes)).sample(range(n), epoch)
            return self.judge([Composition(c.formula) for c in drawn], self.known)

        curve = SampleCurve(sampled, self.recipe.sample_every, n, folder / CHOSEN, config)
        data = BatchData(seen, held_out, config.batch_size, config.seed)
        return fit(GeneTraining(network.train(), config), data, config, folder, callbacks=[curve])

    def critic(self) -> Path:
        """Learned from as many draws as there are real crystals, made as the sampler does by default."""
        config, folder = self._begin("critic")
        network = GeneNetwork(self.recipe.generator.genes, self.recipe.generator.conditions)
        network.load_state_dict(self._weights("genes"))
        prior = LearnedGenes(network, EmpiricalGenes.from_crystals(self.train).names())
        real = list(self.train), list(self.val)
        drawn = prior.sample(range(len(self.train) + len(self.val)), config.seed)
        relatives = Relatives.from_crystals(self.train)
        near = relatives.distances(drawn, KIN).split([len(part) for part in real])
        own = [relatives.distances(part, KIN, part is real[0]) for part in real]
        seen = RealVsDrawn.of(real[0], drawn[: len(real[0])], (own[0], near[0]))
        held_out = RealVsDrawn.of(real[1], drawn[len(real[0]) :], (own[1], near[1]))
        with seeded(config.seed):
            critic = GeneCritic(self.recipe.generator.critic)
        critic.standardise(seen.genes, seen.kin)
        data = BatchData(seen, held_out, config.batch_size, config.seed)
        return fit(CriticTraining(critic, config), data, config, folder)

    def flow(self) -> Path:
        """The velocity network on the latents of the trained encoder."""
        config, folder = self._begin("flow")
        sizes, autoencoder = self.recipe.generator, Autoencoder(self.recipe.generator.autoencoder).eval()
        autoencoder.load_state_dict(self._weights("autoencoder"))
        encoder, relatives = autoencoder.encoder.to(_device()), Relatives.from_crystals(self.train)
        seen, held_out = (
            replace(TrainingSet.from_dataset(part, sizes.conditions), kin=kin).encoded(encoder)
            for part, kin in (
                (self.train, Kin.of(self.train, relatives, themselves=True)),
                (self.val, Kin.of(self.val, relatives, themselves=False)),
            )
        )
        if self.start:
            network = self.start.flow.velocity
        else:
            with seeded(config.seed):
                network = VelocityNetwork(sizes.velocity, sizes.conditions)
            network.scale.load_state_dict(autoencoder.decoder.scale.state_dict())
        model = FlowModel(sizes.autoencoder, sizes.velocity, sizes.conditions)
        model.autoencoder = autoencoder
        some = list(self.val[: self.recipe.sampled])
        blank = [replace(c, species=np.zeros_like(c.species)) for c in some]

        def sampled(velocity: nn.Module, epoch: int) -> dict[str, float]:
            model.velocity = cast(VelocityNetwork, velocity)
            model.to(next(velocity.parameters()).device)
            settings = FlowSettings(Solver(steps=20), Restart(rounds=0), corrections=1)
            figures: dict[str, float] = {}
            for mode, genes in (("prior", some), ("flow", blank)):
                drawn = [c.to_structure() for c in model.draw(genes, epoch, settings=settings)]
                figures |= {f"{mode}/{name}": value for name, value in self.judge(drawn, self.known).items()}
            both = [figures[f"{mode}/valid_and_new"] for mode in ("prior", "flow")]
            return {**figures, "valid_and_new": sum(both) / len(both)}

        curve = SampleCurve(sampled, self.recipe.sample_every, 2 * len(some), folder / CHOSEN, config)
        training = FlowTraining(network.train(), config, self._physics())
        data = BatchData(seen, held_out, config.batch_size, config.seed)
        return fit(training, data, config, folder, callbacks=[curve])

    def assemble(self) -> Path:
        """The checkpoint, of weights that were all trained as the recipe says."""
        weights: dict[Stage, dict[str, Tensor]] = {stage: self._weights(stage) for stage in FITTED}
        for stage in FITTED:
            if self.recipe.fit(stage).epochs:
                self._begin(stage)
        return assemble(self.recipe, self.out, weights, self.train, self.start)

    def _physics(self) -> Physics | None:
        if self.recipe.physics == PhysicsWeights():
            return None
        assert self.maker is not None
        return self.maker(self.recipe.physics, self.train)

    def _begin(self, stage: Stage) -> tuple[FitConfig, Path]:
        """How a stage is fitted and where, after a claim on all that decides what it learns."""
        config = self.recipe.fit(stage)
        training = {
            **_of_recipe(self.recipe, stage, self.start),
            "train data": self.train.content_hash(),
            "val data": self.val.content_hash(),
        }
        if before := _LEARNS_FROM.get(stage):
            training[f"weights of {before}"] = weights_hash(self._weights(before))
        claim(self.out / stage, training, grows=[f"{stage}.epochs"])
        return config, self.out / stage

    def _weights(self, stage: Stage) -> dict[str, Tensor]:
        """What a stage ended with, its averaged weights, or those of ``start`` where it was not run.

        The critic's are those of the lowest held-out loss: one that knows train by heart would only copy it.
        """
        if self.start and self.recipe.fit(stage).epochs == 0:
            return part_of(self.start, stage).state_dict()
        path = self.out / stage / ("best.ckpt" if stage == "critic" else CHOSEN)
        if not path.exists():
            path = self.out / stage / "last.ckpt"
        if not path.exists():
            raise FileNotFoundError(f"expected {path} from the stage {stage}: run --stage {stage} first")
        return averaged_weights(path)


def _of_recipe(recipe: Recipe, stage: Stage, start: CrystalGenerator | None) -> dict[str, Any]:
    """What the recipe decides of what a stage learns."""
    told: dict[str, Any] = {
        stage: {name: value for name, value in asdict(recipe.fit(stage)).items() if name != "devices"},
        "generator": {name: asdict(recipe.generator)[name] for name in _SIZES[stage]},
        "start": start.sha256 if start else None,
    }
    if stage in ("autoencoder", "flow"):
        told["physics"] = asdict(recipe.physics)
    if stage in ("genes", "flow"):
        told |= {"sampled": recipe.sampled, "sample_every": recipe.sample_every}
    if recipe.generator.sites != "all":
        told["sites"] = recipe.generator.sites
    return told


def _device() -> torch.device:
    """Of this process, before Lightning chooses it."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
