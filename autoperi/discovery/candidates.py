"""Candidates for the crystal of a formula: templates by the learned ranker, and the prior's own genes."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from ase.data import chemical_symbols
from pymatgen.core import Structure

from autoperi.crystals.crystal import Crystal
from autoperi.discovery.ranker import CandidateRanker, ExchangeBatch, Facts
from autoperi.discovery.templates import Exchanges, Templates, gene_with_species
from autoperi.generator import CrystalGenerator
from autoperi.genes.request import GeneRequest
from evaluation.metrics.reconstruction import CDVAE_MATCH

_MORE = 20
"""Genes beyond those asked for that are looked at, as many are one crystal."""
_STRANGE, _FEW = 0.1, 3
"""The learned prior is asked too where the nearest template is farther, or where there are fewer."""
_DRAWS, _PART = 8, 4
"""Of the learned prior for a formula; they take the place of one candidate in so many at most."""
_UNLIKE = 1.0
"""Distance of what has no template."""


@dataclass(frozen=True)
class Candidate:
    """A crystal that a formula may have, before relaxation.

    Attributes:
        crystal: with start, relative and distance in its provenance.
        facts: what the ranker reads of it.
    """

    crystal: Crystal
    facts: Facts


@dataclass(frozen=True)
class CellRequest:
    """What is asked of the cell of every crystal; nothing by default.

    Attributes:
        atoms: in the primitive cell.
        space_group: its ITA number.
    """

    atoms: int | None = None
    space_group: int | None = None

    def request_of(self, formula: str) -> GeneRequest:
        """The same for a formula, as the learned prior is asked."""
        return GeneRequest(
            formula=formula,
            n_atoms=None if self.atoms is None else (self.atoms, self.atoms),
            space_groups=None if self.space_group is None else [self.space_group],
        )


class Proposals:
    """Candidates of formulas from a checkpoint.

    Args:
        generator: carries training crystals with their geometry.
        ranker: the learned ranker.

    Raises:
        ValueError: the checkpoint carries no training crystals.
    """

    def __init__(self, generator: CrystalGenerator, ranker: CandidateRanker) -> None:
        relatives = generator.relatives()
        if relatives is None:
            raise ValueError(
                f"checkpoint {generator.name!r} carries no geometry of training crystals: train it anew"
            )
        self.generator, self.ranker = generator, ranker
        self.templates = Templates(relatives)

    def of(
        self, formula: Mapping[int, int], n: int, seed: int = 0, cell: CellRequest | None = None
    ) -> list[Candidate]:
        """At most n different candidates, in no order that means anything.

        Of genes whose crystals match (`CDVAE_MATCH`) the likeliest is kept, with the votes of all.

        Args:
            formula: atoms per formula unit by atomic number.
            n: how many.
            seed: of what the learned prior draws.
            cell: what is asked of all of them.
        """
        cell = cell or CellRequest()
        exchanges = self.templates.exchanges(formula, cell.atoms, cell.space_group)
        strange = float(exchanges.distance[~exchanges.known].min(initial=np.inf))
        told = partial(Facts, support=0.0, nearest=min(strange, _UNLIKE))
        distinct = _Distinct()
        found = self._from_templates(exchanges, n, told, distinct) if len(exchanges) else []
        drawn: list[Candidate] = []
        if len(found) < min(n, _FEW) or strange > _STRANGE:
            text = "".join(f"{chemical_symbols[z]}{n}" for z, n in formula.items())
            drawn = self._from_prior(cell.request_of(text), seed, exchanges, told, distinct)
        supported = [
            replace(c, facts=replace(c.facts, support=support))
            for c, support in zip(found + drawn, distinct.support, strict=True)
        ]
        kept = min(len(found), max(n - len(drawn), n - n // _PART))
        return (supported[:kept] + supported[len(found) :])[:n]

    def _from_templates(
        self, exchanges: Exchanges, n: int, told: Callable[..., Facts], distinct: "_Distinct"
    ) -> list[Candidate]:
        """The likeliest first."""
        batch = ExchangeBatch.of([exchanges], self.templates)
        with torch.no_grad():
            chances = self.ranker.genes(batch).softmax(dim=1)[0].numpy()
            likeness = self.ranker.genes.likeness(batch)[0].numpy()
        order = np.argsort(-chances[: exchanges.gene.max() + 1], kind="stable")[: n + _MORE]
        found: list[Candidate] = []
        for gene in order.tolist():
            own = np.flatnonzero(exchanges.gene == gene)
            best = int(own[likeness[own].argmax()])
            crystal, chance = self._exchanged(exchanges, best), float(chances[gene])
            if distinct.add(crystal, chance):
                distance, known = float(exchanges.distance[best]), bool(exchanges.known[own].any())
                facts = told(
                    chance=chance, distance=distance, known=known, drawn=False, atoms=crystal.n_atoms
                )
                found.append(Candidate(crystal, facts))
            if len(found) == n:
                break
        return found

    def _exchanged(self, exchanges: Exchanges, exchange: int) -> Crystal:
        row = int(exchanges.row[exchange])
        crystal = self.templates.relatives.renamed(row, exchanges.elements(exchange))
        told = {
            "start": "template",
            "relative": self.templates.relatives.ids[row],
            "distance": round(float(exchanges.distance[exchange]), 4),
        }
        return replace(crystal, provenance=told)

    def _from_prior(
        self,
        request: GeneRequest,
        seed: int,
        exchanges: Exchanges,
        told: Callable[..., Facts],
        distinct: "_Distinct",
    ) -> list[Candidate]:
        """Of the genes that the learned prior draws those that no template gives, the likeliest first."""
        firsts = np.unique(exchanges.gene, return_index=True)[1].tolist()
        given = {self.templates.gene(exchanges, k) for k in firsts}
        genes = self.generator.learned_genes().sample(range(_DRAWS), seed, request)
        names = [gene_with_species(g.space_group, g.wyckoff, g.species.tolist()) for g in genes]
        counts = Counter(name for name in names if name not in given).most_common()
        drawn = self.generator.draw([genes[names.index(name)] for name, _ in counts], seed)
        found: list[Candidate] = []
        for crystal, (_, count) in zip(drawn, counts, strict=True):
            chance = count / _DRAWS
            if distinct.add(crystal, chance):
                distance = min(float(crystal.provenance.get("distance", _UNLIKE)), _UNLIKE)
                facts = told(chance=chance, distance=distance, known=False, drawn=True, atoms=crystal.n_atoms)
                found.append(Candidate(crystal, facts))
        return found


def reduced(structure: Structure) -> Structure:
    """Primitive Niggli cell: what a matcher compares with ``skip_structure_reduction``."""
    return structure.get_reduced_structure("niggli").get_primitive_structure()


class _Distinct:
    """Crystals of one composition no two of which match, and the chances of all that match each."""

    def __init__(self) -> None:
        self._matcher = CDVAE_MATCH.matcher()
        self._reduced: list[Structure] = []
        self.support: list[float] = []

    def add(self, crystal: Crystal, chance: float) -> bool:
        """Take a crystal in, or give its chance to those that it matches."""
        structure = reduced(crystal.to_structure())
        same = [
            k
            for k, other in enumerate(self._reduced)
            if len(other) == len(structure)
            and self._matcher.fit(structure, other, skip_structure_reduction=True)
        ]
        for k in same:
            self.support[k] += chance
        if not same:
            self._reduced.append(structure)
            self.support.append(chance)
        return not same
