"""Train the gene network on one core: a plain loop, resumable, with the averaged weights that are shipped."""

import copy
import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from autoperi.gene_batch import GeneBatch
from autoperi.gene_network import GeneNetwork, gene_loss

_PARTS = ("group", "letters", "species")


@dataclass(frozen=True)
class GeneTraining:
    """How the gene network is trained.

    Attributes:
        epochs: passes over the training crystals.
        batch_size: crystals per step.
        learning_rate: peak of the cosine schedule, after a linear warm-up of 3% of the steps.
        weight_decay: AdamW, on matrices only.
        ema: decay of the averaged weights (shorter average at the start).
        seed: of the order, the masks and the dropout.
        validate_every: epochs between held-out likelihoods; checkpoints are written then.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    ema: float = 0.999
    seed: int = 0
    validate_every: int = 1


def train_genes(
    network: GeneNetwork,
    train: GeneBatch,
    val: GeneBatch,
    folder: Path,
    config: GeneTraining | None = None,
    stop_after: int | None = None,
    report: Callable[[int, GeneNetwork], dict[str, float]] | None = None,
) -> GeneNetwork:
    """Train until the epochs are done and return the averaged network.

    Writes ``log.csv``, ``last.pt`` (resumed from when present), ``ema_<epoch>.pt`` and ``best.pt`` (lowest
    held-out negative log-likelihood of the averaged weights; each holds ``config`` and ``state_dict``).
    ``stop_after`` ends this call after that epoch, to be resumed later on the same schedule. ``report``
    adds columns to the log, e.g. the validity of samples.
    """
    config = config or GeneTraining()
    folder.mkdir(parents=True, exist_ok=True)
    decay = [p for p in network.parameters() if p.ndim >= 2]
    rest = [p for p in network.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
    )
    average = copy.deepcopy(network).eval().requires_grad_(False)
    steps = len(_batches(train, config.batch_size, torch.Generator()))
    step, best, began = 0, math.inf, time.time()
    last = folder / "last.pt"
    if last.exists():
        saved = torch.load(last, weights_only=True)
        network.load_state_dict(saved["state_dict"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step, best, began = saved["step"], saved["best"], began - saved["seconds"]
    for epoch in range(step // steps, min(config.epochs, stop_after or config.epochs)):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        torch.manual_seed(config.seed * 1_000_003 + epoch)
        network.train()
        totals = dict.fromkeys(_PARTS, 0.0)
        for index in _batches(train, config.batch_size, generator):
            share = step / (steps * config.epochs)
            rate = min(share / 0.03, 1.0) * (0.5 + 0.5 * math.cos(math.pi * share)) + 0.01
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate
            batch = train.take(index)
            losses = gene_loss(network, batch, generator)
            optimizer.zero_grad(set_to_none=True)
            # a batch holds crystals of about one size. Species are learned given the gene, so large genes
            # may count less; weighing group or letters by size would change the distribution learned
            size = (batch.wyckoff >= 0).sum() / len(batch)
            species = losses["species"] / size.sqrt()
            (0.5 * (losses["group"] + losses["letters"]) + species).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 20.0)
            optimizer.step()
            step += 1
            weight = max(1 - config.ema, 9 / (10 + step))
            for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(value.detach(), weight)
            for part in _PARTS:
                totals[part] += losses[part].item() / steps
        if (epoch + 1) % config.validate_every and epoch + 1 < config.epochs:
            continue
        held_out = _held_out(average, val)
        score = sum(held_out.values())
        row = {"epoch": epoch + 1, "step": step, "seconds": round(time.time() - began)}
        row |= {f"train_{k}": round(v, 4) for k, v in totals.items()}
        row |= {f"val_{k}": round(v, 4) for k, v in held_out.items()} | {"val": round(score, 4)}
        if report is not None:
            row |= report(epoch + 1, average)
        _append(folder / "log.csv", row)
        shipped = {"config": asdict(network.config), "state_dict": average.state_dict(), "epoch": epoch + 1}
        torch.save(shipped, folder / f"ema_{epoch + 1}.pt")
        if score < best:
            best = score
            torch.save(shipped, folder / "best.pt")
        state = {"state_dict": network.state_dict(), "average": average.state_dict()}
        state |= {"optimizer": optimizer.state_dict(), "step": step, "best": best}
        torch.save(state | {"seconds": time.time() - began}, last)
    return average


def _batches(train: GeneBatch, size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Every crystal once; crystals of eight neighbouring batches are sorted by sites to spare padding."""
    sites = (train.wyckoff >= 0).sum(dim=1)
    pools = torch.randperm(len(train), generator=generator).split(8 * size)
    batches = [b for pool in pools for b in pool[sites[pool].argsort(stable=True)].split(size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


@torch.no_grad()
def _held_out(network: GeneNetwork, val: GeneBatch) -> dict[str, float]:
    """Mean losses in nats per crystal on the held-out crystals, with masks that never change."""
    generator = torch.Generator().manual_seed(1)
    totals: dict[str, float] = dict.fromkeys(_PARTS, 0.0)
    for index in torch.arange(len(val)).split(512):
        losses = gene_loss(network, val.take(index), generator)
        for part in _PARTS:
            totals[part] += losses[part].item() * len(index) / len(val)
    return totals


def _append(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
