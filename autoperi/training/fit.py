"""Generic training on Lightning: typed settings, batches from memory, weight averages, resumption."""

import logging
import math
import os
import signal
import threading
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import lightning
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from autoperi.networks.checkpoint import refuse_divergence
from autoperi.networks.config import ConfigError, check
from autoperi.training.states import WholeCheckpoints


@dataclass(frozen=True)
class FitConfig:
    """How one network is trained.

    Attributes:
        epochs: passes over the training set.
        batch_size: crystals per step, over all processes: the training is the same on any number of them.
        lr: learning rate of AdamW: warm-up, plateau, linear decay to 2% over the cool-down. A finished run
            is continued by raising ``epochs`` and resuming from before the cool-down.
        warmup: steps of linear warm-up.
        cooldown: epochs of linear decay at the end.
        weight_decay: of AdamW.
        clip: gradient norm.
        ema: decay of the weight average that is validated and shipped (`warming_average`).
        seed: of initialisation, order and noise.
        devices: processes (DDP when above 1); ``auto`` takes all GPUs, or one process without. Where torchrun
            has started the processes, on one machine or many, they are as many as it says.
        mixed: matrix products in bfloat16 where that is safe (`Mixable`).
        check_every: epochs between validations; the last is always validated.
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
    devices: int | Literal["auto"] = "auto"
    mixed: bool = False
    check_every: int = 1

    def __post_init__(self) -> None:
        check(
            self,
            positive=("lr", "clip"),
            epochs=(0, math.inf),
            batch_size=(1, math.inf),
            warmup=(0, math.inf),
            cooldown=(0, math.inf),
            weight_decay=(0, math.inf),
            ema=(0, 1),
            seed=(0, 2**32 - 1),
            devices=(1, 1024),
            check_every=(1, math.inf),
        )

    def processes(self) -> int:
        """How many processes of this machine train; ConfigError for more than there are GPUs, or crystals."""
        gpus, launched = torch.cuda.device_count(), os.environ.get("LOCAL_WORLD_SIZE")
        asked = max(1, gpus) if self.devices == "auto" else self.devices
        wanted = int(launched) if launched else asked
        if gpus and wanted > gpus:
            raise ConfigError("devices", f"expected at most {gpus}, the GPUs of this machine: got {wanted}")
        if (together := wanted * machines()) > self.batch_size:
            raise ConfigError("batch_size", f"expected a crystal for each of {together} processes")
        return wanted


def machines() -> int:
    """How many train together: torchrun says so to the processes that it starts."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1"))


@runtime_checkable
class Selectable(Protocol):
    """A set from which rows can be taken and moved to a device."""

    def __len__(self) -> int:
        """Number of crystals."""
        ...

    def select(self, index: Tensor, /) -> "Selectable":
        """Some of them."""
        ...

    def to(self, device: torch.device) -> "Selectable":
        """All of it, elsewhere."""
        ...


S = TypeVar("S", bound=Selectable)


class BatchData(lightning.LightningDataModule, Generic[S]):
    """Batches drawn from a train and a val set, both held in memory; ``batch_size`` is of all processes."""

    def __init__(self, train: S, val: S, batch_size: int, seed: int) -> None:
        super().__init__()
        self.train, self.val, self.batch_size, self.seed = train, val, batch_size, seed

    def train_dataloader(self) -> DataLoader:
        """Shuffled anew every epoch, last incomplete batch dropped unless it is the only one."""
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """In order, all."""
        return self._loader(self.val, shuffle=False)

    def transfer_batch_to_device(self, batch: S, device: torch.device, _: int) -> Selectable:
        """Called by Lightning."""
        return batch.to(device)

    def _loader(self, data: S, *, shuffle: bool) -> DataLoader:
        rows: Any = range(len(data))
        return DataLoader(
            rows,
            batch_size=self.batch_size // self._place()[0],
            sampler=self._shuffled(rows) if shuffle else None,
            drop_last=shuffle and len(data) >= self.batch_size,
            collate_fn=lambda rows: data.select(torch.tensor(rows)),
        )

    def _shuffled(self, rows: Any) -> DistributedSampler:
        """This process's share, in an order that follows from seed and epoch: a resumed run sees the same."""
        return DistributedSampler(rows, *self._place(), seed=self.seed)

    def _place(self) -> tuple[int, int]:
        """Number of processes, and which this is."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)


@runtime_checkable
class Mixable(Protocol):
    """A part of a network that can run its matrix products in bfloat16 while it is trained."""

    mixed: bool


class Training(lightning.LightningModule):
    """AdamW with warm-up, plateau and cool-down, and one loss dictionary logged under train/ and val/."""

    def __init__(self, network: nn.Module, config: FitConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config
        for part in network.modules():
            if isinstance(part, Mixable):
                part.mixed = config.mixed

    @abstractmethod
    def loss(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms of one batch; ``total`` is minimised."""

    def training_step(self, batch: Selectable, _: int) -> Tensor:
        """One optimiser step's loss; its noise follows from seed, step and process, in a resumed run too."""
        step = self.config.seed * 1_000_003 + self.global_step
        with seeded(step * self.trainer.world_size + self.global_rank):
            terms = self.loss(batch, torch.default_generator)
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


