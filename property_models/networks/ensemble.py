"""Deep ensembles: values with calibrated uncertainties, and reasons why a crystal is out of the domain.

| ``centre``, ``spread`` | ``log_scale`` | ``disagreement`` | ``blend`` |
|---|---|---|---|
| of the labels: zero and unit of a network | log b of its Laplace error, that unit | spread of means | to σ |
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor, nn

from autoperi.networks.checkpoint import Arrays, CheckpointError
from autoperi.networks.config import ConfigError, check
from property_models.graph.site_graph import SiteGraph
from property_models.networks.calibration import (
    RAW,
    SURE,
    Z90,
    fit_blend,
    fit_gate,
    fit_intervals,
    warning_signs,
)
from property_models.networks.crystal_gnn import ZERO, CrystalGNN, CrystalGNNConfig
from property_models.networks.distribution import Distribution
from property_models.networks.domain import Domain
from property_models.networks.energies import CUTOFF, Phases, PotentialEnergy, fractions

_BATCH = 256
_AXES, _NEAREST, _KNOWN = 8, 3, 8_000
"""Of the latent distance: principal axes, nearest training crystals averaged, training crystals kept."""
_ENERGY = "formation_energy"
HULL_TARGET = "e_above_hull"
"""What formation energies tell as well, where a hull is known."""


@dataclass(frozen=True)
class EnsembleConfig:
    """What an ensemble is rebuilt from.

    Attributes:
        network: of every member.
        members: how many.
        family: its name.
        potential: sha256 of the shipped potential, if the networks learn what its formation energy lacks.
        hull: also tell energies above the hull (`HULL_TARGET`) of the phases in the checkpoint.
        surroundings: sha256 of the shipped potential, if the networks read its `Surroundings`.
    """

    network: CrystalGNNConfig
    members: int
    family: str = ""
    potential: str = ""
    hull: bool = False
    surroundings: str = ""

    def __post_init__(self) -> None:
        check(self, members=(1, 1024))
        if (self.potential or self.hull) and self.network.targets != (_ENERGY,):
            raise ConfigError(
                "network.targets", f"expected {_ENERGY} alone: got {', '.join(self.network.targets)}"
            )
        if self.potential:
            self.network.refuse_less_than(CUTOFF, "the potential")


@dataclass(frozen=True)
class EnsemblePrediction:
    """Working units: log10 for targets learned so."""

    value: Float[Tensor, "crystals targets"]
    """The median of ``distribution``."""
    uncertainty: Float[Tensor, "crystals targets"]
    """Calibrated so that value ± 1.645 uncertainty holds 90% of held-out labels."""
    disagreement: Float[Tensor, "crystals targets"]
    """Standard deviation of the members' means in units of each label's spread."""
    distribution: Distribution
    """Calibrated too: of a share p that lies in windows, p is in them."""
    distance: Float[Tensor, "crystals"]
    """Mean distance in the leading latent axes to the three nearest training crystals; no unit."""


class Ensemble(nn.Module):
    """Members, and what was learned of their errors after training (``calibrate``)."""

    blend: Tensor
    """Log uncertainty is linear in these: 1, and the logs of raw value, disagreement and distance."""
    blend_first: Tensor
    """The same for the first network by itself."""
    mixture: Arrays
    """Of gated targets, once calibrated: ``scale``, the same for the scale of non-zero values, and ``gate``,
    slope and offset of its logit; ``scale_first`` and ``gate_first`` of the first network by itself."""
    latent_mean: Tensor
    latent_axes: Tensor
    distance_limit: Tensor
    spread_limit: Tensor
    """Of the disagreement."""

    def __init__(self, config: EnsembleConfig) -> None:
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(CrystalGNN(config.network) for _ in range(config.members))
        width, targets = config.network.width, len(config.network.targets)
        self.register_buffer("blend", torch.tensor([RAW] * targets))
        self.register_buffer("blend_first", self.blend.clone())
        self.register_buffer("latent_mean", torch.zeros(width))
        self.register_buffer("latent_axes", torch.eye(width)[:, :_AXES])
        self.known, self.mixture = Arrays(), Arrays()
        self.domain = Domain()
        self.phases = Phases()
        self.register_buffer("distance_limit", torch.tensor(torch.inf))
        self.register_buffer("spread_limit", torch.full((targets,), torch.inf))

    @classmethod
    def of(
        cls, members: list[CrystalGNN], family: str, potential: str = "", hull: bool = False
    ) -> "Ensemble":
        """Trained networks as an ensemble that is not yet calibrated."""
        read = members[0].surroundings
        config = EnsembleConfig(
            members[0].config, len(members), family, potential, hull, read.sha256 if read else ""
        )
        ensemble = cls(config)
        for own, given in zip(ensemble.members, members, strict=True):
            own.load_state_dict(given.state_dict())
        return ensemble.eval()

    def first(self) -> "Ensemble":
        """The first network by itself, with the uncertainties that were fitted to it."""
        alone = Ensemble(replace(self.config, members=1)).to(self.blend)
        others = tuple(f"members.{i}." for i in range(1, len(self.members)))
        own = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(others)}
        unlimited = torch.full_like(self.spread_limit, torch.inf)
        mixture = {
            f"mixture.{name.removesuffix('_first')}": tensor
            for name, tensor in self.mixture.named_buffers()
            if name.endswith("_first")
        }
        alone.load_state_dict({**own, **mixture, "blend": self.blend_first, "spread_limit": unlimited})
        return alone.eval()

    @cached_property
    def baseline(self) -> PotentialEnergy | None:
        """What the networks correct, if they correct anything; its weights are not saved again."""
        return PotentialEnergy() if self.config.potential else None

    def refuse_other_potential(self) -> None:
        """Raise CheckpointError if another potential is shipped than the one that the networks know."""
        read = self.networks()[0].surroundings
        for wanted, found in ((self.config.potential, self.baseline), (self.config.surroundings, read)):
            if found and found.sha256 != wanted:
                raise CheckpointError(
                    f"expected the potential {wanted[:12]}, which this model has learned with: the shipped "
                    f"one is {found.sha256[:12]}; train the model again"
                )

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.config.network.targets + ((HULL_TARGET,) if self.config.hull else ())

    def forward(self, graph: SiteGraph) -> EnsemblePrediction:
        """Predict one batch; differentiable in the graph's bonds and soft species."""
        found = self._learned(graph)
        if not self.config.hull:
            return found
        height = found.value - self.phases.hull(fractions(graph)).to(found.value)[:, None]
        value = torch.cat([found.value, height], 1)
        same = ("uncertainty", "disagreement")  # the hull is taken as it is
        twice = {name: getattr(found, name).repeat(1, 2) for name in same}
        return replace(
            found, value=value, distribution=Distribution.around(value, twice["uncertainty"]), **twice
        )

    def _learned(self, graph: SiteGraph) -> EnsemblePrediction:
        """What the networks tell, one column for each of theirs."""
        first = self.networks()[0]
        learned = [*first.edges.parameters(), *first.embed_edges.parameters()]
        bonds = None if learned else first.bonds(graph)
        around = first.around(graph)
        answers = [member(graph, bonds, around) for member in self.members]
        centre = torch.stack([m.centre for m in self.networks()])
        spread = torch.stack([m.spread for m in self.networks()])
        means = torch.stack([a.mean for a in answers])
        value = (means * spread[:, None] + centre[:, None]).mean(0)
        if self.baseline:
            value = value + self.baseline(graph).to(value)[:, None]
        deviation = means.std(0, correction=0)
        noise = torch.stack([2 * (2 * a.log_scale).exp() for a in answers]).mean(0)  # Laplace: variance 2 b²
        variance = (noise + deviation.square()) * spread.mean(0).square()
        distance = self._distance(answers[0].features)
        share = torch.stack([a.gate.sigmoid() for a in answers]).mean(0)
        told = self._mixture(value, share, warning_signs(variance, deviation, distance))
        value = told.median
        # second moment around the decision of: zero with 1 - share, else a value around size
        second = told.nonzero * (variance + (told.size - value).square())
        variance = second + (1 - told.nonzero) * value.square()
        signs = warning_signs(variance, deviation, distance)
        uncertainty = (signs * self.blend).sum(-1).exp()
        return EnsemblePrediction(
            value=value,
            uncertainty=uncertainty,
            disagreement=deviation,
            distribution=told.or_around(value, uncertainty),
            distance=distance,
        )

    def _mixture(self, size: Tensor, share: Tensor, signs: Tensor) -> Distribution:
        """Zero or not, and how far from ``size`` if not."""
        fitted = dict(self.mixture.named_buffers())
        network = self.config.network
        gated = torch.tensor([t in network.gated for t in network.targets], device=size.device)
        sure = torch.tensor([SURE] * len(gated), dtype=signs.dtype, device=signs.device)
        line = fitted.get("gate", sure)
        logit = share.clamp(1e-6, 1 - 1e-6).logit() * line[:, 0] + line[:, 1]
        scale = (signs * fitted.get("scale", self.blend)).sum(-1).exp()
        nonzero = torch.where(gated, logit.sigmoid(), 1.0)
        return Distribution(torch.where(gated, size.clamp_min(0), size), scale, nonzero, gated)

    @torch.no_grad()
    def predict(self, graphs: SiteGraph) -> EnsemblePrediction:
        """Predict a set of any size, batch by batch."""
        order = torch.arange(len(graphs))
        parts = [self(graphs.select(rows)) for rows in order.split(_BATCH)]
        names = ("value", "uncertainty", "disagreement", "distance")
        told = {name: torch.cat([getattr(p, name) for p in parts]) for name in names}
        return EnsemblePrediction(**told, distribution=Distribution.joined([p.distribution for p in parts]))

    def strangers(self, prediction: EnsemblePrediction, graph: SiteGraph) -> list[list[str]]:
        """For each target, why each crystal of a graph is out of the domain; empty where it is not.

        What `Domain` says of elements and bonds, where the checkpoint holds it, and what lies further out
        than 99% of the validation set, in latent space or in the members' disagreement.
        """
        empty = [[""] * len(graph) for _ in self.targets]
        reasons = self.domain.strangers(graph) if self.domain.known else empty
        reasons += [list(reasons[0])] * (len(self.targets) - len(reasons))
        far = (prediction.distance > self.distance_limit)[:, None].expand_as(prediction.value)
        split = prediction.disagreement > self.spread_limit.repeat(2 if self.config.hull else 1)
        for flags, words in ((far, "unlike training crystals in latent space"), (split, "networks disagree")):
            for crystal, column in flags.nonzero().tolist():
                told = reasons[column][crystal]
                reasons[column][crystal] = f"{told}; {words}" if told else words
        return reasons

    @torch.no_grad()
    def calibrate(self, train: SiteGraph, val: SiteGraph, labels: Float[Tensor, "crystals targets"]) -> None:
        """Fit uncertainties and limits on held-out crystals; keep the latent vectors of training ones.

        Members are too sure of themselves where they have learned their training set by heart. So the raw
        uncertainty, the members' disagreement and the latent distance are blended: the four numbers of least
        Laplace loss on ``labels`` (working units, of ``val``). Then all are scaled so that 90% intervals
        cover 90% of the same labels. Four numbers and a quantile are fitted to one set, so nothing is
        guaranteed of others, and of few labels the intervals are too narrow; coverage is measured on test.

        Raises:
            ValueError: a target without a label in ``val``.
        """
        for blend in (self.blend, self.blend_first):
            blend.copy_(torch.tensor(RAW))
        self.mixture = Arrays()
        rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:_KNOWN].sort().values
        latent = torch.cat([self.members[0](train.select(part)).features for part in rows.split(_BATCH)])
        mean = latent.double().mean(0)
        axes = torch.linalg.eigh(torch.cov((latent - mean).T))[1][:, -_AXES:]
        self.latent_mean.copy_(mean)
        self.latent_axes.copy_(axes)
        self.known.put({"latents": ((latent - self.latent_mean) @ self.latent_axes).half()})
        first = self.first()
        for ensemble in (first, self):
            ensemble._calibrate(val, labels)
        self.blend_first.copy_(first.blend)
        self.mixture.put({f"{k}_first": v for k, v in first.mixture.named_buffers()})
        prediction = self.predict(val)
        self.distance_limit.copy_(prediction.distance.quantile(0.99))
        if len(self.members) > 1:
            learned = prediction.disagreement[:, : len(self.spread_limit)]
            self.spread_limit.copy_(learned.quantile(0.99, dim=0))

    def _calibrate(self, val: SiteGraph, labels: Float[Tensor, "crystals targets"]) -> None:
        """Fit the blend, and before it the mixture whose median it is to hold."""
        if self.config.network.gated:
            self.mixture.put(self._fitted_mixture(self.predict(val), labels))
        prediction = self.predict(val)
        signs = warning_signs(prediction.uncertainty.square(), prediction.disagreement, prediction.distance)
        blends = []
        for column, target in enumerate(self.config.network.targets):
            known = labels[:, column].isfinite()
            if not bool(known.any()):
                raise ValueError(f"expected validation labels of {target!r}: got none")
            error = (prediction.value[:, column] - labels[:, column])[known].abs().double()
            blends.append(fit_intervals(signs[known, column].double(), error))
        self.blend.copy_(torch.stack(blends))

    def _fitted_mixture(
        self, prediction: EnsemblePrediction, labels: Float[Tensor, "crystals targets"]
    ) -> dict[str, Tensor]:
        """How sure gates are, and how far non-zero values lie from their size; as they are elsewhere."""
        told = prediction.distribution
        signs = warning_signs(told.scale.square(), prediction.disagreement, prediction.distance)
        scales, gates = torch.tensor([RAW] * len(self.blend)), torch.tensor([SURE] * len(self.blend))
        for column in told.gated.nonzero().flatten().tolist():
            truth = labels[:, column]
            there = truth.abs() > ZERO  # a missing label is not
            error = (told.size[:, column] - truth)[there].abs().double()
            scales[column] = fit_blend(signs[there, column].double(), error)
            known = truth.isfinite()
            gates[column] = fit_gate(told.nonzero[known, column].double().logit(), there[known])
        return {"scale": scales.to(self.blend), "gate": gates.to(self.blend)}

    def _distance(self, features: Float[Tensor, "crystals width"]) -> Float[Tensor, "crystals"]:
        """Mean distance to the nearest training crystals; zero while none are known."""
        if not self.known.state_dict():
            return features.new_zeros(len(features))
        known = self.known.get_buffer("latents").to(features)
        between = torch.cdist((features - self.latent_mean) @ self.latent_axes, known)
        return between.topk(min(_NEAREST, len(known)), largest=False).values.mean(-1)

    def networks(self) -> list[CrystalGNN]:
        """The members, by their type."""
        return [m for m in self.members if isinstance(m, CrystalGNN)]


