"""Sizes of all networks of a checkpoint, and what they know of a crystal."""

from dataclasses import dataclass, field
from typing import Literal

from autoperi.crystals.labels import DEFAULT_CONDITIONS, Condition
from autoperi.flow.velocity import VelocityConfig
from autoperi.genes.critics.real import CriticConfig
from autoperi.genes.critics.stability import StabilityConfig
from autoperi.genes.critics.targets import TargetConfig
from autoperi.genes.network import GeneConfig
from autoperi.networks.autoencoder import AutoencoderConfig
from autoperi.networks.config import ConfigError


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything needed to rebuild the networks of a checkpoint.

    Attributes:
        autoencoder, velocity, genes, critic: sizes of the networks.
        stability, targets: of the critics of stability and of targets, where the checkpoint has them.
        conditions: the labels that gene network and velocity are conditioned on, by name.
        sites: which atoms the networks know: all, or of SiO2 frameworks the tetrahedral ones, from which
            follows where oxygen lies (`autoperi.frameworks`).
        start_time: how far a relative is taken as it is where crystals begin from one (`StartSettings`).
    """

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    velocity: VelocityConfig = field(default_factory=VelocityConfig)
    genes: GeneConfig = field(default_factory=GeneConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    stability: StabilityConfig | None = None
    targets: TargetConfig | None = None
    conditions: dict[str, Condition] = field(default_factory=lambda: dict(DEFAULT_CONDITIONS))
    sites: Literal["all", "tetrahedral"] = "all"
    start_time: float = 0.95

    def __post_init__(self) -> None:
        if self.velocity.latent != self.autoencoder.latent:
            expected = f"expected the autoencoder's, {self.autoencoder.latent}: got {self.velocity.latent}"
            raise ConfigError("velocity.latent", expected)
        if not 0 < self.start_time < 1:
            raise ConfigError("start_time", f"expected a number between 0 and 1: got {self.start_time}")