_REMARKS = (
    r"Checkpoint directory .* exists and is not empty",
    r"The number of training batches .* is smaller than the logging interval",
    r"The '\w+' does not have many workers",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"Found \d+ module\(s\) in eval mode",
)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's own generators begin at a seed, and are as before afterwards.

    Layers are initialised and dropout draws from these; nothing else of a training does.
    """
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(gpus):
        torch.manual_seed(seed)
        yield


def fit(
    module: Training,
    data: BatchData,
    config: FitConfig,
    out: Path,
    *,
    monitor: str = "val/total",
    callbacks: Sequence[lightning.Callback] = (),
) -> Path:
    """Train, resuming from ``out/last.ckpt`` when it is there; returns the best checkpoint.

    Logs go to ``out/csv`` and ``out/tensorboard``, one version per start: a resumed run keeps its curves.

    Raises:
        ConfigError: more devices than there are.
        FolderError: a damaged ``last.ckpt``.
        ValueError: the training has diverged; the states of earlier epochs and the logs are kept.
        KeyboardInterrupt: as it came; Lightning would end the process.
    """
    out.mkdir(parents=True, exist_ok=True)
    best = ModelCheckpoint(out, filename="best", monitor=monitor, enable_version_counter=False)
    last = ModelCheckpoint(out, filename="last", enable_version_counter=False)
    processes, stood = config.processes(), out / "last.ckpt"
    with _quiet(), seeded(config.seed):
        trainer = lightning.Trainer(
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=processes,
            num_nodes=machines(),
            strategy="ddp" if processes * machines() > 1 else "auto",
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
                _Watch(f"the training in {out} with lr = {config.lr:g}"),
                *callbacks,
            ],
            plugins=[WholeCheckpoints()],
            enable_model_summary=False,
            inference_mode=False,  # forces are gradients, in validation too
        )
        try:
            trainer.fit(module, data, ckpt_path=str(stood) if stood.exists() else None, weights_only=True)
        except SystemExit as ended:  # Lightning's answer to an interrupt
            raise KeyboardInterrupt from ended
    return Path(best.best_model_path)


class _Watch(lightning.Callback):
    """Validates the last epoch, stops a training that has diverged, and leaves SIGTERM to the caller."""

    def __init__(self, training: str) -> None:
        self.training, self.terminate = training, signal.getsignal(signal.SIGTERM)

    def on_train_start(self, *_: Any) -> None:
        if self.terminate is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.terminate)

    def on_train_epoch_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    def on_validation_start(self, _: lightning.Trainer, module: lightning.LightningModule) -> None:
        refuse_divergence(module, self.training)

    def on_train_epoch_end(self, _: lightning.Trainer, module: lightning.LightningModule) -> None:
        refuse_divergence(module, self.training)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on devices, workers and log intervals, of no use to a user."""
    logs = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for text in _REMARKS:
            warnings.filterwarnings("ignore", text)
        try:
            yield
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.setLevel(level)