def figures(
    ensemble: Ensemble, graphs: SiteGraph, labels: Float[Tensor, "crystals targets"]
) -> dict[str, dict[str, float]]:
    """How good an ensemble is on held-out crystals, per target.

    Args:
        ensemble: calibrated on other crystals than these.
        graphs: crystals.
        labels: working units, NaN where missing; a column for each target.

    Returns:
        For each target ``n``, ``mae``, ``r2``, ``coverage_90``, ``coverage_50``, ``spearman`` (of uncertainty
        and error), ``out_of_domain``; ``mae_log10`` where it is learned as log10 (the others are then in the
        target's unit), and ``gate_accuracy`` where it is gated.
    """
    prediction = ensemble.predict(graphs)
    flags = np.array([[bool(words) for words in rows] for rows in ensemble.strangers(prediction, graphs)])
    found = {}
    for column, target in enumerate(ensemble.targets):
        known = labels[:, column].isfinite()
        truth, value, sigma = (
            x[known, column].double().numpy() for x in (labels, prediction.value, prediction.uncertainty)
        )
        error = np.abs(truth - value)
        ratio = error / sigma
        row = {"n": float(len(truth))}
        if target in ensemble.config.network.log:
            row["mae_log10"] = float(error.mean())
            truth, value = 10**truth, 10**value
        row |= {
            "mae": float(np.abs(truth - value).mean()),
            "r2": float(1 - np.square(truth - value).sum() / np.square(truth - truth.mean()).sum()),
            "coverage_90": float((ratio <= Z90).mean()),
            "coverage_50": float((ratio <= 0.6744898).mean()),
            "spearman": float(np.asarray(spearmanr(sigma, error)[0])),
            "out_of_domain": float(flags[column, known.numpy()].mean()),
        }
        if target in ensemble.config.network.gated:
            nonzero = prediction.distribution.nonzero[known, column].numpy() > 0.5
            row["gate_accuracy"] = float((nonzero == (np.abs(truth) > ZERO)).mean())
        found[target] = row
    return found
