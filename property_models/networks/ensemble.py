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
from property_models.networks.crystal_gnn import ZERO, CrystalGNN, CrystalGNNConfig
from property_models.networks.domain import Domain
from property_models.networks.energies import CUTOFF, Phases, PotentialEnergy, fractions

_Z90 = 1.6448536
"""Half-width of a central 90% interval in standard deviations of a normal distribution."""
_BATCH = 256
_AXES, _NEAREST, _KNOWN = 8, 3, 8_000
"""Of the latent distance: principal axes, nearest training crystals averaged, training crystals kept."""
_SURELY_ZERO = 0.3
"""Probability of a non-zero value up to which a gated target is zero; above it the value is the expected one.

On MP-20 val the R² of band gaps is 0.856, and 0.852 with one half instead (MAE 0.207 and 0.205 eV).
"""
_ENERGY = "formation_energy"
HULL_TARGET = "e_above_hull"
"""What formation energies tell as well, where a hull is known."""
_RAW = (0.0, 1.0, 0.0, 0.0)
"""The blend that takes the raw uncertainty as it is."""


@dataclass(frozen=True)
class EnsembleConfig:
    """What an ensemble is rebuilt from.

    Attributes:
        network: of every member.
        members: how many.
        family: its name.
        potential: sha256 of the shipped potential, if the networks learn what its formation energy lacks.
        hull: also tell energies above the hull (`HULL_TARGET`) of the phases in the checkpoint.
    """

    network: CrystalGNNConfig
    members: int
    family: str = ""
    potential: str = ""
    hull: bool = False

    def __post_init__(self) -> None:
        check(self, members=(1, 1024))
        if (self.potential or self.hull) and self.network.targets != (_ENERGY,):
            raise ConfigError(
                "network.targets", f"expected {_ENERGY} alone: got {', '.join(self.network.targets)}"
            )
        if self.potential and (self.network.nearest or self.network.cutoff < CUTOFF):
            raise ConfigError(
                "network.cutoff",
                f"expected all neighbours within the {CUTOFF} Å of the potential: got the nearest "
                f"{self.network.nearest} within {self.network.cutoff} Å",
            )


@dataclass(frozen=True)
class EnsemblePrediction:
    """Working units: log10 for targets learned so."""

    value: Float[Tensor, "crystals targets"]
    uncertainty: Float[Tensor, "crystals targets"]
    """Calibrated so that value ± 1.645 uncertainty holds 90% of held-out labels."""
    disagreement: Float[Tensor, "crystals targets"]
    """Standard deviation of the members' means in units of each label's spread."""
    nonzero: Float[Tensor, "crystals targets"]
    """Probability of a non-zero value; 1 for targets that are not gated."""
    distance: Float[Tensor, "crystals"]
    """Mean distance in the leading latent axes to the three nearest training crystals; no unit."""


