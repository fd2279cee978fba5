"""Relatives: training crystals of the same pattern, whose geometry is a start for a gene's own.

A pattern is a gene and which of its sites hold the same element. The nearest relative has the elements most
like the gene's; its geometry, sites carried over and volume rescaled, is often nearly the answer already.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, islice, permutations, product

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from autoperi.crystals.crystal import MAX_Z, Crystal, CrystalBatch
from autoperi.crystals.lattice import VOLUME, constrain_lattice
from autoperi.crystals.wyckoff import wyckoff_table

Pattern = tuple[tuple[int, ...], ...]
"""Of each element the position indices of its sites, ascending; elements in ascending order of these."""

_Place = tuple[float, list[list[int]], list[int]]
"""Distance, sites of each element of the pattern, and the gene's letters as the relative is described."""
_MOST_ORDERS = 720
"""Ways to give elements with equal sites to one another that are tried at most."""
_FARTHEST = 0.6
"""Distance beyond which a crystal of the gene in another pattern says no more of its geometry than noise."""
_RADII, _NO_RADIUS = ("atomic", "van_der_waals"), 1.75
"""Å; no crystal of MP-20 holds an element that has neither."""
_FREE_STEPS, _LATTICE_STEPS = 1 << 16, 1 << 12
"""Steps of stored coordinates per unit: under 1e-3 Å, and 0.02% of a length."""


@dataclass(frozen=True)
class Relative:
    """A training crystal in the place of a gene.

    Attributes:
        crystal: the gene's species in the relative's geometry: sites in the gene's order, letters as the
            relative is described, volume rescaled by the elements' volumes.
        row: number of the relative in the training set.
        id: its name there.
        distance: between the elements of both (`element_distances`), mean over atoms.
    """

    crystal: Crystal
    row: int
    id: str
    distance: float


