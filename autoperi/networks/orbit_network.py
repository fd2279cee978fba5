"""Orbit-reduced equivariant message passing: only the symmetry-distinct sites are computed.

An equivariant network gives symmetry-related atoms symmetry-related features. So features are kept on the
K sites alone, and atom j = (W, w) applied to site k sends the features of k: scalars as they are, vectors
turned by the Cartesian form of W. The result equals the network on the whole cell, at K/N of the cost.
Blocks follow PaiNN (Schütt et al., arXiv:2102.03150, eqs. 7-9), whose filters are
linear in the radial basis: the sum over periodic images is taken once, before the layers.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.graph import OrbitGraph, orbit_graph
from autoperi.networks.config import check
from autoperi.networks.layers import RadialBasis, mean_by, mlp, sum_by
from autoperi.networks.trunk import TENSORS, OrbitFeatures, Trunk


@dataclass(frozen=True)
class OrbitNetworkConfig:
    """Size of the network.

    Attributes:
        width: scalar channels per site.
        vectors: vector channels per site.
        layers: rounds of message passing.
        cutoff: Å.
        radial: radial functions for scalars; a third of them serve directions.
    """

    width: int = 128
    vectors: int = 32
    layers: int = 5
    cutoff: float = 6.0
    radial: int = 24

    def __post_init__(self) -> None:
        check(
            self,
            positive=("cutoff",),
            width=(1, 8192),
            vectors=(1, 8192),
            layers=(1, 256),
            radial=(3, 1024),
        )

    def trunk(self, site_inputs: int, crystal_inputs: int) -> "OrbitNetwork":
        """The network of these sizes, see `TrunkConfig`."""
        return OrbitNetwork(self, site_inputs, crystal_inputs)


@dataclass(frozen=True)
class _Pairs:
    """Edges summed over periodic images: one entry per (site, atom)."""

    site: Int[Tensor, "pairs"]
    atom: Int[Tensor, "pairs"]
    sender: Int[Tensor, "pairs"]
    """Site of the sending atom."""
    radial: Float[Tensor, "pairs radial"]
    directions: Float[Tensor, "pairs 3 directions"]
    dyads: Float[Tensor, "pairs directions 6"]
    weight: Float[Tensor, "pairs 1"]
    """Goes to zero as the last image leaves the cutoff, so that the network stays continuous."""
    total_weight: Float[Tensor, "sites 1"]


class OrbitNetwork(Trunk):
    """Site and crystal inputs plus geometry -> invariant, vector and tensor features.

    With ``mixed`` the matrix products of training's message passing run in bfloat16; geometry and sums
    over neighbours stay in the precision of the batch.
    """

    mixed = False

    def __init__(self, config: OrbitNetworkConfig, site_inputs: int, crystal_inputs: int) -> None:
        super().__init__()
        self.config = config
        width, vectors = config.width, config.vectors
        self.n_directions = config.radial // 3
        self.radial = RadialBasis(config.radial, config.cutoff)
        self.embed_site = mlp(site_inputs, width, width)
        self.embed_crystal = mlp(crystal_inputs, width, width)
        self.messages = nn.ModuleList(
            _Message(width, vectors, config.radial, self.n_directions) for _ in range(config.layers)
        )
        self.updates = nn.ModuleList(_Update(width, vectors) for _ in range(config.layers))
        self.crystals = nn.ModuleList(_CrystalUpdate(width) for _ in range(config.layers))
        self.strain_site = nn.Linear(width, width)
        self.strain_sender = nn.Linear(width, width, bias=False)
        self.strain_radial = nn.Linear(config.radial, width, bias=False)
        self.strain_out = nn.Linear(width, TENSORS * self.n_directions, bias=False)

    def forward(
        self,
        batch: CrystalBatch,
        site_inputs: Float[Tensor, "sites site_inputs"],
        crystal_inputs: Float[Tensor, "crystals crystal_inputs"],
    ) -> OrbitFeatures:
        """Run on the geometry of ``batch``; species enter only through ``site_inputs``."""
        graph = orbit_graph(batch, self.config.cutoff)
        pairs = self._pairs(graph, batch.n_sites)
        weights = batch.multiplicity().to(site_inputs.dtype)
        crystal = self.embed_crystal(crystal_inputs)
        scalars = self.embed_site(site_inputs)
        vectors = scalars.new_zeros(len(scalars), 3, self.config.vectors)
        for message, update, gather in zip(self.messages, self.updates, self.crystals, strict=True):
            turned = graph.rotation @ vectors[graph.atoms.site]
            with torch.autocast(scalars.device.type, torch.bfloat16, enabled=self.mixed and self.training):
                scalars, vectors = message(scalars, vectors, turned, pairs)
                scalars, vectors = update(scalars, vectors, crystal[batch.crystal])
                crystal = gather(crystal, scalars, weights, batch.crystal)
        return OrbitFeatures(scalars, vectors, crystal, self._strain(scalars, pairs, graph, batch))

    def _pairs(self, graph: OrbitGraph, n_sites: int) -> _Pairs:
        edge, site, atom = graph.pairs()
        radial, envelope = self.radial(graph.distance)
        unit = graph.vector / graph.distance[:, None]
        few = radial[:, : self.n_directions]
        x, y, z = unit.unbind(-1)
        dyads = torch.stack([x * x, y * y, z * z, y * z, x * z, x * y], -1)
        n = len(site)
        weight = torch.tanh(4 * sum_by(envelope[:, None], edge, n))
        return _Pairs(
            site=site,
            atom=atom,
            sender=graph.atoms.site[atom],
            radial=sum_by(radial, edge, n),
            directions=sum_by(unit[:, :, None] * few[:, None, :], edge, n),
            dyads=sum_by(few[:, :, None] * dyads[:, None, :], edge, n),
            weight=weight,
            total_weight=sum_by(weight, site, n_sites),
        )

    def _strain(
        self, scalars: Tensor, pairs: _Pairs, graph: OrbitGraph, batch: CrystalBatch
    ) -> Float[Tensor, "crystals tensors 3 3"]:
        hidden = self.strain_site(scalars)[pairs.site] + self.strain_sender(scalars)[pairs.sender]
        hidden = nn.functional.silu(hidden + self.strain_radial(pairs.radial))
        coefficients = self.strain_out(hidden).unflatten(-1, (TENSORS, self.n_directions))
        six = sum_by(coefficients @ pairs.dyads, pairs.site, len(scalars))
        full = six[..., [0, 5, 4, 5, 1, 3, 4, 3, 2]].unflatten(-1, (3, 3))
        rotation = graph.rotation[:, None]
        turned = rotation @ full[graph.atoms.site] @ rotation.transpose(-1, -2)
        return mean_by(turned, graph.atoms.crystal, batch.n_crystals)


class _Message(nn.Module):
    """Site <- atom messages of scalars and rotated vectors (PaiNN eqs. 7-8, with a pairwise filter)."""

    def __init__(self, width: int, vectors: int, radial: int, directions: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.receive = nn.Linear(width, width)
        self.send = nn.Linear(width, width, bias=False)
        self.filter = nn.Linear(radial, width, bias=False)
        self.out = nn.Linear(width, width + 2 * vectors)
        self.direct = nn.Linear(directions, vectors, bias=False)
        self.sizes = (width, 2 * vectors)

    def forward(
        self, scalars: Tensor, vectors: Tensor, turned: Float[Tensor, "atoms 3 vectors"], pairs: _Pairs
    ) -> tuple[Tensor, Tensor]:
        inputs = self.norm(scalars)
        hidden = self.receive(inputs).index_select(0, pairs.site)
        hidden = hidden.add_(self.send(inputs).index_select(0, pairs.sender)).add_(self.filter(pairs.radial))
        hidden = nn.functional.silu(hidden) * pairs.weight
        # `out` is linear: for the scalars it is taken after the sum over atoms, on a tenth of the rows
        to_delta, to_gates = self.out.weight.split(self.sizes)
        delta_bias, gate_bias = self.out.bias.split(self.sizes)
        pooled = sum_by(hidden, pairs.site, len(scalars))
        delta = nn.functional.linear(pooled, to_delta) + pairs.total_weight * delta_bias
        gates = nn.functional.linear(hidden, to_gates) + pairs.weight * gate_bias
        copy_gate, direct_gate = gates.chunk(2, dim=-1)
        copied = turned.index_select(0, pairs.atom)
        arrows = torch.addcmul(
            self.direct(pairs.directions) * direct_gate[:, None], copied, copy_gate[:, None]
        )
        return scalars + 0.2 * delta, vectors + 0.2 * sum_by(arrows, pairs.site, len(scalars))


class _Update(nn.Module):
    """Scalars and vectors of one site mixed (PaiNN eq. 9), with the crystal's state."""

    def __init__(self, width: int, vectors: int) -> None:
        super().__init__()
        self.mix = nn.Linear(vectors, 2 * vectors, bias=False)
        self.norm = nn.LayerNorm(width)
        self.crystal = nn.Linear(width, width)
        self.hidden = nn.Linear(width + 2 * vectors, width)
        self.out = nn.Linear(width, width + vectors)
        self.sizes = (width, vectors)

    def forward(self, scalars: Tensor, vectors: Tensor, crystal: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.mix(vectors).chunk(2, dim=-1)
        # the norm is scaled down smoothly so that long vectors cannot blow up the scalars
        length = (left.square().sum(1) + 1e-6).sqrt()
        inner = (left * right).sum(1) / (1 + length)
        hidden = self.hidden(torch.cat([self.norm(scalars), length, inner], -1)) + self.crystal(crystal)
        delta, gate = self.out(nn.functional.silu(hidden)).split(self.sizes, dim=-1)
        vectors = vectors + right * gate[:, None]
        return scalars + delta, vectors / (1 + vectors.square().mean((1, 2), keepdim=True)).sqrt()


class _CrystalUpdate(nn.Module):
    """The crystal's own state gathers its sites, weighted by multiplicity: a virtual node."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.update = mlp(2 * width, width, width)

    def forward(self, crystal: Tensor, scalars: Tensor, weights: Tensor, index: Tensor) -> Tensor:
        total = sum_by(weights[:, None], index, len(crystal))
        mean = sum_by(self.norm(scalars) * weights[:, None], index, len(crystal)) / total
        return crystal + self.update(torch.cat([crystal, mean], -1))