class Ensemble(nn.Module):
    """Members, and what was learned of their errors after training (``calibrate``)."""

    blend: Tensor
    """Log uncertainty is linear in these: 1, and the logs of raw value, disagreement and distance."""
    blend_first: Tensor
    """The same for the first network by itself."""
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
        self.register_buffer("blend", torch.tensor([_RAW] * targets))
        self.register_buffer("blend_first", self.blend.clone())
        self.register_buffer("latent_mean", torch.zeros(width))
        self.register_buffer("latent_axes", torch.eye(width)[:, :_AXES])
        self.known = Arrays()
        self.domain = Domain()
        self.phases = Phases()
        self.register_buffer("distance_limit", torch.tensor(torch.inf))
        self.register_buffer("spread_limit", torch.full((targets,), torch.inf))

    @classmethod
    def of(
        cls, members: list[CrystalGNN], family: str, potential: str = "", hull: bool = False
    ) -> "Ensemble":
        """Trained networks as an ensemble that is not yet calibrated."""
        ensemble = cls(EnsembleConfig(members[0].config, len(members), family, potential, hull))
        for own, given in zip(ensemble.members, members, strict=True):
            own.load_state_dict(given.state_dict())
        return ensemble.eval()

    def first(self) -> "Ensemble":
        """The first network by itself, with the uncertainties that were fitted to it."""
        alone = Ensemble(replace(self.config, members=1)).to(self.blend)
        others = tuple(f"members.{i}." for i in range(1, len(self.members)))
        own = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(others)}
        unlimited = torch.full_like(self.spread_limit, torch.inf)
        alone.load_state_dict({**own, "blend": self.blend_first, "spread_limit": unlimited})
        return alone.eval()

    @cached_property
    def baseline(self) -> PotentialEnergy | None:
        """What the networks correct, if they correct anything; its weights are not saved again.

        Raises:
            CheckpointError: another potential is shipped than the one they have learned to correct.
        """
        wanted, found = self.config.potential, PotentialEnergy() if self.config.potential else None
        if found and found.sha256 != wanted:
            raise CheckpointError(
                f"expected the potential {wanted[:12]}, which this model corrects: the shipped one is "
                f"{found.sha256[:12]}; train the model again"
            )
        return found

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
        same = ("uncertainty", "disagreement", "nonzero")  # the hull is taken as it is
        twice = {name: getattr(found, name).repeat(1, 2) for name in same}
        return replace(found, value=torch.cat([found.value, height], 1), **twice)

    def _learned(self, graph: SiteGraph) -> EnsemblePrediction:
        """What the networks tell, one column for each of theirs."""
        first = self.networks()[0]
        learned = [*first.edges.parameters(), *first.embed_edges.parameters()]
        bonds = None if learned else first.bonds(graph)
        answers = [member(graph, bonds) for member in self.members]
        centre = torch.stack([m.centre for m in self.networks()])
        spread = torch.stack([m.spread for m in self.networks()])
        means = torch.stack([a.mean for a in answers])
        value = (means * spread[:, None] + centre[:, None]).mean(0)
        if self.baseline:
            value = value + self.baseline(graph).to(value)[:, None]
        deviation = means.std(0, correction=0)
        noise = torch.stack([2 * (2 * a.log_scale).exp() for a in answers]).mean(0)  # Laplace: variance 2 b²
        variance = (noise + deviation.square()) * spread.mean(0).square()
        nonzero = torch.ones_like(value)
        for column, target in enumerate(self.config.network.targets):
            if target in self.config.network.gated:
                share = torch.stack([a.gate[:, column].sigmoid() for a in answers]).mean(0)
                size = value[:, column].clamp_min(0)
                decided = torch.where(share > _SURELY_ZERO, share * size, 0.0)
                # second moment around the decision of: zero with 1 - share, else a value around size
                second = share * (variance[:, column] + (size - decided).square())
                second = second + (1 - share) * decided.square()
                where = torch.tensor([column], device=value.device)
                value = value.index_copy(1, where, decided[:, None])
                variance = variance.index_copy(1, where, second[:, None])
                nonzero = nonzero.index_copy(1, where, share[:, None])
        distance = self._distance(answers[0].features)
        signs = _warning_signs(variance, deviation, distance)
        return EnsemblePrediction(
            value=value,
            uncertainty=(signs * self.blend).sum(-1).exp(),
            disagreement=deviation,
            nonzero=nonzero,
            distance=distance,
        )

    @torch.no_grad()
    def predict(self, graphs: SiteGraph) -> EnsemblePrediction:
        """Predict a set of any size, batch by batch."""
        order = torch.arange(len(graphs))
        parts = [self(graphs.select(rows)) for rows in order.split(_BATCH)]
        names = ("value", "uncertainty", "disagreement", "nonzero", "distance")
        return EnsemblePrediction(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})

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
            blend.copy_(torch.tensor(_RAW))
        rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:_KNOWN].sort().values
        latent = torch.cat([self.members[0](train.select(part)).features for part in rows.split(_BATCH)])
        mean = latent.double().mean(0)
        axes = torch.linalg.eigh(torch.cov((latent - mean).T))[1][:, -_AXES:]
        self.latent_mean.copy_(mean)
        self.latent_axes.copy_(axes)
        self.known.put({"latents": ((latent - self.latent_mean) @ self.latent_axes).half()})
        first = self.first()
        self.blend_first.copy_(first._fitted(first.predict(val), labels))
        prediction = self.predict(val)
        self.blend.copy_(self._fitted(prediction, labels))
        self.distance_limit.copy_(prediction.distance.quantile(0.99))
        if len(self.members) > 1:
            learned = prediction.disagreement[:, : len(self.spread_limit)]
            self.spread_limit.copy_(learned.quantile(0.99, dim=0))

    def _fitted(
        self, prediction: EnsemblePrediction, labels: Float[Tensor, "crystals targets"]
    ) -> Float[Tensor, "targets 4"]:
        """A blend for each target, from what is predicted with the raw uncertainty."""
        signs = _warning_signs(prediction.uncertainty.square(), prediction.disagreement, prediction.distance)
        blends = []
        for column, target in enumerate(self.config.network.targets):
            known = labels[:, column].isfinite()
            if not bool(known.any()):
                raise ValueError(f"expected validation labels of {target!r}: got none")
            error = (prediction.value[:, column] - labels[:, column])[known].abs().double()
            blend = _fit_blend(signs[known, column].double(), error)
            ratio = error / (_Z90 * (signs[known, column].double() @ blend).exp())
            blend[0] += ratio.quantile(0.9).clamp_min(1e-6).log()
            blends.append(blend)
        return torch.stack(blends).to(self.blend)

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


def _warning_signs(variance: Tensor, spread: Tensor, distance: Tensor) -> Float[Tensor, "crystals targets 4"]:
    """What uncertainty is read from: 1 and the logs of raw uncertainty, spread and distance."""
    raw = 0.5 * (variance + 1e-12).log()
    far = (distance + 1e-3).log()[:, None].expand_as(raw)
    return torch.stack([torch.ones_like(raw), raw, (spread + 1e-3).log(), far], -1)


@torch.enable_grad()
def _fit_blend(signs: Float[Tensor, "labels 4"], error: Float[Tensor, "labels"]) -> Float[Tensor, "4"]:
    """Least Laplace loss, convex in the four numbers; a little ridge where a sign never changes.

    Errors of exactly zero (metals told from insulators) would have no finite scale: they are floored.
    """
    error = error + 0.05 * error.mean()
    start = torch.tensor(_RAW, dtype=signs.dtype)
    blend = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([blend], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        log_scale = signs @ blend
        ridge = 1e-3 * (blend - start)[1:].square().sum()
        loss = (error * torch.exp(-log_scale) + log_scale).mean() + ridge
        loss.backward()
        return loss

    optimizer.step(closure)
    return blend.detach()


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
            "coverage_90": float((ratio <= _Z90).mean()),
            "coverage_50": float((ratio <= 0.6744898).mean()),
            "spearman": float(np.asarray(spearmanr(sigma, error)[0])),
            "out_of_domain": float(flags[column, known.numpy()].mean()),
        }
        if target in ensemble.config.network.gated:
            nonzero = prediction.nonzero[known, column].numpy() > 0.5
            row["gate_accuracy"] = float((nonzero == (np.abs(truth) > ZERO)).mean())
        found[target] = row
    return found
