"""A condition of one's own: a trained generator learns to be steered by it from a few hundred labels.

The networks stay as they are, number for number. What is learned is how a value is told to the gene network:
one embedding, the token before all others, as a prompt is tuned (Lester et al., arXiv:2104.08691). A label
that is not asked for says nothing, so that crystals drawn without it are those of the old checkpoint.
Geometry follows from gene and species: the flow is not told.
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoperi.crystals.labels import Condition
from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.data.names import counted
from autoperi.generator import CrystalGenerator, load, save
from autoperi.genes.batch import GeneBatch
from autoperi.genes.network import GeneNetwork, gene_loss
from autoperi.networks.config import ConfigError
from autoperi.training.assemble import provenance
from autoperi.training.fit import BatchData, FitConfig, Training, fit
from autoperi.training.folder import claim, occupied
from autoperi.training.model_card import Trained, model_card
from autoperi.training.states import averaged_weights

_FEWEST = 50
"""Labels of a condition below which nothing could be told of held-out crystals."""
_STEPS = 150
"""Of the optimiser, whatever the number of crystals; by then it has learned them by heart."""
_HELD_OUT = 5
"""One in so many compounds chooses the epoch and is learned from by nobody."""
_BLUR = 0.05
"""Spread of labels as they are told, in ranges: neighbouring values are learned together."""
_SHUFFLES = 8
"""Of labels among held-out crystals, beside which the right ones are seen."""


@dataclass(frozen=True)
class OwnCondition:
    """What a training ends with.

    Attributes:
        checkpoint: folder of the widened generator.
        conditions: that it has learned, by name.
        about: numbers of crystals, and what labels tell of held-out ones, for people.
        failures: (id, where, reason) of rows that could not be read.
    """

    checkpoint: Path
    conditions: dict[str, Condition]
    about: dict[str, str]
    failures: list[tuple[str, str, str]]


def add_conditions(start: str, columns: Sequence[str], data: Path, out: Path, seed: int = 0) -> OwnCondition:
    """Add labels of a table to what a generator can be steered by; a run that was interrupted goes on.

    A fifth of the compounds, by a hash of the formula, is held out to choose the epoch.

    Args:
        start: shipped name or folder of the checkpoint, which stays as it is.
        columns: of the table, each ``NAME`` or ``NAME[unit]``; cells may be empty.
        data: a CSV file with a column of CIF or whatever `load_dataset` reads.
        out: folder of logs and resumable states; the result is ``out/checkpoint`` with its card.
        seed: of order and noise.

    Raises:
        CheckpointError: there is no such ``start``.
        ConfigError: a column that is not there or holds no numbers, too few or equal labels, a name that
            ``start`` has learned.
        FolderError: the folder holds another training.
        ValueError: not one crystal could be read.
    """
    with occupied(out):
        generator = load(start)
        dataset = generator.seen(load_dataset(data, None))
        units = _columns(columns, dataset, generator)
        labels = {name: dataset.labels[column] for name, (column, _) in units.items()}
        labelled = np.any([np.isfinite(values) for values in labels.values()], axis=0)
        small = dataset.n_atoms() <= generator.config.genes.n_max
        used = replace(dataset, labels=labels).select(np.flatnonzero(labelled & small))
        is_held_out = np.array([_held_out(crystal.formula) for crystal in used], dtype=bool)
        parts = [used.select(np.flatnonzero(is_held_out == side)) for side in (False, True)]
        conditions = {name: _condition(name, unit, parts) for name, (_, unit) in units.items()}
        widened = generator.with_conditions({**generator.config.conditions, **conditions})
        seen, held_out = (GeneBatch.from_crystals(part, widened.config.conditions) for part in parts)
        epochs = int(np.clip(_STEPS * 64 // len(seen), 4, _STEPS))
        config = FitConfig(epochs, 64, 7e-3, 5, epochs // 2, weight_decay=0.0, ema=0.9, seed=seed, devices=1)
        told = {name: asdict(condition) for name, condition in conditions.items()}
        learned = {"start": generator.sha256, "conditions": told, "fit": asdict(config)}
        folder, data_hash = out / "condition", used.content_hash()
        claim(folder, {**learned, "data": data_hash})
        network, began = widened.gene_network, time.monotonic()
        batches = BatchData(seen, held_out, config.batch_size, config.seed)
        fit(ConditionTraining(network, config), batches, config, folder)
        minutes = (time.monotonic() - began) / 60
        _take_over(widened, averaged_weights(folder / "best.ckpt"), conditions)
        right, wrong = _nats(network.cpu(), held_out)
        large = f"of more than {generator.config.genes.n_max} atoms"
        left_out = (
            f"{len(dataset.failures)} unreadable",
            counted(dataset.ids[~labelled].tolist(), "without a label"),
            counted(dataset.ids[labelled & ~small].tolist(), large),
        )
        about = {
            "crystals": f"{len(seen)} to learn from, {len(held_out)} of other compounds held out",
            "left out": ", ".join(left_out),
            "held out": f"{right:.2f} nats a crystal, told its label; {wrong:.2f} told another's",
            "minutes": f"{minutes:.1f} in the last sitting",
        }
        _write(widened, out, generator, config, {**provenance(used), **about}, told)
        return OwnCondition(out / "checkpoint", conditions, about, dataset.failures)


class ConditionTraining(Training):
    """Likelihood of labelled crystals, of which the embedding of conditions alone is learned."""

    network: GeneNetwork

    def __init__(self, network: GeneNetwork, config: FitConfig) -> None:
        super().__init__(network.eval().requires_grad_(False), config)
        network.condition.project.requires_grad_(True)
        self.ranges = torch.tensor([c.high - c.low for c in network.condition.conditions.values()])

    def loss(self, batch: GeneBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms of one batch, in training with blurred labels.

        Of several labels of a crystal some are hidden then, so that each can be asked for alone.
        """
        if self.training:
            values = batch.conditions
            several = (~values.isnan()).sum(dim=1, keepdim=True) > 1
            hidden = (torch.rand(values.shape, generator=generator) < 0.5).to(values.device)
            noise = _BLUR * self.ranges * torch.randn(values.shape, generator=generator)
            blurred = values + noise.to(values)
            batch = replace(batch, conditions=blurred.masked_fill(several & hidden, torch.nan))
        terms = gene_loss(self.network, batch, generator, drop=False)
        return {"total": torch.stack(list(terms.values())).sum(), **terms}


