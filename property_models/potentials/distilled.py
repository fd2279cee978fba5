"""Our own potential: densities of spherical harmonics (e3nn) that imitate CHGNet at less cost."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.crystals.crystal import CrystalBatch
from autoperi.networks.checkpoint import half_precision, readable, restore, write_checkpoint
from autoperi.networks.config import check
from autoperi.networks.layers import mlp
from property_models.convolutions.density import OrbitDensity
from property_models.convolutions.interface import Shape
from property_models.graph.edge_basis import BesselBasis
from property_models.graph.site_graph import SiteGraph, site_graph
from property_models.potentials.potential import ELEMENTS, Bonds, Potential

SHIPPED = Path(__file__).with_name("distilled_chgnet")
"""Weights that imitate CHGNet 0.3.0 around MP-20 crystals."""
MARK = "channels"
"""Tells the configuration of such a checkpoint from others."""


@dataclass(frozen=True)
class DistilledConfig:
    """Size of the network.

    Attributes:
        width: scalar channels of a site.
        layers: rounds of messages.
        channels: densities with l = 1 and as many with l = 2.
        radial: Bessel functions of a bond's length; half of them serve directions.
        cutoff: Å.
    """

    width: int = 128
    layers: int = 3
    channels: int = 48
    radial: int = 12
    cutoff: float = 5.0

    def __post_init__(self) -> None:
        check(
            self,
            positive=("cutoff",),
            width=(1, 8192),
            layers=(1, 256),
            channels=(1, 8192),
            radial=(2, 1024),
        )


class DistilledPotential(Potential):
    """Energies of sites from `OrbitDensity`, l <= 2: local, conservative and smooth.

    An atom's energy is its element's reference and what its surroundings add to it, which varies smoothly as
    atoms cross the cutoff.
    """

    reference: Tensor
    scale: Tensor

    def __init__(self, config: DistilledConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DistilledConfig()
        self.about: dict[str, Any] = {}
        self.elements = nn.Linear(ELEMENTS, config.width, bias=False)
        nn.init.normal_(self.elements.weight)
        self.edges = BesselBasis(config.radial, config.cutoff)
        shape = Shape(config.width, self.edges.outputs, config.layers, config.cutoff)
        self.convolution = OrbitDensity(shape, channels=config.channels, local=True)
        self.head = mlp(config.width, config.width, 1)
        self.register_buffer("reference", torch.zeros(ELEMENTS))
        self.register_buffer("scale", torch.ones(()))

    def deepened(self, layers: int) -> "DistilledPotential":
        """The same potential in a network of more layers, those added being identities that can learn."""
        if layers < self.config.layers:
            raise ValueError(f"expected at least {self.config.layers} layers, as there are: got {layers}")
        deeper = DistilledPotential(replace(self.config, layers=layers))
        deeper.load_state_dict({**deeper.state_dict(), **self.state_dict()})
        for layer in deeper.convolution.layers[self.config.layers :]:
            last = layer.get_submodule("update.2")
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        return deeper

    def describe(self) -> dict[str, str]:
        """What these weights are, for people."""
        size = sum(p.numel() for p in self.parameters())
        return {"tells": "energy, forces, stress", "network": f"{size:,} parameters", **readable(self.about)}

    def bonds(self, batch: CrystalBatch) -> SiteGraph:
        """Neighbours within the cutoff."""
        return site_graph(batch, self.config.cutoff)

    def site_energies(self, weights: Tensor, bonds: Bonds, vector: Tensor) -> Float[Tensor, "sites"]:
        """Reference and surroundings, eV."""
        assert isinstance(bonds, SiteGraph)
        graph = replace(bonds, vector=vector, rotation=bonds.rotation.to(vector))
        return self.scale * self.head(self.sites(weights, graph)).squeeze(-1) + weights @ self.reference

    def sites(self, weights: Float[Tensor, "sites elements"], graph: SiteGraph) -> Tensor:
        """What energies are read from: one vector of ``width`` for the surroundings of each site."""
        pairs = self.convolution.bonds(self.edges(graph), graph)
        return self.convolution(self.elements(weights), pairs, graph)

    @torch.no_grad()
    def standardise(
        self,
        fractions: Float[Tensor, "crystals elements"],
        energy: Float[Tensor, "crystals"],
        forces: Float[Tensor, "sites 3"],
    ) -> None:
        """Take references (ridge regression on energies, eV/atom) and scale (rms force) of a training set."""
        x, y = fractions.double(), energy.double()
        gram = x.T @ x + 1e-3 * torch.eye(ELEMENTS, dtype=torch.float64)
        self.reference.copy_(torch.linalg.solve(gram, x.T @ y))
        self.scale.copy_(forces.square().mean().sqrt().clamp_min(1e-3))


def save(potential: DistilledPotential, folder: Path, about: dict[str, Any]) -> str:
    """Write a potential, its matrices in float16; returns the weights' sha256."""
    return write_checkpoint(folder, half_precision(potential), potential.config, about)


def load(folder: Path = SHIPPED) -> DistilledPotential:
    """A trained potential, by default the shipped one; raises CheckpointError for a damaged checkpoint."""
    potential, content = restore(folder, DistilledConfig, DistilledPotential)
    potential.about = {"sha256": content["sha256"], **content["about"]}
    return potential.eval()
