"""Training: thin Lightning modules around the losses, and the data they are fed."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import lightning
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from autoperi.autoencoder import Autoencoder, Encoder, Latents
from autoperi.crystal import CrystalBatch
from autoperi.dataset import CrystalDataset
from autoperi.gene_batch import GeneBatch
from autoperi.gene_critic import Contrast, GeneCritic, critic_loss
from autoperi.gene_network import GeneNetwork, gene_loss
from autoperi.matching import matching_loss
from autoperi.orbit_network import OrbitNetwork
from autoperi.physics import Physics
from autoperi.velocity import VelocityNetwork


@dataclass(frozen=True)
class FitConfig:
    """How one network is trained.

    Attributes:
        epochs: passes over the training set.
        batch_size: crystals per step and process.
        lr: learning rate of AdamW: warm-up, plateau, linear decay to 2% over the cool-down. A finished run
            is continued by raising ``epochs`` and resuming from before the cool-down.
        warmup: steps of linear warm-up.
        cooldown: epochs of linear decay at the end.
        weight_decay: of AdamW.
        clip: gradient norm.
        ema: decay of the weight average that is validated and shipped (`warming_average`).
        seed: of initialisation, order and noise.
        devices: processes (DDP when above 1).
        mixed: matrix products in bfloat16 where that is safe (`OrbitNetwork`, `GeneNetwork`).
        check_every: epochs between validations.
    """

    epochs: int = 100
    batch_size: int = 128
    lr: float = 1e-3
    warmup: int = 200
    cooldown: int = 20
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    devices: int = 1
    mixed: bool = False
    check_every: int = 1


@dataclass(frozen=True)
class TrainingSet:
    """All crystals of a split as one ragged batch, with scalar labels and, for the flow, their latents."""

    crystals: CrystalBatch
    conditions: Float[Tensor, "crystals scalars"]
    latents: Latents | None = None

    @classmethod
    def from_dataset(cls, dataset: CrystalDataset) -> "TrainingSet":
        """Everything of a data set, in float32."""
        everything = range(len(dataset))
        return cls(dataset.batch(everything).to(dtype=torch.float32), dataset.conditions(everything))

    def __len__(self) -> int:
        """Number of crystals."""
        return self.crystals.n_crystals

    @torch.no_grad()
    def encoded(self, encoder: Encoder, chunk: int = 256) -> "TrainingSet":
        """The same set with q(h) of every site."""
        index = torch.arange(self.crystals.n_crystals)
        parts = [encoder(self.crystals.select(part)) for part in index.split(chunk)]
        latents = Latents(torch.cat([p.mean for p in parts]), torch.cat([p.log_std for p in parts]))
        return TrainingSet(self.crystals, self.conditions, latents)

    def select(self, crystals: Tensor) -> "TrainingSet":
        """Some crystals with everything that belongs to them."""
        latents = self.latents
        if latents is not None:
            rows, _ = self.crystals.site_rows(crystals)
            latents = Latents(latents.mean[rows], latents.log_std[rows])
        return TrainingSet(self.crystals.select(crystals), self.conditions[crystals], latents)

    def to(self, device: torch.device) -> "TrainingSet":
        """Move everything."""
        latents = self.latents
        if latents is not None:
            latents = Latents(latents.mean.to(device), latents.log_std.to(device))
        return TrainingSet(self.crystals.to(device), self.conditions.to(device), latents)


class Selectable(Protocol):
    """A set from which rows can be taken and moved to a device."""

    def __len__(self) -> int:
        """Number of crystals."""
        ...

    def select(self, index: Tensor, /) -> Self:
        """Some of them."""
        ...

    def to(self, device: torch.device) -> Self:
        """All of it, elsewhere."""
        ...


S = TypeVar("S", bound=Selectable)


class BatchData(lightning.LightningDataModule, Generic[S]):
    """Batches drawn from a train and a val set, both held in memory."""

    def __init__(self, train: S, val: S, batch_size: int, seed: int = 0) -> None:
        super().__init__()
        self.train, self.val, self.batch_size, self.seed = train, val, batch_size, seed

    def train_dataloader(self) -> DataLoader:
        """Shuffled anew every epoch, last incomplete batch dropped unless it is the only one."""
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """In order, all."""
        return self._loader(self.val, shuffle=False)

    def transfer_batch_to_device(self, batch: S, device: torch.device, _: int) -> S:
        """Called by Lightning."""
        return batch.to(device)

    def _loader(self, data: S, *, shuffle: bool) -> DataLoader:
        rows: Any = range(len(data))
        return DataLoader(
            rows,
            batch_size=self.batch_size,
            sampler=self._shuffled(rows) if shuffle else None,
            drop_last=shuffle and len(data) >= self.batch_size,
            collate_fn=lambda rows: data.select(torch.tensor(rows)),
        )

    def _shuffled(self, rows: Any) -> DistributedSampler:
        """This process's share, in an order that follows from seed and epoch: a resumed run sees the same."""
        trainer = self.trainer
        processes, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        return DistributedSampler(rows, processes, rank, seed=self.seed)


