"""Second thoughts on genes: how much likelier a drawn gene with species is in the data than among the draws.

A network that decides one thing after another is a little wrong in each decision, and whole crystals show it:
charges that nearly balance, an element too many. A classifier of whole crystals, trained to tell real ones
from drawn ones, estimates the ratio of the two densities; drawing until a candidate is accepted with a
probability in proportion to it corrects the distribution (residual energies: Deng et al., arXiv:2004.11714;
rejection by a discriminator: Azadi et al., arXiv:1810.06758). It looks at no geometry and at no score.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from autoperi.crystals.crystal import MAX_Z, Crystal
from autoperi.genes.batch import GeneBatch
from autoperi.genes.features import CHARGES, GeneTables, charge_states
from autoperi.networks.config import check
from autoperi.networks.layers import mlp

_RATIOS = 8
_TOLERANCES = (0.03, 0.1, 0.3)
"""Charges per atom that are nearly balanced."""
_RARE = 1e-4


@dataclass(frozen=True)
class CriticConfig:
    """Size of the classifier, and how far it may go.

    Attributes:
        width: of the hidden layers.
        dropout: in training.
        ceiling: the largest ratio of densities that counts; a crystal is drawn about so often.
    """

    width: int = 128
    dropout: float = 0.2
    ceiling: float = 1.5

    def __post_init__(self) -> None:
        check(self, positive=("ceiling",), width=(1, 8192), dropout=(0, 1))


class GeneCritic(GeneTables):
    """Log-ratio of the density of real crystals to that of drawn ones, from gene and species."""

    states: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, config: CriticConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CriticConfig()
        self.register_buffer("states", torch.from_numpy(charge_states()))
        inputs = 4 * self.element_features.shape[1] + 2 * self.position_features.shape[1]
        inputs += 3 * self.counts.shape[1] + _RATIOS + 2 + len(self.states) * (1 + len(_TOLERANCES))
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        first, act, last = mlp(inputs, config.width, config.width)
        drop = nn.Dropout(config.dropout)
        self.layers = nn.Sequential(drop, first, act, drop, last, nn.SiLU(), drop, nn.Linear(config.width, 1))

    def forward(self, batch: GeneBatch) -> Float[Tensor, "crystals"]:
        """Log-ratio of each crystal, nats; every species must be known. Conditions and hints are not read."""
        scaled = (self._inputs(batch) - self.mean) / self.spread
        return self.layers(scaled.clamp(-6, 6)).squeeze(-1)

    @torch.no_grad()
    def acceptance(self, batch: GeneBatch) -> Float[Tensor, "crystals"]:
        """Probability with which a drawn crystal is kept: its ratio over the ceiling, at most 1."""
        return (self(batch.to(self.multiplicity.device)).exp() / self.config.ceiling).clamp(max=1.0)

    @torch.no_grad()
    def standardise(self, batch: GeneBatch) -> None:
        """Take mean and spread of the inputs from a training set."""
        inputs = self._inputs(batch)
        self.mean.copy_(inputs.mean(dim=0))
        self.spread.copy_(inputs.std(dim=0) + 1e-3)

    def _inputs(self, batch: GeneBatch) -> Float[Tensor, "crystals inputs"]:
        """Composition, charges, symmetry and sizes, as numbers that depend on no order and no origin."""
        is_site = batch.wyckoff >= 0
        wyckoff = batch.wyckoff.clamp(min=0)
        atoms = self.multiplicity[wyckoff] * is_site
        total, sites = atoms.sum(dim=1), is_site.sum(dim=1)
        share = (atoms / total[:, None])[..., None]
        amounts = (one_hot(batch.species, MAX_Z + 1) * atoms[..., None]).sum(dim=1)
        fractions = (amounts / total[:, None]).sort(dim=1, descending=True).values[:, :_RATIOS]
        elements = self.element_features[batch.species]
        mean = (share * elements).sum(dim=1)
        spread = (share * (elements - mean[:, None]).square()).sum(dim=1).sqrt()
        absent = ~is_site[..., None]
        extremes = (
            elements.masked_fill(absent, torch.inf).amin(dim=1),
            elements.masked_fill(absent, -torch.inf).amax(dim=1),
        )
        general = self.position_features[self.group_start[batch.space_group + 1] - 1]
        places = (self.position_features[wyckoff] * is_site[..., None]).sum(dim=1) / sites[:, None]
        free = (self.dim[wyckoff] * is_site).sum(dim=1)
        sizes = [self.count(n) for n in (total, sites, (amounts > 0).sum(dim=1))]
        numbers = [fractions, fractions.square().sum(dim=1, keepdim=True), free[:, None].log1p(), *sizes]
        return torch.cat([mean, spread, *extremes, general, places, *numbers, self._balance(amounts)], dim=1)

    def _balance(self, amounts: Int[Tensor, "crystals 101"]) -> Float[Tensor, "crystals balances"]:
        """Log of the share of all assignments of one known charge to each element that balance."""
        atoms = amounts.sum(dim=1, keepdim=True)
        shares = []
        for states in self.states:
            chance = _total_charge(amounts, states)
            charge = torch.arange(chance.shape[1], device=chance.device) + CHARGES.start * atoms
            shares.append((chance * (charge == 0)).sum(dim=1))
            for tolerance in _TOLERANCES:
                near = torch.exp(-0.5 * (charge / (tolerance * atoms)).square())
                shares.append((chance * near).sum(dim=1))
        return (torch.stack(shares, dim=1).clamp(min=0) + _RARE).log()


def _total_charge(
    amounts: Int[Tensor, "crystals 101"], states: Float[Tensor, "101 charges"]
) -> Float[Tensor, "crystals total"]:
    """Distribution of a crystal's charge when each element takes one of its charges at random.

    A sum of independent integers: the product of their characteristic functions, so nothing is enumerated.
    Index 0 stands for all elements at the lowest charge.
    """
    n, element = amounts.topk(int((amounts > 0).sum(dim=1).max()), dim=1)
    size = 1 << int(amounts.sum(dim=1).max() * (len(CHARGES) - 1)).bit_length()
    turns = (n[..., None] * torch.arange(size, device=n.device)) % size / size
    step = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
    function = torch.zeros_like(step)
    for chance in states[element].flip(-1).unbind(dim=-1):
        function = function * step + chance[..., None]
    return torch.fft.fft(function.prod(dim=1)).real / size


@dataclass(frozen=True)
class RealVsDrawn:
    """Real crystals and drawn ones, to be told apart."""

    genes: GeneBatch
    real: Bool[Tensor, "crystals"]

    @classmethod
    def of(cls, real: Sequence[Crystal], drawn: Sequence[Crystal]) -> "RealVsDrawn":
        """Both in one set, properties left out; raises ValueError unless they are as many."""
        if len(real) != len(drawn):
            raise ValueError(f"expected as many drawn crystals as real ones, {len(real)}: got {len(drawn)}")
        crystals = [replace(c, properties={}) for c in (*real, *drawn)]
        return cls(GeneBatch.from_crystals(crystals), torch.arange(len(crystals)) < len(real))

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.real)

    def select(self, index: Int[Tensor, "chosen"]) -> "RealVsDrawn":
        """Some of them."""
        return type(self)(self.genes.take(index), self.real[index])

    def to(self, device: torch.device) -> "RealVsDrawn":
        """Move everything."""
        return type(self)(self.genes.to(device), self.real.to(device))


def critic_loss(critic: GeneCritic, batch: RealVsDrawn) -> Float[Tensor, ""]:
    """Binary cross-entropy; where both kinds are as many, its minimum is the log-ratio of their densities."""
    logits = critic(batch.genes)
    return binary_cross_entropy_with_logits(logits, batch.real.to(logits))
