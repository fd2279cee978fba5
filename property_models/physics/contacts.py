"""Atoms too close: distances against covalent radii, all periodic images, an atom's own among them."""

import torch
from ase.data import covalent_radii
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.graph import OrbitGraph, orbit_graph
from autoperi.networks.layers import sum_by
from property_models.potentials.potential import ELEMENTS

CONTACT = 0.75
"""Distance over sum of radii at which the barrier begins; 1% of MP-20 train lies below, none below 0.65."""
_RADII = torch.tensor(covalent_radii[1 : ELEMENTS + 1], dtype=torch.float64)
"""Covalent radii in Å (Cordero et al. 2008, doi:10.1039/b801115j)."""
_REACH = 6.0


def barrier_loss(batch: CrystalBatch, species: Float[Tensor, "sites elements"]) -> Float[Tensor, "crystals"]:
    """Soft minimum-distance barrier: mean over atoms of ½ Σ_j max(0, 0.75 - d_ij / (r_i + r_j))².

    Dimensionless; zero for a crystal without close contacts, differentiable once everywhere. A soft species
    has the mean of its elements' radii. Two atoms in one and the same place are not seen.

    Args:
        batch: crystals; differentiable in (s, ℓ).
        species: weights of the elements 1-94 on each site.
    """
    graph = orbit_graph(batch, 2 * CONTACT * float(_RADII.max()))
    short = (CONTACT - _ratio(graph, species)).clamp_min(0).square() / 2
    of_site = sum_by(short, graph.site, batch.n_sites) * batch.multiplicity()
    return sum_by(of_site, batch.crystal, batch.n_crystals) / batch.n_atoms()


def contact_ratio(batch: CrystalBatch, species: Float[Tensor, "sites elements"]) -> Float[Tensor, "crystals"]:
    """Smallest distance over sum of covalent radii in each crystal; infinite where no atom is within 6 Å."""
    graph = orbit_graph(batch, _REACH)
    ratio = _ratio(graph, species)
    nothing = ratio.new_full((batch.n_crystals,), torch.inf)
    return nothing.scatter_reduce(0, batch.crystal[graph.site], ratio, "amin")


def _ratio(graph: OrbitGraph, species: Tensor) -> Float[Tensor, "edges"]:
    radius = species.to(graph.distance) @ _RADII.to(graph.distance)
    return graph.distance / (radius[graph.site] + radius[graph.atoms.site[graph.atom]])
