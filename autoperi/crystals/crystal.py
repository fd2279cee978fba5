"""Crystals: one (`Crystal`, plain arrays) and many (`CrystalBatch`, ragged tensors)."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, SupportsIndex, overload

import numpy as np
import torch
from ase.data import chemical_symbols
from jaxtyping import Float, Int
from torch import Tensor

from autoperi.crystals.lattice import coords_from_lattice, free_lattice_mask, lattice_from_coords
from autoperi.crystals.wyckoff import LETTERS, gene_name, wyckoff_table

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

MAX_Z = 100
"""Atomic numbers 1 to 100; 0 stands for a species not (yet) known."""


@contextmanager
def any_element_in_formulas() -> Iterator[None]:
    """While pymatgen sorts formulas by electronegativity: no warning that He, Ne and Ar have none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")
        yield


@dataclass(frozen=True, eq=False)
class Crystal:
    """One crystal as its gene and what the gene leaves free.

    Crystals are equal when every field is, to the last bit and with sites in the same order; whether two are
    the same structure is for a structure matcher to say.

    Attributes:
        space_group: ITA number.
        wyckoff: position index of each site, [sites] (see ``WyckoffTable``).
        species: atomic number of each site, 0 = unknown, [sites].
        free: free coordinates in [0, 1), zero beyond the site's dimension, [sites, 3].
        lattice_coords: ℓ of the conventional cell, [6].
        id: name given by the source or the sampler.
        properties: named numbers: labels of a data set, predictions, log-likelihood.
        provenance: where it comes from: seed, checkpoint, index, file.
    """

    space_group: int
    wyckoff: np.ndarray
    species: np.ndarray
    free: np.ndarray
    lattice_coords: np.ndarray
    id: str = ""
    properties: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, str | int | float] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Crystal):
            return NotImplemented
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)

    def __hash__(self) -> int:
        return hash((self.id, self.space_group, *self.wyckoff.tolist(), *self.species.tolist()))

    @classmethod
    def without_symmetry(cls, lattice: np.ndarray, frac: np.ndarray, species: np.ndarray) -> "Crystal":
        """A cell as it is, every atom a site of its own in space group 1; its orientation is not kept.

        Args:
            lattice: rows in Å, [3, 3].
            frac: fractional positions, [atoms, 3].
            species: atomic numbers, [atoms].

        Raises:
            ValueError: a cell without volume.
        """
        cell = torch.tensor(np.asarray(lattice), dtype=torch.float64)
        return cls(
            space_group=1,
            wyckoff=np.full(len(frac), wyckoff_table().index(1, "a")),
            species=np.asarray(species),
            free=np.asarray(frac, float) % 1.0,
            lattice_coords=coords_from_lattice(cell[None])[0].numpy(),
        )

    @property
    def n_sites(self) -> int:
        """Symmetry-distinct sites K."""
        return len(self.wyckoff)

    @property
    def multiplicities(self) -> np.ndarray:
        """Atoms per primitive cell on each site, [sites]."""
        return wyckoff_table().multiplicity.numpy()[self.wyckoff]

    @property
    def n_atoms(self) -> int:
        """Atoms N in the primitive cell."""
        return int(self.multiplicities.sum())

    @property
    def n_free(self) -> int:
        """Free coordinates of all sites together, without the lattice."""
        return int(wyckoff_table().dim.numpy()[self.wyckoff].sum())

    @property
    def letters(self) -> str:
        """Wyckoff letter of each site, in the order of the sites."""
        rank = wyckoff_table().letter.numpy()[self.wyckoff]
        return "".join(LETTERS[i] for i in rank)

    @property
    def gene(self) -> str:
        """Space group and letters, e.g. ``225:ab``: what symmetry fixes, without species (`gene_name`)."""
        return gene_name(self.space_group, self.wyckoff.tolist())

    @property
    @any_element_in_formulas()
    def formula(self) -> str:
        """Reduced formula, as pymatgen writes it."""
        from pymatgen.core import Composition

        amounts: dict[str, int] = {}
        for z, m in zip(self.species, self.multiplicities, strict=True):
            symbol = chemical_symbols[z]
            amounts[symbol] = amounts.get(symbol, 0) + int(m)
        return Composition(amounts).reduced_formula

    def expand(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Primitive cell: lattice [3, 3] (rows, Å), fractional positions [atoms, 3], Z [atoms]."""
        batch = CrystalBatch.from_crystals([self])
        atoms = batch.atoms()
        species = batch.species[atoms.site]
        return (
            batch.lattice()[0].numpy(),
            atoms.positions(batch.site_positions()).numpy(),
            species.numpy(),
        )

    def to_structure(self) -> "Structure":
        """The primitive cell in pymatgen; the crystal's properties become structure properties."""
        from pymatgen.core import Lattice, Structure

        lattice, frac, species = self.expand()
        properties = {"id": self.id, "space_group": self.space_group, **self.properties}
        return Structure(Lattice(lattice), species.tolist(), frac, to_unit_cell=True, properties=properties)

    def to_ase(self) -> "Atoms":
        """The primitive cell in ASE, with id, gene and properties in ``info``."""
        from ase import Atoms

        lattice, frac, species = self.expand()
        info = {"id": self.id, "space_group": self.space_group, "wyckoff": self.letters}
        atoms = Atoms(numbers=species, scaled_positions=frac % 1.0, cell=lattice, pbc=True)
        atoms.info.update({**info, **self.properties})
        return atoms

    def _repr_html_(self) -> str | None:
        """The crystal in a notebook, to be turned; nothing where a species is not known."""
        from autoperi.crystals.viewer.notebook import crystal_html

        return None if (self.species < 1).any() else crystal_html(self)


class Crystals(list[Crystal]):
    """Crystals that a notebook shows as a gallery; a list in all else."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Crystal: ...
    @overload
    def __getitem__(self, index: slice) -> "Crystals": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Crystal | Crystals":
        """A crystal, or some of them as a gallery again."""
        found = super().__getitem__(index)
        return found if isinstance(found, Crystal) else Crystals(found)

    def _repr_html_(self) -> str | None:
        """The gallery; nothing where a species is not known or there are none."""
        from autoperi.crystals.viewer.notebook import gallery_html

        unknown = not self or any((crystal.species < 1).any() for crystal in self)
        return None if unknown else gallery_html(self)


@dataclass(frozen=True)
class OrbitMap:
    """For every atom, its site and the operation that carries the site onto it: ``x_j = W_j x_k + w_j``."""

    site: Int[Tensor, "atoms"]
    crystal: Int[Tensor, "atoms"]
    rotation: Float[Tensor, "atoms 3 3"]
    shift: Float[Tensor, "atoms 3"]
    first: Int[Tensor, "sites"]
    """Atom that is the site itself (identity operation)."""

    def positions(self, sites: Float[Tensor, "sites 3"]) -> Float[Tensor, "atoms 3"]:
        """Fractional positions of all atoms from those of the sites (not wrapped)."""
        return torch.einsum("aij,aj->ai", self.rotation, sites[self.site]) + self.shift


@dataclass(frozen=True)
class CrystalBatch:
    """Many crystals as ragged tensors, tied by the ``crystal`` index; never padded.

    Geometry is float64 on construction; ``to`` changes device or precision.
    """

    space_group: Int[Tensor, "crystals"]
    lattice_coords: Float[Tensor, "crystals 6"]
    crystal: Int[Tensor, "sites"]
    wyckoff: Int[Tensor, "sites"]
    species: Int[Tensor, "sites"]
    free: Float[Tensor, "sites 3"]

    @classmethod
    def from_crystals(cls, crystals: Sequence[Crystal]) -> "CrystalBatch":
        """Collate; raises ValueError for an empty list."""
        if not crystals:
            raise ValueError("expected at least one crystal to make a batch: got none")
        counts = torch.tensor([c.n_sites for c in crystals])
        return cls(
            space_group=torch.tensor([c.space_group for c in crystals]),
            lattice_coords=torch.from_numpy(np.stack([c.lattice_coords for c in crystals])).double(),
            crystal=torch.repeat_interleave(torch.arange(len(crystals)), counts),
            wyckoff=torch.from_numpy(np.concatenate([c.wyckoff for c in crystals])).long(),
            species=torch.from_numpy(np.concatenate([c.species for c in crystals])).long(),
            free=torch.from_numpy(np.concatenate([c.free for c in crystals])).double(),
        )

    def to_crystals(self) -> list[Crystal]:
        """One `Crystal` per entry, as float64 arrays."""
        counts = torch.bincount(self.crystal, minlength=self.n_crystals).tolist()
        parts = zip(
            self.space_group.tolist(),
            *(t.cpu().split(counts) for t in (self.wyckoff, self.species, self.free.double())),
            self.lattice_coords.double().cpu(),
            strict=True,
        )
        return [Crystal(g, w.numpy(), z.numpy(), s.numpy(), k.numpy()) for g, w, z, s, k in parts]

    @property
    def n_crystals(self) -> int:
        """Number of crystals."""
        return len(self.space_group)

    @property
    def n_sites(self) -> int:
        """Number of sites of all crystals together."""
        return len(self.wyckoff)

    @property
    def device(self) -> torch.device:
        """Device of every tensor."""
        return self.free.device

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "CrystalBatch":
        """Move, and cast the geometry."""
        return CrystalBatch(
            space_group=self.space_group.to(device),
            lattice_coords=self.lattice_coords.to(device, dtype),
            crystal=self.crystal.to(device),
            wyckoff=self.wyckoff.to(device),
            species=self.species.to(device),
            free=self.free.to(device, dtype),
        )

    def site_rows(self, crystals: Int[Tensor, "some"]) -> tuple[Int[Tensor, "rows"], Int[Tensor, "rows"]]:
        """Rows of the sites of some crystals, in that order, and the new crystal index of each."""
        counts = torch.bincount(self.crystal, minlength=self.n_crystals)
        first = counts.cumsum(0) - counts
        kept = counts[crystals]
        new = torch.repeat_interleave(torch.arange(len(crystals), device=self.device), kept)
        within = torch.arange(len(new), device=self.device) - (kept.cumsum(0) - kept)[new]
        return first[crystals][new] + within, new

    def select(self, crystals: Int[Tensor, "some"]) -> "CrystalBatch":
        """Some of the crystals, in the order given."""
        rows, crystal = self.site_rows(crystals)
        return CrystalBatch(
            space_group=self.space_group[crystals],
            lattice_coords=self.lattice_coords[crystals],
            crystal=crystal,
            wyckoff=self.wyckoff[rows],
            species=self.species[rows],
            free=self.free[rows],
        )

    def with_geometry(
        self, free: Float[Tensor, "sites 3"], lattice_coords: Float[Tensor, "crystals 6"]
    ) -> "CrystalBatch":
        """The same genes and species at another point of (s, ℓ)."""
        return replace(self, free=free, lattice_coords=lattice_coords)

    def with_species(self, species: Int[Tensor, "sites"]) -> "CrystalBatch":
        """The same genes and geometry with other species (0 = unknown)."""
        return replace(self, species=species)

    def family(self) -> Int[Tensor, "crystals"]:
        """Index of the crystal family in ``wyckoff.FAMILIES``."""
        return self._table.family[self.space_group]

    def multiplicity(self) -> Int[Tensor, "sites"]:
        """Atoms per primitive cell on each site."""
        return self._table.multiplicity[self.wyckoff]

    def n_atoms(self) -> Int[Tensor, "crystals"]:
        """Atoms in each primitive cell."""
        zeros = torch.zeros(self.n_crystals, dtype=torch.long, device=self.device)
        return zeros.index_add(0, self.crystal, self.multiplicity())

    def free_mask(self) -> Float[Tensor, "sites 3"]:
        """1 where a free coordinate exists, 0 in the padding."""
        dims = self._table.dim[self.wyckoff]
        return (torch.arange(3, device=self.device) < dims[:, None]).to(self.free.dtype)

    def lattice_mask(self) -> Float[Tensor, "crystals 6"]:
        """1 where a lattice coordinate is free, 0 where the family fixes it."""
        return free_lattice_mask(self.family()).to(self.lattice_coords.dtype)

    def basis(self) -> Float[Tensor, "sites 3 3"]:
        """B of each site: columns are primitive fractional directions."""
        return self._table.basis[self.wyckoff].to(self.free.dtype)

    def site_positions(self) -> Float[Tensor, "sites 3"]:
        """Fractional positions of the sites in the primitive cell: ``c + B s``."""
        origin = self._table.origin[self.wyckoff].to(self.free.dtype)
        return origin + torch.einsum("sij,sj->si", self.basis(), self.free)

    def lattice(self) -> Float[Tensor, "crystals 3 3"]:
        """Primitive cells, rows in Å."""
        primitive = self._table.primitive[self.space_group].to(self.lattice_coords.dtype)
        return primitive.transpose(-1, -2) @ lattice_from_coords(self.lattice_coords)

    def tangent(self, arrows: Float[Tensor, "sites 3"]) -> Float[Tensor, "sites 3"]:
        """Free-coordinate rates of Cartesian arrows (Å), projected onto each site's Wyckoff set.

        The basis is oblique in hexagonal cells, so this is a least-squares solve, not a dot product.
        """
        cart = self.cartesian_basis()
        gram = cart.transpose(-1, -2) @ cart + torch.diag_embed(1 - self.free_mask())
        along = torch.einsum("sij,si->sj", cart, arrows)
        return torch.linalg.solve(gram, along) * self.free_mask()

    def cartesian_basis(self) -> Float[Tensor, "sites 3 3"]:
        """Columns: Cartesian move (Å) per unit of each free coordinate."""
        return self.lattice().transpose(-1, -2)[self.crystal] @ self.basis()

    def atoms(self) -> OrbitMap:
        """The orbit map of every atom of every primitive cell."""
        table = self._table
        counts = self.multiplicity()
        ends = counts.cumsum(0)
        first = ends - counts
        site = torch.repeat_interleave(torch.arange(self.n_sites, device=self.device), counts)
        row = (
            table.orbit_start[self.wyckoff][site] + torch.arange(len(site), device=self.device) - first[site]
        )
        return OrbitMap(
            site=site,
            crystal=self.crystal[site],
            rotation=table.orbit_rotation[row].to(self.free.dtype),
            shift=table.orbit_shift[row].to(self.free.dtype),
            first=first,
        )

    @property
    def _table(self):
        return wyckoff_table(str(self.device))
