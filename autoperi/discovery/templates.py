"""Templates: training crystals of the same anonymous formula, with the elements of a formula."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations, product
from math import gcd

import numpy as np
from jaxtyping import Bool, Float, Int

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.flow.relatives import Relatives, element_distances

MOST_ELEMENTS = 7
"""No crystal of MP-20 has more."""
_MOST, _FARTHER = 160, 800
"""Nearest exchanges, and how many are looked through for further genes, one exchange of each."""
_MOST_ORDERS = 720
"""Ways to hand out elements of equal amounts that are tried at most."""
_NAMES = 128
"""More than there are elements."""

Ratio = tuple[int, ...]
"""Atoms per formula unit, descending: an anonymous formula."""


@dataclass(frozen=True)
class Exchanges:
    """Training crystals with their elements exchanged for those of a formula, the nearest first.

    Attributes:
        row: number of the training crystal.
        own: atomic numbers of the formula, in the order in which they take the places of ``other``.
        other: atomic numbers of the training crystal.
        share: of each element in the formula's atoms, in the same order; equal for all exchanges.
        gene: number of the gene with species that the exchange makes, counted from the nearest.
        distance: between ``own`` and ``other`` (`element_distances`), mean over atoms.
    """

    row: Int[np.ndarray, "exchanges"]
    own: Int[np.ndarray, "exchanges elements"]
    other: Int[np.ndarray, "exchanges elements"]
    share: Float[np.ndarray, "elements"]
    gene: Int[np.ndarray, "exchanges"]
    distance: Float[np.ndarray, "exchanges"]

    def __len__(self) -> int:
        """Number of exchanges."""
        return len(self.row)

    @property
    def known(self) -> Bool[np.ndarray, "exchanges"]:
        """Whether nothing is exchanged: a training crystal has the formula itself."""
        return (self.own == self.other).all(axis=1)

    def elements(self, exchange: int) -> dict[int, int]:
        """What each element of the training crystal is exchanged for."""
        return dict(zip(self.other[exchange].tolist(), self.own[exchange].tolist(), strict=True))


class Templates:
    """The training crystals of a checkpoint, by anonymous formula.

    Attributes:
        relatives: the training crystals.
        facts: of each training crystal atoms in the primitive cell, sites, free coordinates, and the share of
            training crystals with its space group, [crystals, 4].
        space_group: of each training crystal.
    """

    def __init__(self, relatives: Relatives) -> None:
        self.relatives = relatives
        batch = relatives.crystals
        table = wyckoff_table()
        self._wyckoff, self._species = batch.wyckoff.numpy(), batch.species.numpy()
        sites = np.bincount(batch.crystal.numpy(), minlength=batch.n_crystals)
        self._ends = sites.cumsum()
        self._sizes = sites
        self.space_group = batch.space_group.numpy()
        atoms, free = np.zeros(len(sites)), np.zeros(len(sites))
        np.add.at(atoms, batch.crystal.numpy(), batch.multiplicity().numpy())
        np.add.at(free, batch.crystal.numpy(), table.dim.numpy()[self._wyckoff])
        common = np.bincount(self.space_group, minlength=231)[self.space_group] / len(sites)
        self.facts = np.stack([atoms, sites, free, common], axis=1)
        self._descriptions: dict[int, np.ndarray] = {}
        self._by_ratio = self._sorted(batch.multiplicity().numpy())

    def ratios(self) -> Collection[Ratio]:
        """Anonymous formulas that training crystals have."""
        return self._by_ratio.keys()

    def exchanges(
        self,
        formula: Mapping[int, int],
        atoms: int | None = None,
        space_group: int | None = None,
        skip: int | None = None,
    ) -> Exchanges:
        """The nearest exchanges of a formula.

        Args:
            formula: atoms per formula unit by atomic number.
            atoms: in the primitive cell, of all templates.
            space_group: of all templates.
            skip: a training crystal that does not count: itself.
        """
        ratio, elements = arranged(formula)
        own, share = np.array(elements), np.array(ratio) / sum(ratio)
        nothing = (np.zeros(0, int), np.zeros((0, len(ratio)), int))
        rows, others = self._by_ratio.get(ratio, nothing)
        fits = rows != (-1 if skip is None else skip)
        if atoms is not None:
            fits &= self.facts[rows, 0] == atoms
        if space_group is not None:
            fits &= self.space_group[rows] == space_group
        rows, others = rows[fits], others[fits]
        orders = np.array(_orders(ratio))
        distance = (element_distances()[own[orders][None], others[:, None]] * share).sum(axis=-1)
        nearest = np.argsort(distance, axis=None, kind="stable")[:_FARTHER]
        which, order = np.divmod(nearest, len(orders))
        row, placed, other = rows[which], own[orders[order]], others[which]
        numbers: dict[tuple[int, ...], int] = {}
        genes = [
            numbers.setdefault(self._named(r, dict(zip(o, p, strict=True))), len(numbers))
            for r, o, p in zip(row.tolist(), other.tolist(), placed.tolist(), strict=True)
        ]
        kept = np.arange(len(row)) < _MOST
        kept[np.unique(genes, return_index=True)[1]] = True
        gene, distance = np.array(genes, int), distance.ravel()[nearest]
        return Exchanges(row[kept], placed[kept], other[kept], share, gene[kept], distance[kept])

    def _sorted(self, multiplicity: np.ndarray) -> dict[Ratio, tuple[np.ndarray, np.ndarray]]:
        """Training crystals of each anonymous formula, and their elements in its order."""
        rows: dict[Ratio, list[int]] = defaultdict(list)
        elements: dict[Ratio, list[list[int]]] = defaultdict(list)
        species = np.split(self._species, self._ends[:-1])
        for row, (own, weight) in enumerate(
            zip(species, np.split(multiplicity, self._ends[:-1]), strict=True)
        ):
            ratio, names = arranged(_amounts(own.tolist(), weight.tolist()))
            rows[ratio].append(row)
            elements[ratio].append(names)
        return {ratio: (np.array(rows[ratio]), np.array(elements[ratio])) for ratio in rows}

    def gene(self, exchanges: Exchanges, exchange: int) -> tuple[int, ...]:
        """Name of the gene with species that an exchange makes (`gene_with_species`)."""
        return self._named(int(exchanges.row[exchange]), exchanges.elements(exchange))

    def _named(self, row: int, elements: Mapping[int, int]) -> tuple[int, ...]:
        end = int(self._ends[row])
        span = slice(end - int(self._sizes[row]), end)
        group = int(self.space_group[row])
        if row not in self._descriptions:
            self._descriptions[row] = _descriptions(group, self._wyckoff[span])
        return group, *_first(self._descriptions[row], [elements[z] for z in self._species[span].tolist()])


def arranged(formula: Mapping[int, int]) -> tuple[Ratio, list[int]]:
    """An anonymous formula and the elements in its order."""
    pairs = sorted(((n, z) for z, n in formula.items()), reverse=True)
    return tuple(n for n, _ in pairs), [z for _, z in pairs]


def reduced_amounts(crystal: Crystal) -> dict[int, int]:
    """Atoms per formula unit by atomic number."""
    return _amounts(crystal.species.tolist(), crystal.multiplicities.tolist())


def gene_with_species(space_group: int, wyckoff: np.ndarray, species: Sequence[int]) -> tuple[int, ...]:
    """One name for a gene with its species, whatever origin and order of axes it is written in."""
    return space_group, *_first(_descriptions(space_group, wyckoff), species)


def _descriptions(space_group: int, wyckoff: np.ndarray) -> Int[np.ndarray, "descriptions sites"]:
    """Numbers of the sites' positions in every origin and order of axes of the group."""
    table = wyckoff_table()
    first, end = table.relabel_start[space_group : space_group + 2].tolist()
    ranks = table.relabel[first:end].numpy()[:, wyckoff - int(table.group_start[space_group])]
    return np.unique(ranks, axis=0) * _NAMES


def _first(descriptions: np.ndarray, species: Sequence[int]) -> tuple[int, ...]:
    return min(map(tuple, np.sort(descriptions + np.asarray(species), axis=1).tolist()))


def _amounts(species: Sequence[int], multiplicity: Sequence[int]) -> dict[int, int]:
    amounts: dict[int, int] = defaultdict(int)
    for z, n in zip(species, multiplicity, strict=True):
        amounts[z] += n
    divisor = gcd(*amounts.values())
    return {z: n // divisor for z, n in amounts.items()}


def _orders(ratio: Ratio) -> list[list[int]]:
    """Ways to hand out elements: those of equal amounts change places."""
    groups: dict[int, list[int]] = defaultdict(list)
    for place, amount in enumerate(ratio):
        groups[amount].append(place)
    ways = product(*(permutations(group) for group in groups.values()))
    return [[place for part in parts for place in part] for parts in islice(ways, _MOST_ORDERS)]
