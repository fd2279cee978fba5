"""The generator people load: gene priors and flow behind one ``sample``."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from autoperi.crystals.crystal import Crystal, Crystals
from autoperi.crystals.device import usable_device
from autoperi.flow.sampler import FlowModel, FlowSettings, Guide
from autoperi.flow.velocity import VelocityConfig
from autoperi.genes.critic import CriticConfig, GeneCritic
from autoperi.genes.network import GeneConfig, GeneNetwork
from autoperi.genes.prior import DrawConfig, EmpiricalGenes, LearnedGenes
from autoperi.genes.request import GeneRequest
from autoperi.networks.autoencoder import AutoencoderConfig
from autoperi.networks.checkpoint import (
    Arrays,
    CheckpointError,
    build,
    half_precision,
    read_config,
    read_weights,
    readable,
    write_checkpoint,
)

PRETRAINED = Path(__file__).with_name("pretrained")
MARK = "autoencoder"
"""Tells the configuration of such a checkpoint from others."""

Stage = Literal["genes", "geometry"]
Progress = Callable[[Stage, int], None]
"""Told how many crystals have just passed a stage."""


def _silent(stage: Stage, crystals: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything needed to rebuild the networks of a checkpoint."""

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    velocity: VelocityConfig = field(default_factory=VelocityConfig)
    genes: GeneConfig = field(default_factory=GeneConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)


@dataclass(frozen=True)
class SampleConfig:
    """How crystals are drawn.

    Attributes:
        genes: ``learned`` draws new genes, ``empirical`` resamples those of the training set.
        species: ``prior`` draws species with the gene, ``flow`` lets the flow draw the chemistry.
        temperature: of the species (``prior``); below 1 is more conservative.
        new_genes: share of crystals (``learned``) whose gene must not be in the training set; among the
            others it is new as often as the network has learned.
        sweeps: rounds in which half of the drawn species are drawn again given the rest.
        guidance: strength of the scalar conditions, in gene prior and flow.
        flow: integration of the flow.
        workers: threads; the result does not depend on it.
    """

    genes: Literal["learned", "empirical"] = "learned"
    species: Literal["prior", "flow"] = "prior"
    temperature: float = 1.0
    new_genes: float = 0.13
    sweeps: int = 1
    guidance: float = 1.0
    flow: FlowSettings = field(default_factory=FlowSettings)
    workers: int = 1

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.workers < 1:
            raise ValueError(
                f"expected temperature > 0 and workers >= 1: got {self.temperature} and {self.workers}"
            )


