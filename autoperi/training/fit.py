"""Generic training on Lightning: typed settings, batches from memory, weight averages, resumption."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import lightning
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from autoperi.networks.orbit_network import OrbitNetwork


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


def averaged_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of a Lightning checkpoint of ours, keyed as the bare network's."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)["state_dict"]
    return {key.removeprefix("network."): value for key, value in state.items()}