class Training(lightning.LightningModule):
    """AdamW with warm-up, plateau and cool-down, and one loss dictionary logged under train/ and val/."""

    def __init__(self, network: nn.Module, config: FitConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config
        for part in network.modules():
            if isinstance(part, OrbitNetwork):
                part.mixed = config.mixed

    @abstractmethod
    def loss(self, batch: Any, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Terms of one batch; ``total`` is minimised."""

    def on_train_batch_start(self, *_: Any) -> None:
        """Noise of its own for every step and process, the same after a resume as without one."""
        step = self.config.seed * 1_000_003 + self.global_step
        torch.manual_seed(step * self.trainer.world_size + self.global_rank)

    def training_step(self, batch: Selectable, _: int) -> Tensor:
        """One optimiser step's loss."""
        terms = self.loss(batch, None)
        self.log_dict(
            {f"train/{k}": v.detach() for k, v in terms.items()},
            batch_size=len(batch),
            on_epoch=True,
            on_step=False,
            sync_dist=True,
        )
        return terms["total"]

    def validation_step(self, batch: Selectable, index: int) -> None:
        """Loss with the same noise at every validation."""
        terms = self.loss(batch, torch.Generator().manual_seed(index))
        self.log_dict({f"val/{k}": v for k, v in terms.items()}, batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> dict:
        """Weight decay on matrices only."""
        matrices = [p for p in self.parameters() if p.ndim > 1]
        others = [p for p in self.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=self.config.lr,
        )
        total = int(self.trainer.estimated_stepping_batches)
        cooldown = max(1, round(total * min(1.0, self.config.cooldown / self.config.epochs)))

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / max(1, self.config.warmup), max(0.02, (total - step) / cooldown))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class AutoencoderTraining(Training):
    """Reconstruction, KL and denoising (`Autoencoder.loss`)."""

    network: Autoencoder

    def __init__(self, network: Autoencoder, config: FitConfig, physics: Physics | None = None) -> None:
        super().__init__(network, config)
        self.physics = physics

    def loss(self, batch: TrainingSet, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Terms of one batch."""
        return self.network.loss(batch.crystals, generator, self.physics)


class FlowTraining(Training):
    """Flow matching (`matching_loss`) on latents drawn from the frozen encoder."""

    network: VelocityNetwork

    def __init__(self, network: VelocityNetwork, config: FitConfig, physics: Physics | None = None) -> None:
        super().__init__(network, config)
        self.physics = physics

    def loss(self, batch: TrainingSet, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Terms of one batch; raises ValueError where the set was not encoded."""
        if batch.latents is None:
            raise ValueError("expected an encoded training set: call TrainingSet.encoded(encoder) first")
        h = batch.latents.sample(generator)
        return matching_loss(self.network, batch.crystals, h, batch.conditions, generator, self.physics)


class GeneTraining(Training):
    """Likelihood of space group, orbits and masked species (`gene_loss`)."""

    network: GeneNetwork

    def loss(self, batch: GeneBatch, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Terms of one batch."""
        mixed = self.config.mixed and self.training
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            terms = gene_loss(self.network, batch, generator)
        return {"total": torch.stack(list(terms.values())).sum(), **terms}


class CriticTraining(Training):
    """Telling real crystals from drawn ones (`critic_loss`)."""

    network: GeneCritic

    def loss(self, batch: Contrast, generator: torch.Generator | None) -> dict[str, Tensor]:
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
        best = torch.load(self.chosen, weights_only=True)["best"] if self.chosen.exists() else None
        if best is None or not self.first <= best["epoch"] < about["epoch"]:
            best = about
        error = (best["figure"] * (1 - best["figure"]) / self.drawn) ** 0.5
        if about["figure"] >= best["figure"] - 2 * error:
            best = max(best, about, key=lambda found: found["figure"])
            torch.save({"best": best, **about, "state_dict": module.state_dict()}, self.chosen)


def warming_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential average of weights with a memory that grows as training goes on, up to ``decay``.

    After n updates it is (1 + n) / (10 + n) where that is less, as in TensorFlow's ExponentialMovingAverage:
    a training of a thousand steps, on a small table, is then not averaged with the noise that it began with.
    """

    def averaged(average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        n = float(updates)
        return torch.lerp(average, current.to(average), 1 - min(decay, (1 + n) / (10 + n)))

    return averaged


def fit(
    module: lightning.LightningModule,
    data: BatchData,
    config: FitConfig,
    out: Path,
    *,
    monitor: str = "val/total",
    callbacks: Sequence[lightning.Callback] = (),
) -> Path:
    """Train, resuming from ``out/last.ckpt`` when it is there; returns the best checkpoint.

    Logs go to ``out/csv`` and ``out/tensorboard``, one version per start: a resumed run keeps its curves.
    """
    out.mkdir(parents=True, exist_ok=True)
    best = ModelCheckpoint(out, filename="best", monitor=monitor, enable_version_counter=False)
    last = ModelCheckpoint(out, filename="last", enable_version_counter=False)
    trainer = lightning.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=config.devices,
        strategy="ddp" if config.devices > 1 else "auto",
        max_epochs=config.epochs,
        gradient_clip_val=config.clip,
        check_val_every_n_epoch=config.check_every,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        logger=[CSVLogger(out, "csv"), TensorBoardLogger(out, "tensorboard")],
        callbacks=[
            best,
            last,
            WeightAveraging(avg_fn=warming_average(config.ema)),
            LearningRateMonitor("epoch"),
            *callbacks,
        ],
        enable_model_summary=False,
        inference_mode=False,  # forces are gradients, in validation too
    )
    stood = out / "last.ckpt"
    trainer.fit(module, data, ckpt_path=str(stood) if stood.exists() else None, weights_only=False)
    return Path(best.best_model_path)
