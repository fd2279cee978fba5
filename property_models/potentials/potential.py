"""What all potentials of this room share: energies of orbits, forces and stress by one backward pass.

A potential gives the energy of one atom of each symmetry-distinct site as a function of the bonds that end
there. Forces and stress are then slopes along those bonds, so both are gradients of the energy exactly.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.networks.layers import mean_by, sum_by

ELEMENTS = 94
"""Hydrogen to plutonium; column z - 1 of soft species belongs to atomic number z."""


@dataclass(frozen=True)
class EnergyForcesStress:
    """What a potential says of a batch.

    Attributes:
        energy: eV/atom.
        site_energies: of one atom of each site, eV.
        forces: on the sites, eV/Å, in the frame of ``batch.lattice()``; the other atoms of an orbit have
            them turned (``atom_forces``). They lie in the free directions of their sites.
        stress: (1/V) dE/dε for cell <- cell (1 + ε), eV/Å³ (divided by ``ase.units.GPa``: GPa), positive
            under tension; symmetric.
    """

    energy: Float[Tensor, "crystals"]
    site_energies: Float[Tensor, "sites"]
    forces: Float[Tensor, "sites 3"]
    stress: Float[Tensor, "crystals 3 3"]


@runtime_checkable
class Bonds(Protocol):
    """Bonds that end at the sites of a batch: ``vector`` (Å) from the receiving site to the sending atom."""

    @property
    def site(self) -> Int[Tensor, "edges"]:
        """Receiving site."""
        ...

    @property
    def sender(self) -> Int[Tensor, "edges"]:
        """Site of the sending atom."""
        ...

    @property
    def vector(self) -> Float[Tensor, "edges 3"]:
        """Å."""
        ...

    @property
    def turn(self) -> Float[Tensor, "edges 3 3"]:
        """Carries the Cartesian features of the sender's site onto the sending atom (acts on columns)."""
        ...


class Potential(nn.Module):
    """Energy, forces and stress of crystals, differentiable in (s, ℓ) and in soft species.

    Its precision is that of its weights; ``.double()`` serves finite differences.
    """

    @abstractmethod
    def bonds(self, batch: CrystalBatch) -> Bonds:
        """The bonds it looks at; raises ValueError for a cell so flat that its images are countless."""

    @abstractmethod
    def site_energies(
        self, weights: Float[Tensor, "sites elements"], bonds: Bonds, vector: Float[Tensor, "edges 3"]
    ) -> Float[Tensor, "sites"]:
        """Energy of one atom of each site, eV; ``vector`` stands in the place of the bonds' own."""

    def energy(
        self, batch: CrystalBatch, species: Float[Tensor, "sites elements"] | None = None
    ) -> Float[Tensor, "crystals"]:
        """Energy in eV/atom, differentiable in the batch's geometry and in ``species``.

        Args:
            batch: crystals; geometry is taken to the precision of the weights.
            species: weights of the elements 1-94 on each site; by default the batch's own species.

        Raises:
            ValueError: a species that is unknown or beyond plutonium, or weights of another shape.
        """
        weights = self._weights(batch, species)
        bonds = self.bonds(batch)
        return self._mean(batch, self.site_energies(weights, bonds, bonds.vector.to(weights)))

    def forward(
        self, batch: CrystalBatch, species: Float[Tensor, "sites elements"] | None = None
    ) -> EnergyForcesStress:
        """Energy, forces and stress by one backward pass; arguments and errors as for ``energy``.

        Where gradients are enabled, all three can be differentiated once more.
        """
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            weights = self._weights(batch, species)
            bonds = self.bonds(batch)
            vector = bonds.vector if bonds.vector.requires_grad else bonds.vector.detach().requires_grad_()
            sites = self.site_energies(weights, bonds, vector.to(weights))
            total = (sites * batch.multiplicity()).sum()
            (slope,) = torch.autograd.grad(total, vector, create_graph=again)
            forces, stress = _forces(batch, bonds, slope), _stress(batch, bonds, vector, slope)
            answer = self._mean(batch, sites), sites, forces, stress
        return EnergyForcesStress(*(answer if again else (tensor.detach() for tensor in answer)))

    def _weights(self, batch: CrystalBatch, species: Tensor | None) -> Float[Tensor, "sites elements"]:
        like = next(self.parameters())
        if species is None:
            species = element_weights(batch)
        if species.shape != (batch.n_sites, ELEMENTS):
            raise ValueError(
                f"expected weights of shape {(batch.n_sites, ELEMENTS)}: got {tuple(species.shape)}"
            )
        return species.to(like)

    @staticmethod
    def _mean(batch: CrystalBatch, sites: Tensor) -> Float[Tensor, "crystals"]:
        return sum_by(sites * batch.multiplicity(), batch.crystal, batch.n_crystals) / batch.n_atoms()


