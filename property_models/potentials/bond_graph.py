"""CHGNet's two graphs of a crystal, seen from its symmetry-distinct sites.

Atoms of one orbit have equal features in an invariant network, and so have bonds and angles that an
operation of the group carries onto each other. So it is enough to follow the edges that end at the K sites,
their angles, and for every short edge *its reverse*: the edge of the other atom's site that an operation
carries onto the same bond. With gene P1 this is the full graph. Cut-offs are CHGNet's (arXiv:2302.14231).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.graph import OrbitGraph, orbit_graph

EDGE_CUTOFF = 6.0
ANGLE_CUTOFF = 3.0
_SAME = 0.05
"""Å between an edge turned round and the edge that it is taken for."""


@dataclass(frozen=True)
class BondGraph:
    """Edges site i <- atom j of a batch, and the angles between the short ones."""

    orbits: OrbitGraph
    sender: Int[Tensor, "edges"]
    """Site of the sending atom."""
    short: Int[Tensor, "short"]
    """Edges within 3 Å; those below index into this list."""
    reverse: Int[Tensor, "short"]
    """The same bond from its other end; ``len(short)`` where the other end is cut off."""
    first: Int[Tensor, "angles"]
    second: Int[Tensor, "angles"]
    """Legs of each angle: two short edges of one site."""

    @property
    def site(self) -> Int[Tensor, "edges"]:
        """Receiving site."""
        return self.orbits.site

    @property
    def vector(self) -> Float[Tensor, "edges 3"]:
        """Å, from the site to the atom."""
        return self.orbits.vector

    @property
    def turn(self) -> Float[Tensor, "edges 3 3"]:
        """Carries the features of the sender's site onto the sending atom."""
        return self.orbits.rotation[self.orbits.atom]


def bond_graph(batch: CrystalBatch) -> BondGraph:
    """Edges within 6 Å and angles of edges within 3 Å; vectors are differentiable in (s, ℓ).

    Raises:
        ValueError: a cell so flat that its images are countless.
    """
    orbits = orbit_graph(batch, EDGE_CUTOFF)
    sender = orbits.atoms.site[orbits.atom]
    with torch.no_grad():
        short = (orbits.distance < ANGLE_CUTOFF).nonzero().squeeze(-1)
        short = short[orbits.site[short].argsort(stable=True)]
        site = orbits.site[short]
        count = torch.bincount(site, minlength=batch.n_sites)
        first, second = _pairs(site, count)
        distinct = first != second
        reverse = _reverse(orbits, short, sender[short], count)
    return BondGraph(orbits, sender, short, reverse, first[distinct], second[distinct])


def _pairs(group: Int[Tensor, "rows"], count: Int[Tensor, "groups"]) -> tuple[Tensor, Tensor]:
    """Every row with every member of its group; members of a group are consecutive, in order of groups."""
    start = count.cumsum(0) - count
    repeats = count[group]
    row = torch.repeat_interleave(torch.arange(len(group), device=group.device), repeats)
    within = torch.arange(len(row), device=group.device) - (repeats.cumsum(0) - repeats)[row]
    return row, start[group][row] + within


def _reverse(
    orbits: OrbitGraph, short: Int[Tensor, "short"], sender: Int[Tensor, "short"], count: Int[Tensor, "sites"]
) -> Int[Tensor, "short"]:
    """Position in ``short`` of each edge walked backwards, once its atom is carried onto that atom's site."""
    vector = orbits.vector[short]
    turned = -torch.einsum("eji,ej->ei", orbits.rotation[orbits.atom[short]], vector)
    edge, candidate = _pairs(sender, count)
    apart = (turned[edge] - vector[candidate]).norm(dim=-1)
    nearest = apart.new_full((len(short),), torch.inf).scatter_reduce(0, edge, apart, "amin")
    reverse = torch.full_like(short, len(short))
    found = (apart == nearest[edge]) & (apart < _SAME)
    reverse[edge[found]] = candidate[found]
    return reverse
