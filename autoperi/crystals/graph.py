"""Neighbours: which periodic images of which atoms each site sees. The only file that knows vesin.

Edge convention: ``vector = x_j + shift @ lattice - x_i`` points from the receiving site i to atom j.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from vesin_torch import NeighborList

from autoperi.crystals.crystal import CrystalBatch, OrbitMap

_LARGE_CELL = 128
"""Atoms from which vesin's cell list beats trying all pairs of a crystal."""


@dataclass(frozen=True)
class OrbitGraph:
    """Edges site i <- atom j within a cutoff, all periodic images, for a ragged batch.

    Only the symmetry-distinct sites receive: their replicas' messages are the same ones, rotated.
    """

    atoms: OrbitMap
    site: Int[Tensor, "edges"]
    """Receiving site."""
    atom: Int[Tensor, "edges"]
    """Sending atom."""
    vector: Float[Tensor, "edges 3"]
    """Å, differentiable in free and lattice coordinates."""
    distance: Float[Tensor, "edges"]
    rotation: Float[Tensor, "atoms 3 3"]
    """Cartesian rotation that carries the features of an atom's site onto the atom (acts on columns)."""
    lattice: Float[Tensor, "crystals 3 3"]

    def pairs(self) -> tuple[Int[Tensor, "edges"], Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
        """Edges grouped by (site, atom): pair of each edge, site of each pair, atom of each pair."""
        n_atoms = len(self.atoms.site)
        key, pair = torch.unique(self.site * n_atoms + self.atom, return_inverse=True)
        return pair, key // n_atoms, key % n_atoms


def orbit_graph(batch: CrystalBatch, cutoff: float) -> OrbitGraph:
    """Neighbours within ``cutoff`` Å of every site of every crystal.

    Raises:
        ValueError: the cutoff is not positive, or a cell is so flat that the images are countless.
    """
    if not cutoff > 0:
        raise ValueError(f"expected a positive cutoff in Å: got {cutoff}")
    atoms = batch.atoms()
    lattice = batch.lattice()
    frac = atoms.positions(batch.site_positions())
    with torch.no_grad():
        large = (batch.n_atoms() > _LARGE_CELL).tolist()
        found = [_all_pairs(batch, atoms, frac, lattice, cutoff)] if not all(large) else []
        found += [_cell_list(batch, atoms, frac, lattice, cutoff, c) for c, big in enumerate(large) if big]
        site, atom, shift = (torch.cat(parts) for parts in zip(*found, strict=True))
    offset = frac[atom] + shift - frac[atoms.first[site]]
    vector = torch.einsum("ei,eij->ej", offset, lattice[batch.crystal[site]])
    return OrbitGraph(
        atoms=atoms,
        site=site,
        atom=atom,
        vector=vector,
        distance=vector.norm(dim=-1),
        rotation=_cartesian_rotations(atoms, lattice),
        lattice=lattice,
    )


def _cartesian_rotations(
    atoms: OrbitMap, lattice: Float[Tensor, "crystals 3 3"]
) -> Float[Tensor, "atoms 3 3"]:
    columns = lattice.transpose(-1, -2)
    return columns[atoms.crystal] @ atoms.rotation @ torch.linalg.inv(columns)[atoms.crystal]


def _all_pairs(
    batch: CrystalBatch,
    atoms: OrbitMap,
    frac: Float[Tensor, "atoms 3"],
    lattice: Float[Tensor, "crystals 3 3"],
    cutoff: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Every (site, atom, image) of the small crystals tried at once; exact for any cell shape."""
    device = frac.device
    n_atoms = batch.n_atoms()
    small = n_atoms <= _LARGE_CELL
    first_atom = n_atoms.cumsum(0) - n_atoms
    partners = torch.where(small, n_atoms, 0)[batch.crystal]
    site = torch.repeat_interleave(torch.arange(batch.n_sites, device=device), partners)
    start = partners.cumsum(0) - partners
    crystal = batch.crystal[site]
    atom = first_atom[crystal] + torch.arange(len(site), device=device) - start[site]
    offset = frac[atom] - frac[atoms.first[site]]
    base = -offset.round()
    # images that can reach into the cutoff: |shift| <= cutoff / height + 1/2 along each axis
    heights = 1 / torch.linalg.inv(lattice).norm(dim=1)
    reach = (cutoff / heights + 0.5).floor().long()
    images = (2 * reach + 1).prod(-1)
    images = torch.where(small, images, 0)
    if int(images.max()) > 100_000:
        worst = int(images.argmax())
        raise ValueError(
            f"crystal {worst} of the batch has a cell with heights {heights[worst].tolist()} Å: "
            f"{int(images[worst])} images within {cutoff} Å; expected a cell that is not flat"
        )
    shift, start = _image_list(reach, images)
    repeats = images[crystal]
    pair = torch.repeat_interleave(torch.arange(len(site), device=device), repeats)
    within = torch.arange(len(pair), device=device) - (repeats.cumsum(0) - repeats)[pair]
    moved = (offset + base).to(frac.dtype)
    # cart = moved @ L + shift @ L, each product taken once per pair and once per image
    image = start[crystal][pair] + within
    image_crystal = torch.repeat_interleave(torch.arange(len(images), device=device), images)
    shift_cart = torch.einsum("ei,eij->ej", shift.to(frac.dtype), lattice[image_crystal])
    pair_cart = torch.einsum("ei,eij->ej", moved, lattice[crystal])
    squared = (pair_cart[pair] + shift_cart[image]).square().sum(-1)
    keep = ((squared < cutoff**2) & (squared > 1e-12)).nonzero().squeeze(-1)
    kept_pair = pair[keep]
    return site[kept_pair], atom[kept_pair], shift.to(frac.dtype)[image[keep]] + base[kept_pair]


def _image_list(
    reach: Int[Tensor, "crystals 3"], images: Int[Tensor, "crystals"]
) -> tuple[Int[Tensor, "images 3"], Int[Tensor, "crystals"]]:
    """All shifts of every crystal, one after the other, and where each crystal's begin."""
    start = images.cumsum(0) - images
    crystal = torch.repeat_interleave(torch.arange(len(images), device=reach.device), images)
    index = torch.arange(len(crystal), device=reach.device) - start[crystal]
    width = 2 * reach + 1
    width = width[crystal]
    z = index % width[:, 2]
    y = (index // width[:, 2]) % width[:, 1]
    x = index // (width[:, 2] * width[:, 1])
    return torch.stack([x, y, z], -1) - reach[crystal], start


def _cell_list(
    batch: CrystalBatch,
    atoms: OrbitMap,
    frac: Float[Tensor, "atoms 3"],
    lattice: Float[Tensor, "crystals 3 3"],
    cutoff: float,
    crystal: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """One large crystal through vesin; rows of atoms that are not sites are dropped."""
    members = (atoms.crystal == crystal).nonzero().squeeze(-1)
    cell = lattice[crystal].detach().double().cpu()
    inside = frac[members].detach().double().cpu()
    wrapped = inside - inside.floor()
    search = NeighborList(cutoff=cutoff, full_list=True)
    i, j, shift = search.compute(wrapped @ cell, cell, periodic=True, quantities="ijS")
    device = frac.device
    i, j = i.long().to(device), j.long().to(device)
    shift = shift.double() - inside.floor()[j.cpu()] + inside.floor()[i.cpu()]
    site_of = torch.full((len(frac),), -1, dtype=torch.long, device=device)
    own = batch.crystal == crystal
    site_of[atoms.first[own]] = own.nonzero().squeeze(-1)
    keep = site_of[members[i]] >= 0
    return site_of[members[i]][keep], members[j][keep], shift.to(device, frac.dtype)[keep]