class CrystalGenerator(nn.Module):
    """A whole checkpoint: gene priors, autoencoder, flow.

    Attributes:
        config: sizes of the networks.
        flow: geometry given genes, and the latent space both ways.
        name: of the checkpoint, written into every crystal's provenance.
        sha256: of its weights.
        about: provenance of the weights: command, seed, data, figures.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.flow = FlowModel(config.autoencoder, config.velocity)
        self.gene_network = GeneNetwork(config.genes)
        self.critic = GeneCritic(config.critic)
        self.empirical = Arrays()
        self.name, self.sha256 = "", ""
        self.about: dict[str, Any] = {}

    def describe(self) -> dict[str, str]:
        """What this checkpoint is, for people: sizes, hash, provenance."""
        networks = {
            "encoder": self.flow.autoencoder.encoder,
            "decoder": self.flow.autoencoder.decoder,
            "velocity": self.flow.velocity,
            "gene network": self.gene_network,
            "critic of genes": self.critic,
        }
        sizes = {n: f"{sum(p.numel() for p in net.parameters()):,} parameters" for n, net in networks.items()}
        return {**sizes, "sha256": self.sha256, **readable(self.about)}

    def learned_genes(self) -> LearnedGenes:
        """The learned prior over gene and species; to it the genes of the training set are not new."""
        known = self.empirical_genes().names() if self.empirical.state_dict() else ()
        return LearnedGenes(self.gene_network, known, self.critic)

    def empirical_genes(self) -> EmpiricalGenes:
        """The genes of the training set; raises ValueError for a checkpoint that carries none."""
        if not self.empirical.state_dict():
            raise ValueError(f"checkpoint {self.name!r} carries no training genes: use genes='learned'")
        return EmpiricalGenes.from_state_dict(self.empirical.state_dict())

    @torch.no_grad()
    def sample(
        self,
        n: int,
        seed: int = 0,
        *,
        request: GeneRequest | None = None,
        conditions: dict[str, float] | None = None,
        config: SampleConfig | None = None,
        progress: Progress = _silent,
        guide: Guide | None = None,
    ) -> Crystals:
        """Draw n crystals; crystal i depends on (seed, i) and the arguments, not on n, batches or workers.

        Args:
            n: how many.
            seed: of all randomness.
            request: hard constraints on gene and composition, met exactly.
            conditions: scalars to steer towards, e.g. ``{"band_gap": 1.3}`` (eV).
            config: how they are drawn.
            progress: told how many crystals have just passed a stage.
            guide: added to the flow's velocity (`Guide`), as physics and property models give it.

        Raises:
            ValueError: n below 1, an impossible request, an unknown condition.
        """
        if n < 1:
            raise ValueError(f"expected to sample at least one crystal: got n = {n}")
        config = config or SampleConfig()
        genes = self._genes(n, seed, request, conditions, config, progress)
        return self.draw(genes, seed, conditions=conditions, config=config, progress=progress, guide=guide)

    def _genes(
        self,
        n: int,
        seed: int,
        request: GeneRequest | None,
        conditions: dict[str, float] | None,
        config: SampleConfig,
        progress: Progress,
    ) -> list[Crystal]:
        """Genes, with species where these are the prior's, from one-threaded workers."""
        choice = DrawConfig(config.new_genes, config.guidance, config.sweeps)
        learned = config.genes == "learned"
        network = self.learned_genes()
        prior = network if learned else self.empirical_genes()
        size = min(2 * choice.batch_size, math.ceil(n / config.workers))

        def part(first: int) -> list[Crystal]:
            drawn = prior.sample(
                min(size, n - first),
                seed,
                request,
                conditions,
                temperature=config.temperature if learned else 1.0,
                species=learned and config.species == "prior",
                config=choice,
                first=first,
            )
            if config.species == "prior" and not learned:
                drawn = network.draw_species(
                    drawn, seed, request, conditions, config.temperature, choice, first
                )
            progress("genes", len(drawn))
            return drawn

        parts = _in_threads([partial(part, first) for first in range(0, n, size)], config.workers)
        return [gene for drawn in parts for gene in drawn]

    def draw(
        self,
        genes: Sequence[Crystal],
        seed: int = 0,
        *,
        conditions: dict[str, float] | None = None,
        config: SampleConfig | None = None,
        progress: Progress = _silent,
        guide: Guide | None = None,
    ) -> Crystals:
        """Geometry (and unknown species) for given genes: structure prediction when species are known."""
        config = config or SampleConfig()
        settings = replace(config.flow, guidance=config.guidance)
        order = np.argsort([-g.n_sites * g.n_atoms for g in genes], kind="stable")
        size = max(1, min(settings.batch_size, math.ceil(len(genes) / config.workers)))
        parts = [order[i : i + size] for i in range(0, len(order), size)]

        def geometry(part: np.ndarray) -> list[Crystal]:
            some = [genes[i] for i in part]
            drawn = self.flow.draw(some, seed, conditions, settings, indices=part.tolist(), guide=guide)
            progress("geometry", len(drawn))
            return drawn

        done = _in_threads([partial(geometry, part) for part in parts], config.workers)
        origin = {"checkpoint": self.name, "sha256": self.sha256}
        crystals = [crystal for drawn in done for crystal in drawn]
        return Crystals(
            replace(c, id=c.id or f"{i:06d}", provenance={**c.provenance, **origin})
            for i, c in sorted(zip(order.tolist(), crystals, strict=True), key=lambda pair: pair[0])
        )


def _in_threads(jobs: Sequence[Callable[[], list[Crystal]]], workers: int) -> list[list[Crystal]]:
    """Results in the order of the jobs; one-threaded workers beat one worker with many threads."""
    if workers == 1:
        return [job() for job in jobs]
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(lambda job: job(), jobs))


def save(generator: CrystalGenerator, folder: Path, about: dict[str, Any]) -> str:
    """Write a checkpoint folder, weights in `half_precision`; returns their sha256."""
    return write_checkpoint(folder, half_precision(generator), generator.config, about)


def load(name_or_path: str | Path = "mp_20", device: str = "cpu") -> CrystalGenerator:
    """A trained generator: a name of the shipped checkpoints, or a checkpoint folder.

    Raises:
        CheckpointError: no such checkpoint, or a damaged one.
        ValueError: a device that is not there.
    """
    device = usable_device(device)
    path = Path(name_or_path)
    folder = path if path.is_dir() else PRETRAINED / str(name_or_path)
    if not folder.is_dir():
        known = sorted(p.name for p in PRETRAINED.iterdir() if p.is_dir())
        raise CheckpointError(
            f"expected a checkpoint folder or one of {known}: got {str(name_or_path)!r}, which is neither"
        )
    content = read_config(folder)
    generator = CrystalGenerator(build(GeneratorConfig, content["config"]))
    read_weights(folder, generator, content["sha256"])
    generator.name, generator.sha256, generator.about = folder.name, content["sha256"], content["about"]
    return generator.to(device).eval()