def _columns(
    columns: Sequence[str], dataset: CrystalDataset, generator: CrystalGenerator
) -> dict[str, tuple[str, str]]:
    """Column and unit of each condition, by its name."""
    known = sorted(name for name, values in dataset.labels.items() if np.isfinite(values).any())
    found: dict[str, tuple[str, str]] = {}
    for text in columns:
        match = re.fullmatch(r"([^\[\]=]+?)\s*(?:\[([^\[\]]*)\])?", text)
        if match is None:
            raise ConfigError("condition", f"expected NAME or NAME[unit], e.g. hardness[GPa]: got {text!r}")
        name, column = match[1], match[1] if match[1] in known else text
        if column not in known:
            among = f"among {', '.join(known)}: got {name!r}" if known else f"as {name!r}: it has none"
            raise ConfigError("condition", f"expected a numeric column of {dataset.name} {among}")
        if name in generator.config.conditions:
            raise ConfigError(
                "condition",
                f"expected a name that {generator.name} has not learned: got {name!r}; rename the column, or "
                "begin from a checkpoint without it",
            )
        if name in found:
            raise ConfigError("condition", f"expected each condition once: got {name!r} twice")
        labels = int(np.isfinite(dataset.labels[column]).sum())
        if labels < _FEWEST:
            raise ConfigError(
                "condition", f"expected at least {_FEWEST} crystals with a number for {name!r}: got {labels}"
            )
        found[name] = column, match[2] or ""
    return found


def _condition(name: str, unit: str, parts: Sequence[CrystalDataset]) -> Condition:
    """A range that holds 98% of the labels learned from and a twentieth more, on their side of zero."""
    counts = [int(np.isfinite(part.labels[name]).sum()) for part in parts]
    if not all(counts):
        raise ConfigError(
            "condition",
            f"expected {name!r} of different compounds, to hold some out: got {sum(counts)} of "
            f"{len({c.formula for part in parts for c in part})} formulas",
        )
    values = parts[0].labels[name][np.isfinite(parts[0].labels[name])]
    low, high = np.quantile(values, [0.01, 0.99]).tolist()
    if low == high:
        raise ConfigError("condition", f"expected labels that differ: got {name!r} of {low:g} only")
    more = (high - low) / 20
    return Condition(
        unit,
        max(low - more, 0.0) if values.min() >= 0 else low - more,
        min(high + more, 0.0) if values.max() <= 0 else high + more,
    )


def _held_out(formula: str) -> bool:
    return hashlib.sha256(f"held out {formula}".encode()).digest()[0] % _HELD_OUT == 0


@torch.no_grad()
def _take_over(
    generator: CrystalGenerator, weights: Mapping[str, Tensor], conditions: Mapping[str, Condition]
) -> None:
    """The embeddings of these conditions; nothing else of the weights."""
    embedding = generator.gene_network.condition
    for row, name in enumerate(embedding.conditions):
        if name in conditions:
            embedding.project[row] = weights["condition.project"][row]


@torch.no_grad()
def _nats(network: GeneNetwork, batch: GeneBatch) -> tuple[float, float]:
    """-log p of crystals told their labels, and told those of others, in the mean."""
    sums = np.zeros(2)
    for k in range(_SHUFFLES):
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(k))
        for told, conditions in enumerate((batch.conditions, batch.conditions[order])):
            noise = torch.Generator().manual_seed(k)
            terms = gene_loss(network, replace(batch, conditions=conditions), noise, drop=False)
            sums[told] += float(torch.stack(list(terms.values())).sum())
    right, wrong = (sums / _SHUFFLES).tolist()
    return right, wrong


def _write(
    widened: CrystalGenerator,
    out: Path,
    start: CrystalGenerator,
    config: FitConfig,
    about: Mapping[str, str],
    conditions: Mapping[str, Any],
) -> None:
    """The checkpoint and its card."""
    origin = {"checkpoint": start.name, "sha256": start.sha256, "about": start.about}
    recipe = {"conditions": conditions, "fit": asdict(config)}
    save(widened, out / "checkpoint", {**about, "recipe": recipe, "start": origin})
    ranges = [f"{name}, {c['low']:g} to {c['high']:g} {c['unit']}".rstrip() for name, c in conditions.items()]
    learned = len(conditions) * widened.gene_network.condition.project[0].numel()
    card = model_card(
        out.name,
        {"conditions": "; ".join(ranges), **about},
        f"`{start.name}` (sha256 {start.sha256}), whose networks it has, number for number: what is drawn "
        "without the new conditions is what that one draws",
        [Trained("condition", learned, config, out / "condition")],
    )
    (out / "checkpoint" / "MODEL_CARD.md").write_text(card)
