"""Training of property networks: data with missing labels, the loss, deep ensembles from a typed recipe."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from autoperi.data.dataset import CrystalDataset
from autoperi.data.workers import mapped
from autoperi.networks.config import ConfigError, check, merged_from_toml
from autoperi.training.fit import BatchData, FitConfig, Training, fit, seeded
from autoperi.training.states import averaged_weights, read_state
from property_models.catalogue import find
from property_models.graph.site_graph import SiteGraph, dataset_graph
from property_models.model import load
from property_models.networks.crystal_gnn import ZERO, CrystalGNN, CrystalGNNConfig
from property_models.networks.energies import PotentialEnergy
from property_models.networks.ensemble import Ensemble, EnsembleConfig
from property_models.networks.targets import TARGETS, Half, unknown_name, working

_BATCH = 256
"""Crystals whose potential energies are computed together."""


@dataclass(frozen=True)
class PropertyRecipe:
    """A deep ensemble: what it predicts, from which half of the data, with which network, trained how.

    Attributes:
        targets: columns of the data set.
        family: name of the ensemble, e.g. ``guide`` or ``judge``.
        half: training compounds it may see; two families on different halves share none.
        members: networks that differ in their seed alone (Lakshminarayanan et al., arXiv:1612.01474).
        start: checkpoint (a folder, or the name of a shipped one, see `autoperi info`) whose networks are
            where training starts, with their sizes; heads too if the targets are the same.
        network: architecture; ``targets``, ``log`` and ``gated`` are filled in from the targets.
        potential: learn what the formation energies of the shipped potential lack (`PotentialEnergy`)
            instead of the whole; formation energies alone.
        strain: standard deviation of the random symmetric strain under which a training crystal is shown. It
            hardly changes a label, and keeps bond lengths from being learned by heart.
        fit: how each member is fitted, on one device; seeds count up from that of the first.
    """

    targets: tuple[str, ...] = ("formation_energy",)
    family: str = "guide"
    half: Half = "all"
    members: int = 3
    start: str | None = None
    network: CrystalGNNConfig = field(default_factory=CrystalGNNConfig)
    potential: bool = False
    strain: float = 0.02
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            epochs=60, cooldown=40, batch_size=64, lr=1e-3, weight_decay=0.1, ema=0.999
        )
    )

    def __post_init__(self) -> None:
        check(self, members=(1, 1024), strain=(0, 1))
        if self.fit.devices not in (1, "auto"):
            raise ConfigError("fit.devices", f"expected 1, a member's device: got {self.fit.devices}")
        if not self.targets:
            raise ConfigError("targets", "expected at least one name: got none")

    @classmethod
    def read(cls, path: Path | None) -> "PropertyRecipe":
        """The default recipe, or what a TOML file changes of it; raises ConfigError for what does not fit."""
        return (merged_from_toml(cls(), path) if path else cls()).filled()

    def filled(self) -> "PropertyRecipe":
        """The same with the network's heads set up for the targets, and its sizes those of ``start``.

        What it is told of crystals and surroundings, and dropout, stay those of the recipe.

        What is known of a target (``TARGETS``) decides log and gate; for others the network's config does.
        Raises ConfigError for networks that cannot correct the potential, if they are to.
        """
        network = _started(self.start).config.network if self.start else self.network
        known = {name: TARGETS[name] for name in self.targets if name in TARGETS}
        log = tuple(t for t in self.targets if t in self.network.log or (t in known and known[t].log))
        gated = tuple(t for t in self.targets if t in self.network.gated or (t in known and known[t].gated))
        own = ("dropout", "crystal_features", "surroundings")
        told = {name: getattr(self.network, name) for name in own}
        network = replace(network, targets=self.targets, log=log, gated=gated, **told)
        EnsembleConfig(network, self.members, self.family, "shipped" if self.potential else "")
        return replace(self, network=network)


@dataclass(frozen=True)
class LabelledGraphs:
    """Graphs and working labels of many crystals; NaN where a label is missing."""

    graphs: SiteGraph
    labels: Float[Tensor, "crystals targets"]

    @classmethod
    def from_dataset(
        cls,
        dataset: CrystalDataset,
        config: CrystalGNNConfig,
        targets: tuple[str, ...] = (),
        *,
        progress: bool = True,
    ) -> "LabelledGraphs":
        """Crystals of a data set that have at least one label, of ``targets`` or those of the network.

        Raises:
            ValueError: a target that the data set does not have, or no labels at all.
        """
        targets = targets or config.targets
        for target in targets:
            if target not in dataset.labels:
                raise unknown_name(target, sorted(dataset.labels), f"a label of {dataset.name}")
        columns = np.stack([dataset.labels[target] for target in targets], 1)
        columns = np.where(np.isfinite(columns), columns, np.nan)
        labels = working(torch.from_numpy(columns).float(), [t in config.log for t in targets])
        kept = labels.isfinite().any(1).nonzero().squeeze(-1)
        if not len(kept):
            raise ValueError(
                f"expected labels of {', '.join(targets)} in {dataset.name}: all {len(dataset)} rows "
                "lack them"
            )
        graphs = dataset_graph(dataset, config.cutoff, config.nearest, progress=progress)
        return cls(graphs.select(kept), labels[kept])

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.labels)

    def select(self, crystals: Tensor) -> "LabelledGraphs":
        """Some of the crystals."""
        return LabelledGraphs(self.graphs.select(crystals), self.labels[crystals])

    @torch.no_grad()
    def beyond(self, baseline: PotentialEnergy) -> "LabelledGraphs":
        """The same with labels less what a potential says."""
        parts = torch.arange(len(self)).split(_BATCH)
        told = torch.cat([baseline(self.graphs.select(rows)) for rows in parts])
        return replace(self, labels=self.labels - told[:, None])

    def to(self, device: torch.device) -> "LabelledGraphs":
        """Move everything."""
        return LabelledGraphs(self.graphs.to(device), self.labels.to(device))


def property_loss(network: CrystalGNN, batch: LabelledGraphs) -> dict[str, Tensor]:
    """Terms of one batch; a missing label gives no loss and no gradient.

    ``total`` is the mean absolute error in units of each label's spread, the cross-entropy of the gates, and
    the Laplace likelihood of the errors, which trains the scale heads alone. ``<target>_mae`` is in working
    units (log10 where the target is learned so), for gated targets over the non-zero ones.
    """
    config = network.config
    answer = network(batch.graphs)
    known = batch.labels.isfinite()
    truth = batch.labels.nan_to_num()
    losses, scores = [], []
    figures: dict[str, Tensor] = {}
    for column, target in enumerate(config.targets):
        mask = known[:, column]
        if target in config.gated:
            logit = answer.gate[mask, column]
            nonzero = truth[mask, column].abs() > ZERO
            losses.append(_mean(binary_cross_entropy_with_logits(logit, nonzero.to(logit), reduction="none")))
            figures[f"{target}_gate_error"] = _mean(((logit > 0) != nonzero).to(logit))
            mask = mask & (truth[:, column].abs() > ZERO)
        wanted = (truth[mask, column] - network.centre[column]) / network.spread[column]
        error = (answer.mean[mask, column] - wanted).abs()
        log_scale = answer.log_scale[mask, column]
        losses.append(_mean(error))
        scores.append(_mean(error.detach() * torch.exp(-log_scale) + log_scale))
        figures[f"{target}_mae"] = _mean(error) * network.spread[column]
    terms = {
        "error": torch.stack(losses).mean(),
        "likelihood": torch.stack(scores).mean(),
        "kl": answer.kl.mean(),
    }
    total = terms["error"] + terms["likelihood"] + config.kl * terms["kl"]
    return {"total": total, **terms, **figures}


class PropertyTraining(Training):
    """One member (`property_loss`), its training crystals under random strain."""

    network: CrystalGNN

    def __init__(self, network: CrystalGNN, config: FitConfig, strain: float) -> None:
        super().__init__(network, config)
        self.strain = strain

    def loss(self, batch: LabelledGraphs, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms of one batch; nothing is drawn when validating."""
        if self.training and self.strain:
            vector = batch.graphs.vector
            strain = self.strain * torch.randn(len(batch), 3, 3, dtype=vector.dtype, generator=generator)
            strain = (strain + strain.transpose(1, 2)).to(vector.device) / 2
            batch = replace(batch, graphs=batch.graphs.strained(strain))
        return property_loss(self.network, batch)


