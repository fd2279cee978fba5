"""Candidates for the crystal of a formula: templates by the learned ranker, and the prior's own genes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from heapq import heapify, heappop, heappush

import numpy as np
import torch
from ase.data import chemical_symbols
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from autoperi.crystals.crystal import Crystal
from autoperi.discovery.ranker import CandidateRanker, ExchangeBatch, Facts
from autoperi.discovery.templates import Exchanges, Templates, gene_with_species
from autoperi.generator import CrystalGenerator
from autoperi.genes.request import GeneRequest
from evaluation.facts.matching import MatchSettings
from evaluation.metrics.reconstruction import CDVAE_MATCH

TWINS = MatchSettings(ltol=0.1, stol=0.2, angle_tol=4.0)
"""Candidates that match so closely are one: those that match by `CDVAE_MATCH` alone may hit or miss apart."""
_MORE = 40
"""Exchanges beyond those asked for that are looked at, as many are one crystal."""
_LOOKED, _AGAIN = 5, 0.15
"""Exchanges of a gene looked through for a second geometry, and how likely that is for the first."""
_CUBIC = 195
"""The first of the groups in which a gene without free coordinates has one geometry."""
_STRANGE, _FEW, _DRAWS = 0.1, 3, 8
"""The nearest template being farther, or with fewer found, so many draws of the prior fill free places."""
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
        self,
        formula: Mapping[int, int],
        n: int,
        seed: int = 0,
        cell: CellRequest | None = None,
        known_first: bool = True,
    ) -> list[Candidate]:
        """At most n different candidates, in no order that means anything.

        Of crystals that are one (`TWINS`) the likeliest is kept; a likelier one has the votes of those that
        match it (`CDVAE_MATCH`) too, or a less likely one of the kind might come before it.

        Args:
            formula: atoms per formula unit by atomic number.
            n: how many.
            seed: of what the learned prior draws.
            cell: what is asked of all of them.
            known_first: training crystals of the formula itself have their places before all others.
        """
        cell = cell or CellRequest()
        exchanges = self.templates.exchanges(formula, cell.atoms, cell.space_group)
        strange = float(exchanges.distance[~exchanges.known].min(initial=np.inf))
        told = partial(Facts, support=0.0, nearest=min(strange, _UNLIKE))
        distinct = _Distinct()
        found = self._from_templates(exchanges, n, told, distinct, known_first) if len(exchanges) else []
        drawn: list[Candidate] = []
        if len(found) < min(n, _FEW) or (len(found) < n and strange > _STRANGE):
            text = "".join(f"{chemical_symbols[z]}{n}" for z, n in formula.items())
            drawn = self._from_prior(cell.request_of(text), seed, exchanges, told, distinct)
        supported = [
            replace(c, facts=replace(c.facts, support=support))
            for c, support in zip(found + drawn, distinct.support, strict=True)
        ]
        return supported[:n]

    def _from_templates(
        self,
        exchanges: Exchanges,
        n: int,
        told: Callable[..., Facts],
        distinct: "_Distinct",
        known_first: bool,
    ) -> list[Candidate]:
        """The known ones, where these come first, then the likeliest.

        Of likely genes a second geometry has a place too, if it matches nothing that is there.
        """
        batch = ExchangeBatch.of([exchanges], self.templates)
        with torch.no_grad():
            chances = self.ranker.genes(batch).softmax(dim=1)[0].tolist()
            likeness = self.ranker.genes.likeness(batch)[0].numpy()
        of_gene: dict[int, list[int]] = defaultdict(list)
        for k in np.argsort(-likeness, kind="stable").tolist():
            of_gene[int(exchanges.gene[k])].append(k)

        def entry(gene: int, place: int) -> tuple[bool, float, int, int]:
            known = known_first and bool(exchanges.known[of_gene[gene][place]])
            return not known, -chances[gene] * (_AGAIN if place else 1), gene, place

        queue = [entry(gene, 0) for gene in of_gene]
        heapify(queue)
        found: list[Candidate] = []
        looked = 0
        while queue and len(found) < n and looked < n + _MORE:
            new, minus, gene, place = heappop(queue)
            exchange, again = of_gene[gene][place], new and place > 0
            crystal, looked = self._exchanged(exchanges, exchange), looked + 1
            taken = distinct.add(crystal, -minus, alone=again)
            if taken:
                facts = told(
                    chance=-minus,
                    distance=float(exchanges.distance[exchange]),
                    known=bool(exchanges.known[exchange]),
                    drawn=False,
                    atoms=crystal.n_atoms,
                )
                found.append(Candidate(crystal, facts))
            rigid = crystal.n_free == 0 and crystal.space_group >= _CUBIC
            if place + 1 < len(of_gene[gene]) and not rigid and not (again and taken):
                following = entry(gene, place + 1)
                if place + 1 < _LOOKED or not following[0]:
                    heappush(queue, following)
        return found

    def _exchanged(self, exchanges: Exchanges, exchange: int) -> Crystal:
        row = int(exchanges.row[exchange])
        crystal = self.templates.relatives.renamed(row, exchanges.elements(exchange))
        told = {
            "start": "template",
            "relative": self.templates.relatives.ids[row],
            "distance": round(float(exchanges.distance[exchange]), 4),
        }
        if exchanges.known[exchange]:
            told["known"] = told["relative"]
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
    """Crystals of one composition no two of which are one, and the chances of all that match each."""

    def __init__(self) -> None:
        self._alike, self._twins = CDVAE_MATCH.matcher(), TWINS.matcher()
        self._reduced: list[Structure] = []
        self.support: list[float] = []

    def add(self, crystal: Crystal, chance: float, alone: bool = False) -> bool:
        """Take a crystal in unless it is there already; its chance goes to those there that it matches.

        One that is taken in ``alone`` must match nothing, and what it matches gets nothing of it.
        """
        structure = reduced(crystal.to_structure())
        matching = (k for k in range(len(self._reduced)) if self._match(self._alike, structure, k))
        if alone and next(matching, None) is not None:
            return False
        alike = list(matching)
        for k in alike:
            self.support[k] += chance
        if any(self._match(self._twins, structure, k) for k in alike):
            return False
        self._reduced.append(structure)
        self.support.append(chance)
        return True

    def _match(self, matcher: StructureMatcher, structure: Structure, k: int) -> bool:
        other = self._reduced[k]
        alike = len(other) == len(structure)
        return alike and bool(matcher.fit(structure, other, skip_structure_reduction=True))
