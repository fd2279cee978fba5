"""The generator's trainings: data, one Lightning module per network, the curve of drawn crystals."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import lightning
import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.crystals.crystal import CrystalBatch
from autoperi.data.dataset import CrystalDataset
from autoperi.flow.loss import RelativeStarts, matching_loss
from autoperi.flow.velocity import VelocityNetwork
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.real import GeneCritic, RealVsDrawn, critic_loss
from autoperi.genes.network import GeneNetwork, gene_loss
from autoperi.networks.autoencoder import Autoencoder, Encoder, Latents
from autoperi.networks.physics import Physics
from autoperi.training.fit import FitConfig, Training
from autoperi.training.kin import Kin
from autoperi.training.states import read_state, write_state

CHOSEN = "chosen.ckpt"
"""The weights of the sample curve's choice."""


@dataclass(frozen=True)
class TrainingSet:
    """All crystals of a split as one ragged batch, with scalar labels and, for the flow, latents and kin."""

    crystals: CrystalBatch
    conditions: Float[Tensor, "crystals scalars"]
    latents: Latents | None = None
    kin: Kin | None = None

    @classmethod
    def from_dataset(cls, dataset: CrystalDataset, conditions: Iterable[str]) -> "TrainingSet":
        """Everything of a data set, in float32, with its labels of these names."""
        every = range(len(dataset))
        return cls(dataset.batch(every).to(dtype=torch.float32), dataset.conditions(every, conditions))

    def __len__(self) -> int:
        """Number of crystals."""
        return self.crystals.n_crystals

    @torch.no_grad()
    def encoded(self, encoder: Encoder, chunk: int = 256) -> "TrainingSet":
        """The same set with q(h) of every site, its relatives' too, found where the encoder is."""
        device, index = next(encoder.parameters()).device, torch.arange(self.crystals.n_crystals)
        parts = [encoder(self.crystals.select(part).to(device)) for part in index.split(chunk)]
        mean, log_std = torch.cat([p.mean for p in parts]), torch.cat([p.log_std for p in parts])
        latents = Latents(mean.cpu(), log_std.cpu())
        kin = self.kin and self.kin.encoded(self.crystals, encoder, chunk)
        return replace(self, latents=latents, kin=kin)

    def select(self, crystals: Tensor) -> "TrainingSet":
        """Some crystals with everything that belongs to them."""
        rows, _ = self.crystals.site_rows(crystals)
        latents = self.latents and Latents(self.latents.mean[rows], self.latents.log_std[rows])
        kin = self.kin and self.kin.select(rows, crystals)
        return TrainingSet(self.crystals.select(crystals), self.conditions[crystals], latents, kin)

    def begun(
        self, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "sites latent"], RelativeStarts | None]:
        """Latents of the clean crystals, and the relatives that some of them begin from.

        Latents are drawn from the encoder; where a crystal begins from a relative, which tells nothing of
        such a draw, they are the mean.

        Raises:
            ValueError: the set was not encoded.
        """
        if self.latents is None:
            raise ValueError("expected an encoded training set: call TrainingSet.encoded(encoder) first")
        h = self.latents.sample(generator)
        if self.kin is None:
            return h, None
        starts = self.kin.draw(self.crystals.crystal, generator)
        near = starts.distance.isfinite()[self.crystals.crystal][:, None]
        return torch.where(near, self.latents.mean, h), starts

    def to(self, device: torch.device) -> "TrainingSet":
        """Move everything."""
        latents = self.latents and Latents(self.latents.mean.to(device), self.latents.log_std.to(device))
        kin = self.kin and self.kin.to(device)
        return TrainingSet(self.crystals.to(device), self.conditions.to(device), latents, kin)


class AutoencoderTraining(Training):
    """Reconstruction, KL and denoising (`Autoencoder.loss`)."""

    network: Autoencoder

    def __init__(self, network: Autoencoder, config: FitConfig, physics: Physics | None = None) -> None:
        super().__init__(network, config)
        self.physics = physics

    def loss(self, batch: TrainingSet, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms of one batch."""
        return self.network.loss(batch.crystals, generator, self.physics)


class FlowTraining(Training):
    """Flow matching (`matching_loss`) on latents drawn from the frozen encoder."""

    network: VelocityNetwork

    def __init__(self, network: VelocityNetwork, config: FitConfig, physics: Physics | None = None) -> None:
        super().__init__(network, config)
        self.physics = physics

    def loss(self, batch: TrainingSet, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms of one batch; raises ValueError where the set was not encoded."""
        h, starts = batch.begun(generator)
        return matching_loss(
            self.network, batch.crystals, h, batch.conditions, generator, self.physics, starts
        )


class GeneTraining(Training):
    """Likelihood of space group, orbits and masked species (`gene_loss`)."""

    network: GeneNetwork

    def loss(self, batch: GeneBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms of one batch."""
        mixed = self.config.mixed and self.training
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            terms = gene_loss(self.network, batch, generator)
        return {"total": torch.stack(list(terms.values())).sum(), **terms}


class CriticTraining(Training):
    """Telling real crystals from drawn ones (`critic_loss`)."""

    network: GeneCritic

    def loss(self, batch: RealVsDrawn, generator: torch.Generator) -> dict[str, Tensor]:
        """The one term of a batch; nothing is drawn."""
        del generator
        return {"total": critic_loss(self.network, batch)}


class SampleCurve(lightning.Callback):
    """Draws a few crystals now and then and logs what a judge says of them, e.g. validity and novelty.

    Of the averaged weights judged during the cool-down, the last whose ``valid_and_new`` is not significantly
    below the best are kept in ``chosen``: they become the checkpoint.

    Args:
        judge: figures of crystals drawn with a network at an epoch, ``valid_and_new`` among them.
        every: epochs between them.
        drawn: crystals behind a figure.
        chosen: file of the weights kept.
        config: of the run.
    """

    def __init__(
        self,
        judge: Callable[[nn.Module, int], dict[str, float]],
        every: int,
        drawn: int,
        chosen: Path,
        config: FitConfig,
    ) -> None:
        self.judge, self.every, self.drawn, self.chosen = judge, every, drawn, chosen
        self.first = config.epochs - config.cooldown
        self.last = config.epochs - 1

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Runs with the averaged weights in place."""
        epoch = trainer.current_epoch
        due = (epoch + 1) % self.every == 0 or epoch == self.last
        if trainer.sanity_checking or not due or not trainer.is_global_zero:
            return
        network = module.network
        assert isinstance(network, nn.Module)
        figures = self.judge(network, epoch)
        for logger in trainer.loggers:
            logger.log_metrics({f"sample/{k}": v for k, v in figures.items()}, step=trainer.global_step)
        if epoch >= self.first:
            self._keep(module, {"epoch": epoch, "figure": figures["valid_and_new"]})

    def _keep(self, module: lightning.LightningModule, about: dict[str, float]) -> None:
        """The later weights win unless they are worse than the best by more than two standard errors."""
        best = read_state(self.chosen)["best"] if self.chosen.exists() else None
        if best is None or not self.first <= best["epoch"] < about["epoch"]:
            best = about
        error = (best["figure"] * (1 - best["figure"]) / self.drawn) ** 0.5
        if about["figure"] >= best["figure"] - 2 * error:
            best = max(best, about, key=lambda found: found["figure"])
            write_state(self.chosen, {"best": best, **about, "state_dict": module.state_dict()})
