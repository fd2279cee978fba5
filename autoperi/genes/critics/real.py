"""Second thoughts on genes: how much likelier a drawn gene with species is in the data than among the draws.

A network that decides one thing after another is a little wrong in each decision, and whole crystals show
it: charges that nearly balance, an element too many; and it has learned some crystals by heart. A
classifier of whole crystals, trained to tell real ones from drawn ones, estimates the ratio of the two
densities; drawing until a candidate is accepted with a probability in proportion to it corrects the
distribution (residual energies: Deng et al., arXiv:2004.11714; rejection by a discriminator: Azadi et al.,
arXiv:1810.06758). It looks at no geometry and at no score, but at how near other training crystals come:
real ones seldom have a twin among them, and seldom no relative at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from autoperi.crystals.crystal import Crystal
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.kin import KIN_FEATURES, kin_features
from autoperi.genes.features import GeneDescription
from autoperi.networks.config import check
from autoperi.networks.layers import mlp

_TWIN = 1e-6
"""Distance below which a relative has the same elements on the same sites."""


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


class GeneCritic(GeneDescription):
    """Log-ratio of the density of real crystals to that of drawn ones, from gene, species and kin."""

    mean: Tensor
    spread: Tensor

    def __init__(self, config: CriticConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CriticConfig()
        inputs = self.n_described + KIN_FEATURES + 1
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        first, act, last = mlp(inputs, config.width, config.width)
        drop = nn.Dropout(config.dropout)
        self.layers = nn.Sequential(drop, first, act, drop, last, nn.SiLU(), drop, nn.Linear(config.width, 1))

    def forward(self, batch: GeneBatch, kin: Float[Tensor, "crystals kin"]) -> Float[Tensor, "crystals"]:
        """Log-ratio of each crystal, nats; every species must be known. Conditions and hints are not read.

        Args:
            batch: the crystals.
            kin: distances of the nearest relatives, nearest first, infinite where there are no more.
        """
        scaled = (self._inputs(batch, kin) - self.mean) / self.spread
        return self.layers(scaled.clamp(-6, 6)).squeeze(-1)

    @torch.no_grad()
    def acceptance(self, batch: GeneBatch, kin: Float[Tensor, "crystals kin"]) -> Float[Tensor, "crystals"]:
        """Probability with which a drawn crystal is kept: its ratio over the ceiling, at most 1."""
        ratio = self(batch.to(self.multiplicity.device), kin.to(self.mean)).exp()
        return (ratio / self.config.ceiling).clamp(max=1.0)

    @torch.no_grad()
    def standardise(self, batch: GeneBatch, kin: Float[Tensor, "crystals kin"]) -> None:
        """Take mean and spread of the inputs from a training set."""
        inputs = self._inputs(batch, kin)
        self.mean.copy_(inputs.mean(dim=0))
        self.spread.copy_(inputs.std(dim=0) + 1e-3)

    def _inputs(
        self, batch: GeneBatch, kin: Float[Tensor, "crystals kin"]
    ) -> Float[Tensor, "crystals inputs"]:
        twins = (kin < _TWIN).sum(dim=1, keepdim=True).to(kin)
        return torch.cat([self.described(batch).to(kin), kin_features(kin), twins], dim=1)


@dataclass(frozen=True)
class RealVsDrawn:
    """Real crystals and drawn ones, to be told apart."""

    genes: GeneBatch
    kin: Float[Tensor, "crystals kin"]
    real: Bool[Tensor, "crystals"]

    @classmethod
    def of(
        cls,
        real: Sequence[Crystal],
        drawn: Sequence[Crystal],
        kin: tuple[Float[Tensor, "real kin"], Float[Tensor, "drawn kin"]],
    ) -> "RealVsDrawn":
        """Both in one set, properties left out; raises ValueError unless they are as many.

        Args:
            real: crystals of the data.
            drawn: as many of the network.
            kin: distances of the nearest relatives of both; of a training crystal, of others than itself.
        """
        if len(real) != len(drawn):
            raise ValueError(f"expected as many drawn crystals as real ones, {len(real)}: got {len(drawn)}")
        crystals = [replace(c, properties={}) for c in (*real, *drawn)]
        return cls(GeneBatch.from_crystals(crystals), torch.cat(kin), torch.arange(len(crystals)) < len(real))

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.real)

    def select(self, index: Int[Tensor, "chosen"]) -> "RealVsDrawn":
        """Some of them."""
        return type(self)(self.genes.take(index), self.kin[index], self.real[index])

    def to(self, device: torch.device) -> "RealVsDrawn":
        """Move everything."""
        return type(self)(self.genes.to(device), self.kin.to(device), self.real.to(device))


def critic_loss(critic: GeneCritic, batch: RealVsDrawn) -> Float[Tensor, ""]:
    """Binary cross-entropy; where both kinds are as many, its minimum is the log-ratio of their densities."""
    logits = critic(batch.genes, batch.kin)
    return binary_cross_entropy_with_logits(logits, batch.real.to(logits))
