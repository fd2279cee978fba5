"""What a model has been shown: elements, and how far each of them is from its nearest neighbour."""

from dataclasses import dataclass

import torch
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autoperi.crystals.crystal import MAX_Z
from autoperi.networks.checkpoint import Arrays
from property_models.graph.site_graph import SiteGraph

_RADII = torch.tensor(covalent_radii[: MAX_Z + 1], dtype=torch.float32)
"""Covalent radii in Å (Cordero et al. 2008, doi:10.1039/b801115j)."""
_MARGIN = 0.02
"""Of a range: the spread of the random strain under which training crystals are shown."""


@dataclass(frozen=True)
class Contacts:
    """The nearest neighbour of every site, by distance over the sum of the two covalent radii."""

    ratio: Float[Tensor, "sites"]
    """Infinite where the graph has no bond."""
    distance: Float[Tensor, "sites"]
    """Å."""
    neighbour: Int[Tensor, "sites"]
    """Atomic number; 0 where there is none."""

    @classmethod
    def of(cls, graph: SiteGraph) -> "Contacts":
        """Contacts of all sites of a graph with hard species."""
        species, site = graph.species.long(), graph.site.long()
        radii = _RADII.to(graph.vector)
        sender = species[graph.sender.long()]
        ratio = graph.distance / (radii[species[site]] + radii[sender])
        shortest = ratio.new_full((graph.n_sites,), torch.inf).scatter_reduce(0, site, ratio, "amin")
        nearest = (ratio == shortest[site]).nonzero().squeeze(-1)
        distance = torch.full_like(shortest, torch.inf)
        distance[site[nearest]] = graph.distance[nearest]
        neighbour = torch.zeros_like(species)
        neighbour[site[nearest]] = sender[nearest]
        return cls(shortest, distance, neighbour)


class Domain(Arrays):
    """Elements and nearest-neighbour ranges of the labelled training crystals of each target.

    Kept in the checkpoint, [targets, elements]: ``seen``, ``shortest`` and ``longest``, the range of an
    element's distance to its nearest neighbour over the sum of their covalent radii. A checkpoint without
    them does not know its domain.
    """

    @property
    def known(self) -> bool:
        """Whether the checkpoint holds it."""
        return bool(self.state_dict())

    def learn(self, graph: SiteGraph, labelled: Bool[Tensor, "crystals targets"]) -> None:
        """Take elements and ranges of training crystals, for each target of those with a label."""
        contacts, species = Contacts.of(graph), graph.species.long()
        found: dict[str, list[Tensor]] = {"seen": [], "shortest": [], "longest": []}
        for rows in labelled.T:
            mine = rows[graph.crystal]
            z, ratio = species[mine], contacts.ratio[mine].float()
            inside = ratio.isfinite()
            bonded, ratio = z[inside], ratio[inside]
            found["seen"].append(torch.bincount(z, minlength=MAX_Z + 1) > 0)
            for name, start, reduce in (("shortest", torch.inf, "amin"), ("longest", 0.0, "amax")):
                limits = torch.full((MAX_Z + 1,), start).scatter_reduce(0, bonded, ratio, reduce)
                found[name].append(limits)
        self.put({name: torch.stack(rows) for name, rows in found.items()})

    def strangers(self, graph: SiteGraph) -> list[list[str]]:
        """For each target, why each crystal is unlike those it was trained on; empty where it is not.

        Unseen elements, atoms without a neighbour within the cutoff, and nearest neighbours closer or
        farther than any of that element in training.
        """
        contacts, species = Contacts.of(graph), graph.species.long()
        reasons = []
        for seen, shortest, longest in zip(
            *map(self.get_buffer, ("seen", "shortest", "longest")), strict=True
        ):
            unseen = ~seen[species]
            low, high = shortest[species] * (1 - _MARGIN), longest[species] * (1 + _MARGIN)
            away = ~unseen & ((contacts.ratio < low) | (contacts.ratio > high))
            words = [""] * len(graph)
            flagged = (unseen | away).nonzero().squeeze(-1).tolist()
            crystal = graph.crystal.tolist()
            elements: dict[int, set[int]] = {}
            for site in flagged:
                if unseen[site]:
                    elements.setdefault(crystal[site], set()).add(int(species[site]))
            for c, numbers in elements.items():
                words[c] = (
                    f"no training crystal has {', '.join(chemical_symbols[z] for z in sorted(numbers))}"
                )
            for site in flagged:
                c = crystal[site]
                if not words[c]:
                    words[c] = _contact(contacts, site, int(species[site]), shortest, longest)
            reasons.append(words)
        return reasons


def _contact(contacts: Contacts, site: int, z: int, shortest: Tensor, longest: Tensor) -> str:
    """What is unlike training crystals in the surroundings of one site."""
    symbol, ratio = chemical_symbols[z], float(contacts.ratio[site])
    if ratio == float("inf"):
        return f"{symbol} has no neighbour within the cutoff"
    other = chemical_symbols[int(contacts.neighbour[site])]
    return (
        f"{symbol} is {float(contacts.distance[site]):.2f} Å from its nearest neighbour {other}, {ratio:.2f} "
        f"of their covalent radii: in training {float(shortest[z]):.2f} to {float(longest[z]):.2f}"
    )
