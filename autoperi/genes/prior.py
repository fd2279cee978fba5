"""The learned prior over gene and species, p(space group, Wyckoff letters, species | targets).

It honours a `GeneRequest` exactly and seeds crystal i by (seed, i), so neither batch size nor the number of
crystals changes what crystal i is.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.wyckoff import relabellings
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.kin import KIN, KinDistances
from autoperi.genes.critics.real import GeneCritic
from autoperi.genes.draw import LetterDraw, draw_hidden, request_hint
from autoperi.genes.empirical import gene_crystal
from autoperi.genes.likelihood import gene_log_prob, species_log_prob
from autoperi.genes.network import GeneNetwork
from autoperi.genes.request import GeneRequest
from autoperi.genes.search import OrbitSearch, SpeciesSearch
from autoperi.genes.settings import DrawConfig
from autoperi.networks.condition import Targets

_ATTEMPTS = (8, 16, 32, 64, 40)
"""Genes drawn at once in search of a new one; who finds none keeps the first: 0.1% where 1 in 24 is new.
Later rounds serve few crystals, so they draw more for each."""
_CANDIDATES, _CHOSEN = (1, 1, 2, 4, 8), (1, 1, 1, 2, 3, 4, 6, 14)
"""Crystals drawn at once for one that the critic accepts, and for one that is chosen too."""

Excess = Callable[[Sequence[Crystal]], Sequence[float]]
"""How far crystals miss what they are chosen by; those at 0 or below do not."""


class LearnedGenes:
    """Genes and species from the trained network.

    Args:
        network: trained.
        known: first names (`relabellings`) of the genes that are not new; those of the training set.
        critic: trained on this network's draws, accepts or refuses each; without one all are kept.
        kin: finds relatives in the training set, which the critic asks for; without it nobody has any.
    """

    def __init__(
        self,
        network: GeneNetwork,
        known: Collection[tuple[int, ...]] = (),
        critic: GeneCritic | None = None,
        kin: KinDistances | None = None,
    ) -> None:
        self.network, self.known = network.eval(), frozenset(known)
        self.critic = critic.eval() if critic is not None else None
        self.kin = kin or (lambda crystals: torch.full((len(crystals), KIN), torch.inf))
        self._letters: dict[tuple[GeneRequest, float | None], LetterDraw] = {}

    def is_new(self, space_group: int, wyckoff: Sequence[int]) -> bool:
        """Whether no known gene is this one, whatever origin and axes it is written in."""
        return relabellings(space_group, tuple(wyckoff))[0][0] not in self.known

    def sample(
        self,
        numbers: Sequence[int],
        seed: int,
        request: GeneRequest | None = None,
        targets: Targets | None = None,
        species: bool = True,
        config: DrawConfig | None = None,
        attempt: int = 0,
        excess: Excess | None = None,
    ) -> list[Crystal]:
        """Draw space group, orbits and (if asked) species of each number's crystal.

        Where species are drawn and there is a critic, a crystal is drawn anew until the critic accepts it or
        sixteen have been drawn, those that are to have a new gene among themselves; then the last is kept.
        Where crystals are also chosen (``excess``) it is one of thirty-two, or the one that misses least.
        ``provenance["new_gene"]`` says which genes are new. Where a new one is wanted (``config.new_genes``)
        and none turns up in 160 draws, because the request leaves none, the first gene drawn is kept.

        Args:
            numbers: of the crystals; number i is drawn from (seed, i).
            seed: of all randomness.
            request: hard constraints, met exactly.
            targets: of each crystal, in the same order.
            species: whether to draw them; else they stay open (0).
            config: how choices are made.
            attempt: further ones take other random numbers.
            excess: by which whole crystals are chosen.

        Raises:
            ValueError: an impossible request, refused before anything is drawn.
        """
        request, config = request or GeneRequest(), config or DrawConfig()
        targets = targets or self._nothing(len(numbers))
        rows = {i: row for row, i in enumerate(numbers)}
        counts = _CHOSEN if excess else _CANDIDATES if self.critic else (1,)
        first = attempt * sum(counts)
        if not species:
            return self._genes([(i, first) for i in numbers], seed, request, targets, config)
        drawn: dict[int, tuple[float, Crystal]] = {}
        refused = list(numbers)
        for count in counts:
            tries = [(i, k) for i in refused for k in range(first, first + count)]
            own = targets.select([rows[i] for i, _ in tries])
            genes = self._genes(tries, seed, request, own, config)
            keys = [(seed, i, 1, k) for i, k in tries]
            crystals = self._with_species(genes, keys, request, own, config)
            kept = self._kept(crystals, tries, seed)
            missed = excess(crystals) if excess else [0.0] * len(crystals)
            accepted: set[int] = set()
            for (i, _), crystal, likely, miss in zip(tries, crystals, kept, missed, strict=True):
                if i not in accepted and (i not in drawn or miss <= max(drawn[i][0], 0.0)):
                    drawn[i] = max(miss, 0.0), crystal
                    accepted |= {i} if likely and miss <= 0 else set()
            refused, first = [i for i in refused if i not in accepted], first + count
            if not refused:
                break
        return [drawn[i][1] for i in numbers]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle takes along: not what was remembered of prefixes."""
        return {**self.__dict__, "_letters": {}}

    def _nothing(self, crystals: int) -> Targets:
        return self.network.condition.targets([{}] * crystals)

    def _letter_draw(self, request: GeneRequest, targets: Targets) -> LetterDraw:
        """One for all workers and calls with the same request: what a prefix leads to is worked out once."""
        guidance = targets.guidance if targets.guided else None
        key = (request, guidance)
        found = self._letters.get(key)
        if found is None:
            search = OrbitSearch(request, self.network.config.n_max)
            made = LetterDraw(self.network, search, guidance)
            if key not in self._letters:
                self._letters.clear()
            found = self._letters.setdefault(key, made)
        return found

    def _kept(self, crystals: Sequence[Crystal], tries: Sequence[tuple[int, int]], seed: int) -> list[bool]:
        """Whether the critic accepts each."""
        if self.critic is None:
            return [True] * len(crystals)
        chance = self.critic.acceptance(GeneBatch.from_crystals(crystals), self.kin(crystals)).tolist()
        return [
            np.random.default_rng([seed, i, 4, k]).random() < p
            for (i, k), p in zip(tries, chance, strict=True)
        ]

    def _genes(
        self,
        tries: Sequence[tuple[int, int]],
        seed: int,
        request: GeneRequest,
        targets: Targets,
        config: DrawConfig,
    ) -> list[Crystal]:
        """Crystals without species, each by its number and the number of the try."""
        letters = self._letter_draw(request, targets)
        genes: list[tuple[int, tuple[int, ...]]] = []
        for start in range(0, len(tries), config.batch_size):
            some = tries[start : start + config.batch_size]
            generators = [np.random.default_rng([seed, i, 0, k]) for i, k in some]
            genes += letters.draw(generators, targets.values[start : start + config.batch_size])
        if request.gene is None:
            wanted = {
                row: (seed, i, 3, k)
                for row, (i, k) in enumerate(tries)
                if np.random.default_rng([seed, i, 2]).random() < config.new_genes
                and not self.is_new(*genes[row])
            }
            for row, gene in self._new(wanted, letters, targets).items():
                genes[row] = gene
        origin = {"seed": seed, "gene_prior": "learned"}
        return [
            gene_crystal(g, o, np.zeros(len(o)), {**origin, "index": i, "new_gene": int(self.is_new(g, o))})
            for (g, o), (i, _) in zip(genes, tries, strict=True)
        ]

    def _new(
        self, keys: dict[int, tuple[int, ...]], letters: LetterDraw, targets: Targets
    ) -> dict[int, tuple[int, tuple[int, ...]]]:
        """The first new gene that each key draws."""
        found: dict[int, tuple[int, tuple[int, ...]]] = {}
        attempt = 0
        for count in _ATTEMPTS:
            tries = [(k, t) for k in keys if k not in found for t in range(attempt, attempt + count)]
            generators = [np.random.default_rng([*keys[k], t]) for k, t in tries]
            genes = letters.draw(generators, targets.values[[k for k, _ in tries]])
            for (k, _), gene in zip(tries, genes, strict=True):
                if k not in found and self.is_new(*gene):
                    found[k] = gene
            attempt += count
        return found

    def draw_species(
        self,
        crystals: Sequence[Crystal],
        numbers: Sequence[int],
        seed: int,
        request: GeneRequest | None = None,
        targets: Targets | None = None,
        config: DrawConfig | None = None,
        attempt: int = 0,
    ) -> list[Crystal]:
        """Species of the sites that have none (0), given the genes and the species already there.

        Each crystal is drawn from (seed, its number). Geometry is kept with its site.

        Raises:
            ValueError: a crystal whose gene or given species cannot meet the request.
        """
        keys = [(seed, i, 1, attempt) if attempt else (seed, i, 1) for i in numbers]
        request, config = request or GeneRequest(), config or DrawConfig()
        return self._with_species(crystals, keys, request, targets or self._nothing(len(crystals)), config)

    def _with_species(
        self,
        crystals: Sequence[Crystal],
        keys: Sequence[tuple[int, ...]],
        request: GeneRequest,
        targets: Targets,
        config: DrawConfig,
    ) -> list[Crystal]:
        """Crystals with the species that each key draws."""
        search = SpeciesSearch(request)
        for i, c in enumerate(crystals):
            if not search.accepts(c.species.tolist(), c.multiplicities.tolist()):
                raise ValueError(
                    f"crystal {i} (gene {c.gene}, species {c.species.tolist()}, 0 = open) cannot become "
                    f"{request}: change its gene, its given species or the request"
                )
        ordered = [_canonical(c) for c in crystals]
        hint = request_hint(request)
        # neighbours in size share a batch, which spares padding and changes nothing else
        by_size = np.argsort([c.n_sites for c in ordered], kind="stable")
        out: list[Crystal | None] = [None] * len(ordered)
        for numbers in np.split(by_size, range(config.batch_size, len(ordered), config.batch_size)):
            if len(numbers) == 0:
                continue
            batch = GeneBatch.from_crystals([ordered[i] for i in numbers])
            own = targets.select(numbers.tolist())
            batch = replace(batch, conditions=own.values, hint=hint.expand(len(batch), -1))
            generators = [np.random.default_rng(keys[i]) for i in numbers]
            drawn = draw_hidden(self.network, search, batch, generators, own.guidance, config)
            for i, named in zip(numbers, drawn, strict=True):
                _, order = relabellings(ordered[i].space_group, tuple(ordered[i].wyckoff.tolist()))[0]
                species = np.empty(len(order), dtype=np.int64)
                species[list(order)] = named
                out[i] = _canonical(replace(ordered[i], species=species))
        return [c for c in out if c is not None]

    def log_prob(
        self, crystals: Sequence[Crystal], seed: int = 0, batch_size: int = 64
    ) -> Float[Tensor, "crystals 2"]:
        """Natural log-probability of each gene (exact) and of its species (a lower bound in expectation).

        They are those of the network alone: a critic adds its log-ratio and a constant.
        The gene's is that of the unconditional sampler at temperature 1, under any of its names; crystals
        beyond ``n_max`` atoms are scored as if that were no limit. The species' is along one random order of
        the sites, drawn from (seed, i), summed over the equivalent labellings of sites on the same position.
        """
        out = torch.zeros(len(crystals), 2, dtype=torch.float64)
        by_size = np.argsort([c.n_sites for c in crystals], kind="stable")
        for numbers in np.split(by_size, range(batch_size, len(crystals), batch_size)):
            if len(numbers):
                chosen = [crystals[i] for i in numbers]
                unasked = [replace(c, properties={}) for c in chosen]
                batch = GeneBatch.from_crystals(unasked, self.network.condition.conditions)
                generators = [np.random.default_rng([seed, int(i)]) for i in numbers]
                index = torch.from_numpy(numbers)
                out[index, 0] = gene_log_prob(self.network, batch)
                out[index, 1] = species_log_prob(self.network, batch, generators)
        return out


def _canonical(crystal: Crystal) -> Crystal:
    """Sites by position index, then species, then free coordinates."""
    order = np.lexsort((*crystal.free.T[::-1], crystal.species, crystal.wyckoff))
    return replace(
        crystal,
        wyckoff=crystal.wyckoff[order],
        species=crystal.species[order],
        free=crystal.free[order],
    )
