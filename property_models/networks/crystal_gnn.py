"""Property network of a crystal graph: elements and bonds, convolution, read-out, heads."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.networks.config import ConfigError, check
from autoperi.networks.layers import mlp
from property_models.convolutions import Shape, convolution, convolution_class
from property_models.graph.crystal_features import CrystalFeatures
from property_models.graph.edge_basis import (
    BesselBasis,
    GaussianBasis,
    PairGaussianBasis,
    PeriodicGaussianBasis,
    WeightedGaussianBasis,
)
from property_models.graph.node_features import BitFeatures, ExtendedFeatures, FiveFeatures, Learned, OneHot
from property_models.graph.readout import AttentionReadout, MeanReadout, Set2SetReadout, SumReadout
from property_models.graph.site_graph import SiteGraph
from property_models.networks.energies import CUTOFF, Surroundings

_NODES = {
    "one_hot": OneHot,
    "five": FiveFeatures,
    "extended": ExtendedFeatures,
    "bits": BitFeatures,
    "learned": Learned,
}
_EDGES = {
    "gaussian": GaussianBasis,
    "bessel": BesselBasis,
    "weighted_gaussian": WeightedGaussianBasis,
    "pair_gaussian": PairGaussianBasis,
    "periodic_gaussian": PeriodicGaussianBasis,
}
_READOUTS = {
    "mean": MeanReadout,
    "sum": SumReadout,
    "attention": AttentionReadout,
    "set2set": Set2SetReadout,
}


@dataclass(frozen=True)
class CrystalGNNConfig:
    """One choice of each part.

    Attributes:
        nodes: what is told of an element.
        edges: what is told of a bond.
        learn_edges: bonds have an embedding that is updated after every layer (convolutions that are stacks
            of single layers).
        convolution: a name in ``convolutions.CONVOLUTIONS``.
        readout: from sites to the crystal.
        crystal_features: also tell sites and heads of the lattice (six numbers), of the space group, and of
            the electrons that oxidation states leave.
        surroundings: also tell sites what the shipped potential makes of their surroundings
            (`Surroundings`).
        width: channels of a site.
        layers: rounds of messages.
        radial: functions of the bond length.
        cutoff: Å.
        nearest: neighbours kept of each site, ties included; none keeps all within the cutoff.
        targets: what is predicted; labels are NaN where missing.
        log: targets learned as log10.
        gated: targets that are zero for many crystals (see ``Target``).
        dropout: probability in the hidden layer of the site updates of ``orbit`` and ``painn``.
        kl: weight of a variational bottleneck before the heads (Alemi et al., arXiv:1612.00410); 0 has none.
    """

    nodes: Literal["one_hot", "five", "extended", "bits", "learned"] = "learned"
    edges: Literal["gaussian", "bessel", "weighted_gaussian", "pair_gaussian", "periodic_gaussian"] = "bessel"
    learn_edges: bool = False
    convolution: str = "orbit"
    readout: Literal["mean", "sum", "attention", "set2set"] = "mean"
    crystal_features: tuple[Literal["lattice", "symmetry", "electrons"], ...] = ()
    surroundings: bool = False
    width: int = 128
    layers: int = 4
    radial: int = 16
    cutoff: float = 6.0
    nearest: int | None = None
    targets: tuple[str, ...] = ("formation_energy",)
    log: tuple[str, ...] = ()
    gated: tuple[str, ...] = ()
    dropout: float = 0.1
    kl: float = 0.0

    def __post_init__(self) -> None:
        check(
            self,
            positive=("cutoff",),
            width=(2, 8192),
            layers=(1, 256),
            radial=(2, 1024),
            nearest=(1, 1024),
            dropout=(0, 1),
            kl=(0, math.inf),
        )
        kind = convolution_class(self.convolution)
        if self.learn_edges and not kind.is_layer:
            raise ValueError(
                f"expected learn_edges with a convolution that is a stack of single layers, such as 'cgcnn': "
                f"got {self.convolution!r}"
            )
        if kind.needs_smooth_bonds and self.edges != "bessel":
            raise ValueError(
                f"expected edges = 'bessel' for {self.convolution!r}, whose filters are linear in bond "
                f"functions that vanish at the cutoff: got {self.edges!r}"
            )
        if self.surroundings:
            self.refuse_less_than(CUTOFF, "the potential")
        unknown = set(self.log + self.gated) - set(self.targets)
        if unknown or not self.targets:
            raise ValueError(f"expected log and gated targets among {self.targets}: got {sorted(unknown)}")

    def refuse_less_than(self, cutoff: float, whose: str) -> None:
        """Raise ConfigError if graphs do not hold all neighbours within ``cutoff`` Å, those of ``whose``."""
        if self.nearest or self.cutoff < cutoff:
            raise ConfigError(
                "network.cutoff",
                f"expected all neighbours within the {cutoff} Å of {whose}: got the nearest {self.nearest} "
                f"within {self.cutoff} Å",
            )


@dataclass(frozen=True)
class Prediction:
    """What a network says of each crystal, in standard units of each target."""

    mean: Float[Tensor, "crystals targets"]
    log_scale: Float[Tensor, "crystals targets"]
    """Log of the scale b of a Laplace distribution around the mean."""
    gate: Float[Tensor, "crystals targets"]
    """Logit of a non-zero value; read for gated targets only."""
    features: Float[Tensor, "crystals width"]
    """The latent vector of the crystal, before the heads."""
    kl: Float[Tensor, "crystals"]
    """Of the bottleneck, in nats; zero without one."""


class CrystalGNN(nn.Module):
    """Elements and bonds -> convolution -> read-out -> one head for all targets.

    ``centre`` and ``spread`` hold the standardisation of each (working) label; set them with ``standardise``.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, config: CrystalGNNConfig) -> None:
        super().__init__()
        self.config = config
        width, targets = config.width, len(config.targets)
        self.nodes = _NODES[config.nodes]()
        self.edges = _EDGES[config.edges](config.radial, config.cutoff)
        self.embed = nn.Linear(self.nodes.outputs, width)
        edge_width = self.edges.outputs
        self.embed_edges = mlp(edge_width, width, edge_width) if config.learn_edges else nn.Identity()
        sizes = (width, edge_width, config.layers, config.cutoff, config.dropout, config.learn_edges)
        self.convolution = convolution(config.convolution, Shape(*sizes))
        self.norm = nn.LayerNorm(width)
        self.readout = _READOUTS[config.readout](width)
        self.crystals = CrystalFeatures(config.crystal_features)
        self.surroundings = Surroundings() if config.surroundings else None
        told = self.crystals.site_outputs + (Surroundings.outputs if config.surroundings else 0)
        self.tell = mlp(self.nodes.outputs + told, width, width) if told else None
        if self.tell is not None:  # a network that starts from one without them begins as that one
            for parameter in self.tell[-1].parameters():
                nn.init.zeros_(parameter)
        self.features = nn.Linear(self.readout.outputs + self.crystals.outputs, width)
        self.bottleneck = nn.Linear(width, 2 * width) if config.kl else None
        self.mean = mlp(width, width, targets)
        self.gate = mlp(width, width, targets) if config.gated else None
        self.scale = mlp(width, width // 2, targets)
        self.register_buffer("centre", torch.zeros(targets))
        self.register_buffer("spread", torch.ones(targets))

    def bonds(self, graph: SiteGraph) -> Any:
        """What the convolution reads of the bonds (``Convolution.bonds``)."""
        return self.convolution.bonds(self.embed_edges(self.edges(graph)), graph)

    def around(self, graph: SiteGraph) -> Tensor | None:
        """What the shipped potential tells of the sites, if it is asked."""
        return self.surroundings(graph) if self.surroundings else None

    def forward(self, graph: SiteGraph, bonds: Any = None, around: Tensor | None = None) -> Prediction:
        """Predict every crystal of a batch (``SiteGraph.select`` or ``site_graph``).

        Networks of one configuration may share what is ``around`` sites and, without learned numbers in
        them, ``bonds``.
        """
        elements, whole = self.nodes(graph.species), self.crystals(graph)
        sites = self.embed(elements)
        if self.tell is not None:
            around = self.around(graph) if around is None else around
            told = [elements, self.crystals.of_sites(whole, graph), *([] if around is None else [around])]
            sites = sites + self.tell(torch.cat(told, -1))
        bonds = self.bonds(graph) if bonds is None else bonds
        sites = self.norm(self.convolution(sites, bonds, graph))
        pooled = torch.cat([self.readout(sites, graph), whole], -1)
        features = nn.functional.silu(self.features(pooled))
        kl = features.new_zeros(len(graph))
        if self.bottleneck is not None:
            features, log_std = self.bottleneck(features).chunk(2, dim=-1)
            kl = 0.5 * (features.square() + (2 * log_std).exp() - 2 * log_std - 1).sum(-1)
            if self.training:
                features = features + torch.randn_like(features) * log_std.exp()
        mean = self.mean(features)
        return Prediction(
            mean=mean,
            # how sure it is may be read off the features but must not bend them
            log_scale=self.scale(features.detach()).clamp(-6.0, 3.0),
            gate=torch.zeros_like(mean) if self.gate is None else self.gate(features),
            features=features,
            kl=kl,
        )

    @torch.no_grad()
    def standardise(self, labels: Float[Tensor, "crystals targets"]) -> None:
        """Take centre and spread of the working labels of a training set (of the non-zero ones where gated).

        Raises:
            ValueError: a target without labels, or whose labels are all the same.
        """
        for column, target in enumerate(self.config.targets):
            values = labels[:, column]
            values = values[values.isfinite()]
            if target in self.config.gated:
                values = values[values.abs() > ZERO]
            if len(values) < 2 or not float(values.std()) > 0:
                raise ValueError(
                    f"expected labels of {target!r} that differ: got {len(values)} usable ones"
                    + (f", all {float(values[0]):g}" if len(values) else "")
                )
            self.centre[column] = values.median()
            self.spread[column] = (values - values.mean()).abs().mean()

    def start_from(self, other: "CrystalGNN", *, heads: bool = True) -> None:
        """Take over what another network has learned, but for its heads if they or the targets differ.

        Features of the crystal that it was not told begin without a say in the latent vector.

        Raises:
            RuntimeError: a network of other sizes (``PropertyRecipe.filled`` takes those of its start).
        """
        learned, (own, its) = other.state_dict(), (self.config, other.config)
        if not heads or (own.targets, own.log, own.gated) != (its.targets, its.log, its.gated):
            learned = {name: value for name, value in learned.items() if not name.startswith(_HEADS)}
        mixing, new = learned["features.weight"], self.features.in_features - other.features.in_features
        learned["features.weight"] = nn.functional.pad(mixing, (0, max(0, new)))
        self.load_state_dict({**self.state_dict(), **learned})


_HEADS = ("mean.", "gate.", "scale.", "centre", "spread")

ZERO = 1e-3
"""A gated label below this (eV for gaps) counts as zero."""