@cache
def element_distances() -> Float[np.ndarray, "101 101"]:
    """How unlike two elements are in a crystal: Mendeleev numbers over 20 and atomic radii in Å.

    Pettifor's order (Solid State Communications 51, 31, 1984) in pymatgen's numbering; 0 is unlike all.
    """
    from pymatgen.core import Element

    numbers = np.full((MAX_Z + 1, 2), 1e3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "No data available": the next radius is asked then
        for z in range(1, MAX_Z + 1):
            element = Element.from_Z(z)
            radii = (getattr(element, f"{kind}_radius") for kind in _RADII)
            numbers[z] = element.mendeleev_no / 20, next((float(r) for r in radii if r), _NO_RADIUS)
    return np.abs(numbers[:, None] - numbers).sum(axis=-1)


class Relatives:
    """The geometry of a training set by pattern, as compact arrays that travel inside a checkpoint."""

    def __init__(self, crystals: CrystalBatch, ids: Sequence[str]) -> None:
        """Take the training crystals in their order, and their names."""
        if len(ids) != crystals.n_crystals:
            raise ValueError(f"expected {crystals.n_crystals} names: got {len(ids)}")
        self._batch, self._ids = crystals, list(ids)
        self._n_sites = torch.bincount(crystals.crystal, minlength=crystals.n_crystals).numpy()
        self._first = np.concatenate([[0], self._n_sites.cumsum()[:-1]])
        self._wyckoff, self._species = crystals.wyckoff.numpy(), crystals.species.numpy()
        self._volumes = _element_volumes(crystals)
        self._table = self._patterns()
        self._genes: dict[tuple[int, ...], list[int]] = {}
        for pattern, (rows, _) in self._table.items():
            self._genes.setdefault(tuple(sorted(chain(*pattern))), []).extend(rows.tolist())

    @classmethod
    def from_crystals(cls, crystals: Sequence[Crystal]) -> "Relatives":
        """Those of a training set; raises ValueError for an empty list."""
        return cls(CrystalBatch.from_crystals(crystals), [c.id for c in crystals])

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to rebuild it with `from_state_dict`, some 40 bytes a crystal."""
        batch = self._batch
        free = (batch.free[batch.free_mask() > 0] * _FREE_STEPS).round().long() % _FREE_STEPS
        lattice = (batch.lattice_coords[batch.lattice_mask() > 0] * _LATTICE_STEPS).round()
        names = json.dumps(self._ids).encode()
        return {
            "space_group": batch.space_group.to(torch.uint8),
            "n_sites": torch.from_numpy(self._n_sites).to(torch.int16),
            "wyckoff": batch.wyckoff.to(torch.int16),
            "species": batch.species.to(torch.uint8),
            "free": (free - _FREE_STEPS // 2).to(torch.int16),
            "lattice": lattice.to(torch.int16),
            "ids": torch.frombuffer(bytearray(names), dtype=torch.uint8),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> "Relatives":
        """The training crystals that `state_dict` described."""
        state = {name: tensor.cpu() for name, tensor in state.items()}
        group, n_sites = state["space_group"].long(), state["n_sites"].long()
        batch = CrystalBatch(
            space_group=group,
            lattice_coords=torch.zeros(len(group), 6, dtype=torch.float64),
            crystal=torch.repeat_interleave(torch.arange(len(group)), n_sites),
            wyckoff=state["wyckoff"].long(),
            species=state["species"].long(),
            free=torch.zeros(len(state["wyckoff"]), 3, dtype=torch.float64),
        )
        batch.free[batch.free_mask() > 0] = (state["free"].double() + _FREE_STEPS // 2) / _FREE_STEPS
        batch.lattice_coords[batch.lattice_mask() > 0] = state["lattice"].double() / _LATTICE_STEPS
        coords = constrain_lattice(batch.lattice_coords, batch.family())
        return cls(replace(batch, lattice_coords=coords), json.loads(bytes(state["ids"].numpy())))

    def __len__(self) -> int:
        """Number of training crystals."""
        return self._batch.n_crystals

    @property
    def crystals(self) -> CrystalBatch:
        """The training crystals, in their order."""
        return self._batch

    @property
    def ids(self) -> Sequence[str]:
        """Their names."""
        return self._ids

    def renamed(self, row: int, elements: Mapping[int, int]) -> Crystal:
        """A training crystal with its elements exchanged, volume rescaled by the elements' volumes."""
        first = int(self._first[row])
        span = slice(first, first + int(self._n_sites[row]))
        before = self._species[span]
        after = np.array([elements[z] for z in before.tolist()])
        crystal = Crystal(
            space_group=int(self._batch.space_group[row]),
            wyckoff=self._wyckoff[span].copy(),
            species=after,
            free=self._batch.free[span].numpy().copy(),
            lattice_coords=self._batch.lattice_coords[row].numpy().copy(),
        )
        volumes = [(self._volumes[z] * crystal.multiplicities).sum() for z in (before, after)]
        crystal.lattice_coords[VOLUME] += np.log(volumes[1] / volumes[0]) / 3
        return crystal

    def nearest(self, gene: Crystal, skip: int | None = None) -> Relative | None:
        """The nearest relative of a gene with known species; None where no training crystal has its pattern.

        Args:
            gene: with known species.
            skip: a training crystal that does not count: itself.
        """
        found = self.ranked(gene, 1, skip)
        return found[0] if found else None

    def ranked(self, gene: Crystal, most: int, skip: int | None = None) -> list[Relative]:
        """The nearest relatives of a gene with known species, nearest first."""
        return [
            Relative(self._in_place(gene, row, sites, letters), row, self._ids[row], distance)
            for row, (distance, sites, letters) in self._near(gene, most, skip)
        ]

    def rearranged(self, gene: Crystal) -> Relative | None:
        """The training crystal of a gene, in any pattern, whose elements are nearest site by site.

        None where no training crystal has the gene, or the nearest is too far to say much of its geometry.
        """
        weight, distances = gene.multiplicities / gene.n_atoms, element_distances()
        best, nearest = None, _FARTHEST
        for letters in _descriptions(gene):
            for row in self._genes.get(tuple(sorted(letters)), ()):
                span = self._span(row)
                other = np.array(letters)[:, None] != self._wyckoff[span]
                unlike = weight[:, None] * distances[np.ix_(gene.species, self._species[span])]
                own, theirs = linear_sum_assignment(np.where(other, 1e6, unlike))
                distance = float(unlike[own, theirs].sum())
                if distance < nearest:
                    best, nearest = (row, letters, self._batch.free[span].numpy()[theirs]), distance
        if best is None:
            return None
        return Relative(self._with_geometry(gene, *best), best[0], self._ids[best[0]], nearest)

    def distances(
        self, genes: Sequence[Crystal], most: int, themselves: bool = False
    ) -> Float[Tensor, "crystals most"]:
        """Distances of the nearest relatives of genes, nearest first, infinite where there are no more.

        Args:
            genes: with known species.
            most: how many of each.
            themselves: whether they are the training crystals, in their order: none is its own relative.
        """
        found = torch.full((len(genes), most), torch.inf)
        for row, (own, gene) in enumerate(zip(found, genes, strict=True)):
            near = [distance for _, (distance, _, _) in self._near(gene, most, row if themselves else None)]
            own[: len(near)] = torch.tensor(near)
        return found

    def _near(self, gene: Crystal, most: int, skip: int | None = None) -> list[tuple[int, _Place]]:
        """Rows of the nearest relatives, and how the gene takes their place."""
        best: dict[int, _Place] = {}
        weight, distances = gene.multiplicities, element_distances()
        for letters in _descriptions(gene):
            classes = _classes(letters, gene.species.tolist())
            pattern = tuple(key for key, _ in classes)
            if pattern not in self._table:
                continue
            rows, elements = self._table[pattern]
            own = np.array([gene.species[sites[0]] for _, sites in classes])
            share = np.array([weight[sites].sum() for _, sites in classes]) / weight.sum()
            for order in _orders(pattern):
                distance = (distances[own[list(order)], elements] * share[list(order)]).sum(axis=1)
                if skip is not None:
                    distance = np.where(rows == skip, np.inf, distance)
                for k in np.argsort(distance, kind="stable")[:most]:
                    row = int(rows[k])
                    if np.isfinite(distance[k]) and (row not in best or distance[k] < best[row][0]):
                        best[row] = float(distance[k]), [classes[j][1] for j in order], letters
        return sorted(best.items(), key=lambda item: (item[1][0], item[0]))[:most]

    def _in_place(self, gene: Crystal, row: int, sites: list[list[int]], letters: list[int]) -> Crystal:
        """The gene in the geometry of a training crystal, class of sites by class of sites."""
        span = self._span(row)
        theirs = _classes(self._wyckoff[span].tolist(), self._species[span].tolist())
        free = np.zeros((gene.n_sites, 3))
        for own, (_, other) in zip(sites, theirs, strict=True):
            alike = sorted(own, key=lambda i: letters[i])
            free[alike] = self._batch.free[span].numpy()[sorted(other, key=lambda i: self._wyckoff[span][i])]
        return self._with_geometry(gene, row, letters, free)

    def _with_geometry(self, gene: Crystal, row: int, letters: list[int], free: np.ndarray) -> Crystal:
        """The gene at free coordinates of a training crystal, in its cell at the volume of own elements."""
        span = self._span(row)
        atoms = wyckoff_table().multiplicity.numpy()[self._wyckoff[span]]
        before = (self._volumes[self._species[span]] * atoms).sum()
        after = (self._volumes[gene.species] * gene.multiplicities).sum()
        coords = self._batch.lattice_coords[row].numpy().copy()
        coords[VOLUME] += np.log(after / before) / 3
        return replace(gene, wyckoff=np.array(letters), free=free, lattice_coords=coords)

    def _span(self, row: int) -> slice:
        """The sites of a training crystal."""
        first = int(self._first[row])
        return slice(first, first + int(self._n_sites[row]))

    def _patterns(self) -> dict[Pattern, tuple[np.ndarray, np.ndarray]]:
        """Training crystals of each pattern and the elements of each, in the order of the pattern."""
        rows: dict[Pattern, list[int]] = {}
        elements: dict[Pattern, list[list[int]]] = {}
        wyckoff, species = self._wyckoff.tolist(), self._species.tolist()
        for row, (first, n) in enumerate(zip(self._first.tolist(), self._n_sites.tolist(), strict=True)):
            own = species[first : first + n]
            classes = _classes(wyckoff[first : first + n], own)
            pattern = tuple(key for key, _ in classes)
            rows.setdefault(pattern, []).append(row)
            elements.setdefault(pattern, []).append([own[sites[0]] for _, sites in classes])
        return {p: (np.array(rows[p]), np.array(elements[p])) for p in rows}


def _classes(letters: Sequence[int], species: Sequence[int]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Sites of each element with their positions, in the order of a pattern."""
    sites: dict[int, list[int]] = {}
    for i, z in enumerate(species):
        sites.setdefault(z, []).append(i)
    return sorted((tuple(sorted(letters[i] for i in own)), own) for own in sites.values())


def _descriptions(gene: Crystal) -> list[list[int]]:
    """Positions of the gene's sites in every origin and order of axes of its group."""
    table = wyckoff_table()
    start = int(table.group_start[gene.space_group])
    first, end = table.relabel_start[gene.space_group : gene.space_group + 2].tolist()
    ranks = table.relabel[first:end].numpy()[:, gene.wyckoff - start]
    return (start + np.unique(ranks, axis=0)).tolist()


def _orders(pattern: Pattern) -> list[tuple[int, ...]]:
    """Ways to name the elements of a pattern: those with equal sites change places."""
    groups: list[list[int]] = []
    for k, key in enumerate(pattern):
        if k and key == pattern[k - 1]:
            groups[-1].append(k)
        else:
            groups.append([k])
    ways = product(*(permutations(group) for group in groups))
    return [tuple(k for part in parts for k in part) for parts in islice(ways, _MOST_ORDERS)]


def _element_volumes(batch: CrystalBatch) -> Float[np.ndarray, "101"]:
    """Volume of an atom of each element in Å³, by ridge on the volumes of crystals; others take the mean."""
    amounts = np.zeros((batch.n_crystals, MAX_Z + 1))
    np.add.at(amounts, (batch.crystal.numpy(), batch.species.numpy()), batch.multiplicity().numpy())
    volume = torch.linalg.det(batch.lattice()).abs().numpy()
    total = amounts.sum(axis=1)
    mean = float((volume / total).mean())
    shares, target = amounts / total[:, None], volume / total - mean
    gram = shares.T @ shares + 0.1 * np.eye(MAX_Z + 1)
    return np.maximum(mean + np.linalg.solve(gram, shares.T @ target), 0.2 * mean)