def fit_members(
    recipe: PropertyRecipe, train: LabelledGraphs, val: LabelledGraphs, out: Path, workers: int = 1
) -> list[CrystalGNN]:
    """Train every member, or go on where a run was interrupted; the averaged weights of each.

    Args:
        recipe: filled in (`PropertyRecipe.filled`).
        train: labelled crystals, all of them seen by every member.
        val: watched only.
        out: folder; member i is in ``out/member-i``.
        workers: members trained at once, one thread each: on small tensors two processes beat two threads.

    Raises:
        ValueError: labels that cannot be learned.
        RuntimeError: members that could not be trained, each with the reason; the others are.
    """
    CrystalGNN(recipe.network).standardise(train.labels)  # refuses labels that nobody could learn
    todo = [i for i in range(recipe.members) if not _done(recipe, out, i)]
    together = 1 if torch.cuda.is_available() else workers  # a forked process has no accelerator
    told = mapped(partial(_fit_member, recipe, train, val, out), todo, together, _lost)
    if failed := [reason for reason in told if reason]:
        raise RuntimeError(f"expected every member to be trained: {'; '.join(failed)}; run again to go on")
    return [_member(recipe, out, i) for i in range(recipe.members)]


def _mean(values: Tensor) -> Tensor:
    """Mean; zero, with a graph, where there is nothing."""
    return values.sum() / max(1, len(values))


def _done(recipe: PropertyRecipe, out: Path, member: int) -> bool:
    last = out / f"member-{member}" / "last.ckpt"
    if not last.exists():
        return False
    return int(read_state(last)["epoch"]) + 1 >= recipe.fit.epochs


def _fit_member(
    recipe: PropertyRecipe, train: LabelledGraphs, val: LabelledGraphs, out: Path, member: int
) -> str:
    """Train one; why it could not be, or nothing."""
    config = replace(recipe.fit, seed=recipe.fit.seed + member, devices=1)
    try:
        with seeded(config.seed):
            network = CrystalGNN(recipe.network)
        network.standardise(train.labels)
        if recipe.start:
            start = _started(recipe.start)
            other = start.networks()[member % start.config.members]
            network.start_from(other, heads=recipe.potential == bool(start.config.potential))
        training = PropertyTraining(network, config, recipe.strain)
        data = BatchData(train, val, config.batch_size, config.seed)
        fit(training, data, config, out / f"member-{member}", monitor="val/error")
    except (ValueError, OSError) as error:  # the others go on
        return _lost(member, str(error))
    return ""


def _lost(member: int, reason: str) -> str:
    return f"member {member}: {reason}"


def _started(name: str) -> Ensemble:
    """The checkpoint to start from; raises CheckpointError for what is none of ours."""
    return load(find(name)).ensemble


def _member(recipe: PropertyRecipe, out: Path, member: int) -> CrystalGNN:
    network = CrystalGNN(recipe.network)
    network.load_state_dict(averaged_weights(out / f"member-{member}" / "last.ckpt"))
    return network.eval()