def element_weights(batch: CrystalBatch) -> Float[Tensor, "sites elements"]:
    """The batch's own species as weights: 1 for the element of the site, 0 for the others.

    Raises:
        ValueError: a species that is unknown (0) or beyond plutonium.
    """
    if bool(((batch.species < 1) | (batch.species > ELEMENTS)).any()):
        bad = sorted({z for z in batch.species.tolist() if not 1 <= z <= ELEMENTS})
        raise ValueError(f"expected atomic numbers from 1 to {ELEMENTS}: got {bad}")
    return one_hot(batch.species - 1, ELEMENTS).to(batch.free.dtype)


def atom_forces(batch: CrystalBatch, forces: Float[Tensor, "sites 3"]) -> Float[Tensor, "atoms 3"]:
    """Forces on all atoms from those on the sites, in the order of ``batch.atoms()``."""
    atoms, columns = batch.atoms(), batch.lattice().transpose(-1, -2)
    turn = columns[atoms.crystal] @ atoms.rotation @ torch.linalg.inv(columns)[atoms.crystal]
    return torch.einsum("aij,aj->ai", turn.to(forces), forces[atoms.site])


def _forces(batch: CrystalBatch, bonds: Bonds, slope: Tensor) -> Float[Tensor, "sites 3"]:
    """-dE/dx of one atom of each site, from dE/dvector of the sites' edges.

    An edge moves with both of its ends; the end at an atom is carried back onto the atom's site. The mean
    over a site's stabiliser is the projection onto its free directions.
    """
    turned = torch.einsum("eji,ej->ei", bonds.turn.to(slope), slope)
    at_sender = sum_by(turned, bonds.sender, batch.n_sites)
    gradient = (at_sender - sum_by(slope, bonds.site, batch.n_sites)) / batch.multiplicity()[:, None]
    return -torch.einsum("sij,sj->si", batch.cartesian_basis(), batch.tangent(gradient))


def _stress(batch: CrystalBatch, bonds: Bonds, vector: Tensor, slope: Tensor) -> Tensor:
    """(1/V) Σ vector ⊗ dE/dvector over the sites' edges, averaged over the point group, [crystals, 3, 3].

    Equal edges of a site do not share their slope equally, so only the symmetric part has a meaning.
    """
    table, lattice = wyckoff_table(str(batch.device)), batch.lattice()
    outer = sum_by(vector[:, :, None] * slope[:, None, :], batch.crystal[bonds.site], batch.n_crystals)
    # the general position, the last of its group, has one atom for every operation
    general = table.group_start[batch.space_group + 1] - 1
    count = table.multiplicity[general]
    crystal = torch.repeat_interleave(torch.arange(batch.n_crystals, device=batch.device), count)
    within = torch.arange(len(crystal), device=batch.device) - (count.cumsum(0) - count)[crystal]
    operation = table.orbit_rotation[table.orbit_start[general][crystal] + within].to(lattice)
    columns = lattice.transpose(-1, -2)
    turn = columns[crystal] @ operation @ torch.linalg.inv(columns)[crystal]
    virial = mean_by(turn @ outer[crystal] @ turn.transpose(-1, -2), crystal, batch.n_crystals)
    volume = torch.linalg.det(lattice).abs()[:, None, None]
    return (virial + virial.transpose(-1, -2)) / (2 * volume)
