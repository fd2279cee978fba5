"""Bonds of many crystals, seen from their symmetry-distinct sites: what every property network reads.

Atoms of one orbit have the same invariant features, so only the K sites receive messages, at K/N of the
cost; an atom that sends has its site's scalars, and its vectors turned by ``rotation``.
That is exact for any network that is equivariant. In gene P1 every atom is a site: the usual crystal graph.

Edge convention: ``vector = x_j + shift @ lattice - x_i`` points from the receiving site i to atom j.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.graph import orbit_graph
from autoperi.data.cache import cache_folder, cached
from autoperi.data.dataset import CrystalDataset
from property_models.graph.electrons import Electrons

_TIE = 1e-3
"""Neighbours this much (Å) beyond the last one kept are kept too, so that a shell is never cut in two."""
_CHUNK = 128
_SCHEMA = 1
"""Raise it when the meaning of the cached arrays changes."""


@dataclass(frozen=True)
class SiteGraph:
    """Ragged and flat: one crystal, a batch, or a whole data set from which ``select`` takes batches.

    Sites, atoms and edges of crystal c are the rows ``start[c] : start[c+1]`` of their arrays. MP-20 train
    at 6 Å takes 0.15 GB.
    """

    space_group: Int[Tensor, "crystals"]
    lattice_coords: Float[Tensor, "crystals 6"]
    """ℓ of the conventional cell."""
    site_start: Int[Tensor, "crystals+1"]
    atom_start: Int[Tensor, "crystals+1"]
    edge_start: Int[Tensor, "crystals+1"]
    species: Int[Tensor, "sites"] | Float[Tensor, "sites elements"]
    """Atomic numbers, or weights of all elements where species are soft."""
    multiplicity: Float[Tensor, "sites"]
    """Atoms per primitive cell."""
    atom_site: Int[Tensor, "atoms"]
    rotation: Float[Tensor, "atoms 3 3"]
    """Carries the Cartesian features of an atom's site onto the atom (acts on columns)."""
    site: Int[Tensor, "edges"]
    """Receiver."""
    atom: Int[Tensor, "edges"]
    vector: Float[Tensor, "edges 3"]
    """Å."""

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.space_group)

    @property
    def n_sites(self) -> int:
        """Number of sites of all crystals together."""
        return len(self.multiplicity)

    @cached_property
    def crystal(self) -> Int[Tensor, "sites"]:
        """Crystal of each site."""
        return _owner(self.site_start)

    @cached_property
    def sender(self) -> Int[Tensor, "edges"]:
        """Site of the sending atom."""
        return self.atom_site[self.atom]

    @property
    def turn(self) -> Float[Tensor, "edges 3 3"]:
        """Carries the Cartesian features of the sender's site onto the sending atom."""
        return self.rotation[self.atom]

    @cached_property
    def distance(self) -> Float[Tensor, "edges"]:
        """Å."""
        return self.vector.norm(dim=-1)

    @cached_property
    def share(self) -> Float[Tensor, "sites"]:
        """Atoms of the site over atoms of the crystal: weights of a mean over atoms."""
        total = self.multiplicity.new_zeros(len(self)).index_add(0, self.crystal, self.multiplicity)
        return self.multiplicity / total[self.crystal]

    @cached_property
    def electrons(self) -> Electrons:
        """Counted once for all networks that ask."""
        return Electrons.of(self.species, self.multiplicity, self.site_start)

    @cached_property
    def edge_index(self) -> Int[Tensor, "2 edges"]:
        """Source and target sites, as torch-geometric's operators expect them."""
        return torch.stack([self.sender, self.site])

    def select(self, crystals: Int[Tensor, "some"]) -> "SiteGraph":
        """Some of the crystals, in the order given, with 64-bit indices."""
        sites, atoms, edges = (
            _Rows.of(start, crystals) for start in (self.site_start, self.atom_start, self.edge_start)
        )
        site_shift = sites.start[:-1] - self.site_start[crystals]
        atom_shift = atoms.start[:-1] - self.atom_start[crystals]
        return SiteGraph(
            space_group=self.space_group[crystals],
            lattice_coords=self.lattice_coords[crystals],
            site_start=sites.start,
            atom_start=atoms.start,
            edge_start=edges.start,
            species=self.species[sites.rows],
            multiplicity=self.multiplicity[sites.rows],
            atom_site=self.atom_site[atoms.rows].long() + site_shift[atoms.owner],
            rotation=self.rotation[atoms.rows],
            site=self.site[edges.rows].long() + site_shift[edges.owner],
            atom=self.atom[edges.rows].long() + atom_shift[edges.owner],
            vector=self.vector[edges.rows],
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "SiteGraph":
        """Move, and cast what is not an index."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return SiteGraph(
            **{k: v.to(device, dtype if v.is_floating_point() else None) for k, v in moved.items()}
        )

    def strained(self, strain: Float[Tensor, "crystals 3 3"]) -> "SiteGraph":
        """Each crystal's bonds in a deformed cell, ``vector (1 + strain)``; ``lattice_coords`` are left."""
        turned = torch.einsum("ei,eij->ej", self.vector, strain[self.crystal[self.site]])
        return replace(self, vector=self.vector + turned)

    def nearest(self, count: int) -> "SiteGraph":
        """Only the ``count`` nearest neighbours of each site, with all that tie with the last of them."""
        order = self.distance.argsort()
        order = order[self.site[order].argsort(stable=True)]
        degree = torch.bincount(self.site, minlength=self.n_sites)
        first = degree.cumsum(0) - degree
        last = (first + degree.clamp(max=count) - 1).clamp_min(0)
        limit = self.distance[order[last.clamp(max=max(len(order) - 1, 0))]] if len(order) else degree
        return self._with(self.distance <= limit[self.site] + _TIE)

    def within(self, cutoff: float) -> "SiteGraph":
        """Only the neighbours within ``cutoff`` Å."""
        return self._with(self.distance <= cutoff)

    def _with(self, keep: Bool[Tensor, "edges"]) -> "SiteGraph":
        """Some of the edges."""
        owner = _owner(self.edge_start)[keep]
        start = _starts(torch.bincount(owner, minlength=len(self)))
        return replace(
            self, edge_start=start, site=self.site[keep], atom=self.atom[keep], vector=self.vector[keep]
        )


def site_graph(batch: CrystalBatch, cutoff: float, nearest: int | None = None) -> SiteGraph:
    """Neighbours within ``cutoff`` Å of every site, differentiable in (s, ℓ); 64-bit indices.

    Args:
        batch: crystals; their precision is kept.
        cutoff: Å.
        nearest: keep this many neighbours of each site, and whatever ties with the last.

    Raises:
        ValueError: no cutoff, or a cell so flat that its images are countless.
    """
    graph = orbit_graph(batch, cutoff)
    order = graph.site.argsort(stable=True)  # crystals in order, large cells among small ones too
    site = graph.site[order]
    found = SiteGraph(
        space_group=batch.space_group,
        lattice_coords=batch.lattice_coords,
        site_start=_starts(torch.bincount(batch.crystal, minlength=batch.n_crystals)),
        atom_start=_starts(batch.n_atoms()),
        edge_start=_starts(torch.bincount(batch.crystal[site], minlength=batch.n_crystals)),
        species=batch.species,
        multiplicity=batch.multiplicity().to(graph.vector.dtype),
        atom_site=graph.atoms.site,
        rotation=graph.rotation,
        site=site,
        atom=graph.atom[order],
        vector=graph.vector[order],
    )
    return found if nearest is None else found.nearest(nearest)


@torch.no_grad()
def dataset_graph(
    dataset: CrystalDataset, cutoff: float, nearest: int | None = None, *, progress: bool = True
) -> SiteGraph:
    """Graphs of a whole data set in float32 and 32-bit indices, built once and kept in the cache.

    Raises:
        ValueError: see ``site_graph``.
    """
    digest = hashlib.sha256(f"{_SCHEMA} {cutoff} {nearest}".encode())
    for tensor in (
        dataset.site_start,
        dataset.wyckoff,
        dataset.species,
        dataset.free,
        dataset.lattice_coords,
    ):
        digest.update(tensor.numpy().tobytes())
    file = cache_folder() / "site_graphs" / f"{digest.hexdigest()[:16]}.safetensors"
    return cached(file, _read, lambda: _dataset_graph(dataset, cutoff, nearest, progress), _write)


def _dataset_graph(dataset: CrystalDataset, cutoff: float, nearest: int | None, progress: bool) -> SiteGraph:
    starts = range(0, len(dataset), _CHUNK)
    steps = track(starts, "Finding neighbours", transient=True, disable=not progress or len(starts) < 4)
    parts = [
        _compact(site_graph(dataset.batch(range(i, min(i + _CHUNK, len(dataset)))), cutoff, nearest))
        for i in steps
    ]
    return concatenate(parts)


def _write(file: Path, graph: SiteGraph) -> None:
    save_file({f.name: getattr(graph, f.name) for f in fields(graph)}, file)


def _read(file: Path) -> SiteGraph:
    """A graph as it was written; raises TypeError or ValueError if parts are missing or disagree."""
    graph = SiteGraph(**load_file(file))
    sites, atoms, edges = (int(s[-1]) for s in (graph.site_start, graph.atom_start, graph.edge_start))
    expected = {
        **dict.fromkeys(("species", "multiplicity"), sites),
        **dict.fromkeys(("atom_site", "rotation"), atoms),
        **dict.fromkeys(("site", "atom", "vector"), edges),
        **dict.fromkeys(("site_start", "atom_start", "edge_start"), len(graph.space_group) + 1),
        "lattice_coords": len(graph.space_group),
    }
    if wrong := [name for name, rows in expected.items() if len(getattr(graph, name)) != rows]:
        raise ValueError(
            f"expected {sites} sites, {atoms} atoms, {edges} edges: got other lengths of {wrong}"
        )
    return graph


def concatenate(graphs: Sequence[SiteGraph]) -> SiteGraph:
    """Several graphs one after the other; raises ValueError for none."""
    if not graphs:
        raise ValueError("expected at least one graph: got none")
    sites = _offsets([g.n_sites for g in graphs])
    atoms = _offsets([len(g.atom_site) for g in graphs])
    edges = _offsets([len(g.site) for g in graphs])

    def starts(name: str, offsets: list[int]) -> Tensor:
        ends = [getattr(g, name)[1:] + o for g, o in zip(graphs, offsets, strict=False)]
        return torch.cat([getattr(graphs[0], name)[:1], *ends])

    def joined(name: str, offsets: list[int] | None = None) -> Tensor:
        shifts = offsets or [0] * len(graphs)
        return torch.cat([getattr(g, name) + o for g, o in zip(graphs, shifts, strict=False)])

    return SiteGraph(
        site_start=starts("site_start", sites),
        atom_start=starts("atom_start", atoms),
        edge_start=starts("edge_start", edges),
        atom_site=joined("atom_site", sites),
        site=joined("site", sites),
        atom=joined("atom", atoms),
        **{
            name: joined(name)
            for name in ("space_group", "lattice_coords", "species", "multiplicity", "rotation", "vector")
        },
    )


@dataclass(frozen=True)
class _Rows:
    """Rows of some groups of a ragged array: which, to which new group they belong, where those start."""

    rows: Tensor
    owner: Tensor
    start: Tensor

    @classmethod
    def of(cls, start: Tensor, groups: Tensor) -> "_Rows":
        counts = (start[groups + 1] - start[groups]).long()
        new = _starts(counts)
        owner = _owner(new)
        return cls(
            start[groups].long()[owner] + torch.arange(len(owner), device=start.device) - new[owner],
            owner,
            new,
        )


def _owner(start: Tensor) -> Tensor:
    counts = start[1:] - start[:-1]
    return torch.repeat_interleave(torch.arange(len(counts), device=start.device), counts)


def _starts(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _offsets(sizes: list[int]) -> list[int]:
    return [sum(sizes[:i]) for i in range(len(sizes))]


def _compact(graph: SiteGraph) -> SiteGraph:
    single = graph.to(dtype=torch.float32)
    narrow = {name: getattr(single, name).to(torch.int32) for name in ("atom_site", "site", "atom")}
    return replace(single, species=single.species.to(torch.int32), **narrow)
