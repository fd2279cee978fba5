"""Orbit-pair message passing on ACE-like densities, l <= 2, summed once before the layers.

The filters are linear in bond functions that vanish at the cutoff, so the sum over all images of all atoms
of a sending orbit is taken before the layers: a crystal of K sites costs at most K² messages, whatever its
cutoff and its number of atoms, and the result is the sum over every single bond. The densities and their
rotation invariants are those of the atomic cluster expansion (Drautz, Phys. Rev. B 99, 014104), with
coefficients that depend on both ends and are renewed in every layer, as in MACE (arXiv:2206.07697).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autoperi.networks.layers import edge_harmonics, mlp, sum_by
from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph

_NEIGHBOURS = 7.0
"""Square root of a typical number of bonds: keeps densities of the order of one."""


class OrbitDensity(Convolution):
    """Layers of pair messages, angular invariants with l <= 2, and a state of the crystal.

    Bonds must be functions of the distance alone that vanish at the cutoff (Bessel). Sites exchange scalars;
    directions enter through densities made anew from each layer's scalars, so no rotation is needed. A
    ``local`` one goes without the state of the crystal: then a site knows only what is near it.
    """

    needs_smooth_bonds = True
    is_smooth = True

    def __init__(self, shape: Shape, *, channels: int = 32, local: bool = False) -> None:
        super().__init__()
        width, edge_width, layers = shape.width, shape.edge_width, shape.layers
        self.angular = edge_width // 2
        self.state = None if local else nn.Linear(width, width)
        self.layers = nn.ModuleList(
            _Layer(width, edge_width, self.angular, channels, shape.dropout, local) for _ in range(layers)
        )
        self.states = nn.ModuleList(mlp(2 * width, width, width) for _ in range(0 if local else layers - 1))

    def forward(
        self, sites: Float[Tensor, "sites width"], pairs: "Pairs", graph: SiteGraph
    ) -> Float[Tensor, "sites width"]:
        """All layers."""
        if self.state is None:
            for layer in self.layers:
                sites = layer(sites, None, pairs)
            return sites
        state = self.state(sum_by(sites * graph.share[:, None], graph.crystal, len(graph)))
        for i, layer in enumerate(self.layers):
            sites = layer(sites, state[graph.crystal], pairs)
            if i < len(self.states):
                mean = sum_by(sites * graph.share[:, None], graph.crystal, len(graph))
                state = state + self.states[i](torch.cat([state, mean], -1))
        return sites

    def bonds(self, edges: Float[Tensor, "edges edge_width"], graph: SiteGraph) -> "Pairs":
        """What the layers read of the bonds; holds no learned number, so networks may share it."""
        n = graph.n_sites
        key, pair = torch.unique(graph.site * n + graph.sender, return_inverse=True)
        harmonics = edge_harmonics(graph.vector)[:, 1:]
        angular = harmonics[:, :, None] * edges[:, None, : self.angular]
        angular = sum_by(angular, pair, len(key)) / _NEIGHBOURS
        return Pairs(
            site=key // n,
            sender=key % n,
            radial=sum_by(edges, pair, len(key)) / _NEIGHBOURS,
            vector=angular[:, :3].contiguous(),
            tensor=angular[:, 3:].contiguous(),
        )


@dataclass(frozen=True)
class Pairs:
    """Bonds summed over all that join two sites, in any image of any atom of their orbits."""

    site: Int[Tensor, "pairs"]
    sender: Int[Tensor, "pairs"]
    radial: Float[Tensor, "pairs radial"]
    vector: Float[Tensor, "pairs 3 angular"]
    tensor: Float[Tensor, "pairs 5 angular"]


class _Layer(nn.Module):
    def __init__(
        self, width: int, radial: int, angular: int, channels: int, dropout: float, local: bool
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.receive = nn.Linear(width, width)
        self.send = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width + 2 * channels)
        self.radial = nn.Linear(radial, width, bias=False)
        self.vector = nn.Linear(angular, channels, bias=False)
        self.tensor = nn.Linear(angular, channels, bias=False)
        self.mix_vector = nn.Linear(channels, 2 * channels, bias=False)
        self.mix_tensor = nn.Linear(channels, 2 * channels, bias=False)
        self.update = mlp(2 * width + 4 * channels, width, width)
        self.crystal = None if local else nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.sizes = (width, channels, channels)

    def forward(self, sites: Tensor, state: Float[Tensor, "sites width"] | None, pairs: Pairs) -> Tensor:
        inputs = self.norm(sites)
        hidden = self.receive(inputs).index_select(0, pairs.site)
        hidden = nn.functional.silu(hidden.add_(self.send(inputs).index_select(0, pairs.sender)))
        scalar, vector, tensor = self.out(hidden).split(self.sizes, dim=-1)
        n = len(sites)
        found = [inputs, sum_by(scalar * self.radial(pairs.radial), pairs.site, n)]
        vectors = sum_by(vector[:, None] * self.vector(pairs.vector), pairs.site, n)
        tensors = sum_by(tensor[:, None] * self.tensor(pairs.tensor), pairs.site, n)
        found += [*_invariants(vectors, self.mix_vector), *_invariants(tensors, self.mix_tensor)]
        first, act, last = self.update
        hidden = first(torch.cat(found, -1))
        if self.crystal is not None:
            hidden = hidden + self.crystal(state)
        return sites + last(self.dropout(act(hidden)))


def _invariants(values: Float[Tensor, "sites m channels"], mix: nn.Module) -> tuple[Tensor, Tensor]:
    """Lengths and inner products of mixed channels, the latter scaled down so that they grow no faster."""
    left, right = mix(values).chunk(2, dim=-1)
    length = (left.square().sum(1) + 1e-6).sqrt()
    return length, (left * right).sum(1) / (1 + length)
