"""Draw genes and species from the gene network, one decision at a time, with per-crystal random numbers.

A decision is an inverse-CDF draw in float64 from the crystal's own generator, so a crystal does not depend
on which others share its batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isnan, nan

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.genes.batch import GeneBatch, composition_hint
from autoperi.genes.network import GeneNetwork
from autoperi.genes.request import GeneRequest
from autoperi.genes.search import OrbitSearch, SpeciesSearch
from autoperi.genes.settings import DrawConfig


def request_hint(request: GeneRequest) -> Float[Tensor, "1 hint"]:
    """What the request says about the composition, as the network was told in training."""
    amounts, ratios, system = request.amounts(), request.ratios(), request.system()
    if amounts is not None:
        kind, species, atoms = 2, list(amounts), list(amounts.values())
    elif ratios is not None:
        kind, species, atoms = 3, list(range(1, len(ratios) + 1)), list(ratios)
    elif system is not None:
        kind, species, atoms = 1, sorted(system), [1] * len(system)
    else:
        kind, species, atoms = 0, [0], [0]
    return composition_hint(torch.tensor([species]), torch.tensor([atoms]), torch.tensor([kind]))


_Row = tuple[float | None, ...]
"""Targets of a crystal, None where nothing is asked."""
_Prefix = tuple[_Row, tuple[int, tuple[int, ...]] | None]
"""Targets, then space group and positions so far; None before the group is drawn."""
_REMEMBERED = 30_000
"""Prefixes, some 6 kB each, beyond which a draw begins to learn them anew."""


@dataclass(frozen=True)
class _Memory:
    """What was made of a prefix."""

    following: "_Options"
    state: tuple[int, ...]
    """Of the search (`OrbitSearch`)."""
    tokens: Float[Tensor, "1 streams depth 2 width"]
    """Keys and values of its last token; streams are with conditions and, for guidance, without."""


class LetterDraw:
    """Draws genes under one request.

    What may follow a prefix of orbits depends on the crystal's targets and nothing else then, so every prefix
    is read once, and of it only the last token: most crystals begin alike, and the search for new genes goes
    the same ways again and again.
    """

    def __init__(self, network: GeneNetwork, search: OrbitSearch, guidance: float | None) -> None:
        """Draw as the network has learned, or, with guidance, mixed with its unconditional self."""
        self._network, self._search, self._guidance = network, search, guidance
        self._positions = network.positions().detach()
        self._hint = request_hint(search.request)
        streams = 1 if guidance is None else 2
        self._nothing = self._positions.new_zeros(0, streams, network.config.depth, 2, network.config.width)
        self._known: dict[_Prefix, _Memory] = {}

    @torch.no_grad()
    def draw(
        self, generators: Sequence[np.random.Generator], values: Float[Tensor, "crystals scalars"]
    ) -> list[tuple[int, tuple[int, ...]]]:
        """One gene per generator: space group and ascending position indices, within the search's request."""
        if len(self._known) > _REMEMBERED:
            self._known = {}
        known = self._known  # a draw in another thread may begin a new one meanwhile
        first = wyckoff_table().group_start.tolist()
        rows: list[_Row] = [tuple(None if isnan(v) else v for v in row) for row in values.tolist()]
        starts = self._read(known, [(row, None) for row in rows])
        groups = [start.following.choose(rng) for start, rng in zip(starts, generators, strict=True)]
        chosen: list[tuple[int, ...]] = [() for _ in generators]
        active = list(range(len(generators)))
        while active:
            memories = self._read(known, [(rows[i], (groups[i], chosen[i])) for i in active])
            going = []
            for i, memory in zip(active, memories, strict=True):
                letter = memory.following.choose(generators[i])
                if letter < 27:
                    chosen[i] += (first[groups[i]] + letter,)
                    going.append(i)
            active = going
        return list(zip(groups, chosen, strict=True))

    def _read(self, known: dict[_Prefix, _Memory], prefixes: Sequence[_Prefix]) -> list[_Memory]:
        """What is made of each prefix; all are of one length, and what they begin with is known."""
        missing = [prefix for prefix in dict.fromkeys(prefixes) if prefix not in known]
        if missing:
            orbits = torch.tensor([gene[1] if gene else () for _, gene in missing], dtype=torch.long)
            orbits = orbits.view(len(missing), -1)
            values = [[nan if v is None else v for v in row] for row, _ in missing]
            batch = GeneBatch(
                space_group=torch.tensor([gene[0] if gene else 0 for _, gene in missing]),
                wyckoff=orbits,
                species=torch.zeros_like(orbits),
                conditions=torch.tensor(values).to(self._positions),
                hint=self._hint.expand(len(missing), -1),
            )
            before = [[known[p] for p in _beginnings(prefix)] for prefix in missing]
            past = [memory.tokens for memories in before for memory in memories]
            logits, tokens = self._next(batch.to(self._positions.device), past)
            for prefix, memories, row, own in zip(
                missing, before, logits.cpu().numpy(), tokens.split(1), strict=True
            ):
                known[prefix] = self._memory(prefix, memories, row, own)
        return [known[prefix] for prefix in prefixes]

    def _memory(
        self, prefix: _Prefix, before: Sequence[_Memory], logits: np.ndarray, tokens: Tensor
    ) -> _Memory:
        """What may follow a prefix within the request, and how likely it is."""
        state = before[-1].state if before else self._search.start
        _, gene = prefix
        if gene is None:
            allowed = np.isin(np.arange(231), self._search.groups)
        else:
            group, orbits = gene
            state = self._search.step(state, orbits[-1]) if orbits else state
            allowed = self._search.allowed(group, state, orbits)
        return _Memory(_Options.of(logits, allowed), state, tokens)

    def _next(self, batch: GeneBatch, past: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits of each prefix in float64, and its last token in every stream."""
        before = torch.cat([self._nothing, *past]).unflatten(0, (len(batch), len(past) // len(batch)))
        streams = [batch] if self._guidance is None else [batch, _unconditional(batch)]
        found = [
            self._network.next_letter(part, self._positions, before[:, :, k].transpose(1, 2))
            for k, part in enumerate(streams)
        ]
        logits, *without = (rows.double() for rows, _ in found)
        if self._guidance is not None:
            logits = _exaggerated(logits, without[0], self._guidance)
        return logits, torch.stack([tokens for _, tokens in found], dim=1)


def _unconditional(batch: GeneBatch) -> GeneBatch:
    """The same crystals with nothing asked of them."""
    return replace(batch, conditions=torch.full_like(batch.conditions, torch.nan))


def _beginnings(prefix: _Prefix) -> list[_Prefix]:
    """What a prefix begins with, from nothing to all but its last token."""
    row, gene = prefix
    if gene is None:
        return []
    group, orbits = gene
    return [(row, None), *((row, (group, orbits[:n])) for n in range(len(orbits)))]


@torch.no_grad()
def draw_hidden(
    network: GeneNetwork,
    search: SpeciesSearch,
    batch: GeneBatch,
    generators: Sequence[np.random.Generator],
    guidance: float,
    config: DrawConfig,
) -> list[list[int]]:
    """Species of every site of each crystal: given ones stay, hidden ones (0) are drawn in random order."""
    wyckoff = [[p for p in row if p >= 0] for row in batch.wyckoff.tolist()]
    table = wyckoff_table().multiplicity.tolist()
    atoms = [[table[p] for p in row] for row in wyckoff]
    species = [row[: len(w)] for row, w in zip(batch.species.tolist(), wyckoff, strict=True)]
    hidden = [[k for k, z in enumerate(row) if not z] for row in species]
    positions = network.positions()
    for sweep in range(1 + config.sweeps):
        orders = []
        for i, rng in enumerate(generators):
            order = rng.permutation(hidden[i]).astype(int).tolist()
            if sweep:
                order = order[: (len(order) + 1) // 2] if len(order) > 1 else []
                for k in order:
                    species[i][k] = 0
            orders.append(order)
        for step in range(max(map(len, orders), default=0)):
            for active in _crystals_of_like_size(
                [i for i, order in enumerate(orders) if len(order) > step], atoms
            ):
                part = batch.take(torch.tensor(active))
                filled = torch.zeros_like(part.species)
                for row, i in zip(filled, active, strict=True):
                    row[: len(species[i])] = torch.tensor(species[i])
                where = torch.tensor([orders[i][step] for i in active])
                rows = torch.arange(len(active))
                logits = _guided(
                    network,
                    replace(part, species=filled),
                    lambda b, rows=rows, where=where: network.species_logits(b, rows, where, positions),
                    guidance,
                )
                for i, row in zip(active, logits, strict=True):
                    site = orders[i][step]
                    mask = search.allowed(species[i], atoms[i], site)
                    # an element repeats as often as was learned: only which one is tempered
                    if config.temperature != 1.0:
                        present = np.isin(np.arange(len(row)), species[i])
                        row = _tempered(row, mask, present, config.temperature)
                    species[i][site] = _Options.of(row, mask).choose(generators[i])
    return species


def _crystals_of_like_size(crystals: Sequence[int], sites: Sequence[Sequence[int]]) -> list[list[int]]:
    """Crystals in parts of like numbers of sites, which spares most of the padding."""
    by_size = sorted(crystals, key=lambda i: len(sites[i]))
    cuts = [0, len(by_size) // 2, 7 * len(by_size) // 8, len(by_size)]
    return [by_size[a:b] for a, b in pairwise(cuts) if b > a]


def _guided(
    network: GeneNetwork,
    batch: GeneBatch,
    logits: Callable[[GeneBatch], Tensor],
    guidance: float,
) -> np.ndarray:
    """Logits with classifier-free guidance on the scalar conditions, in float64."""
    batch = batch.to(network.multiplicity.device)
    out = logits(batch).double()
    if guidance != 1.0 and not bool(batch.conditions.isnan().all()):
        null = logits(_unconditional(batch)).double()
        out = _exaggerated(out, null, guidance)
    return out.cpu().numpy()


def _exaggerated(logits: Tensor, without: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance; what is impossible stays so."""
    return torch.where(logits.isfinite(), without + guidance * (logits - without), logits)


def _tempered(logits: np.ndarray, allowed: np.ndarray, kinds: np.ndarray, temperature: float) -> np.ndarray:
    """Logits at a temperature within each kind of option; the probability of each kind stays as learned.

    Tempering everything would also move the number of elements per crystal away from the data.
    """
    out = np.where(allowed, logits, -np.inf)
    for kind in np.unique(kinds[np.isfinite(out)]):
        part = kinds == kind
        mass, scaled = _log_sum_exp(out[part]), (out[part] - out[part].max()) / temperature
        out[part] = scaled - _log_sum_exp(scaled) + mass
    return out


def _log_sum_exp(x: np.ndarray) -> float:
    top = x.max()
    return float(top + np.log(np.exp(x - top).sum()))


@dataclass(frozen=True)
class _Options:
    """What may be drawn, with cumulative weights."""

    numbers: np.ndarray
    cumulative: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, allowed: np.ndarray) -> "_Options":
        """The allowed ones; raises RuntimeError where there are none."""
        numbers = np.flatnonzero(allowed & np.isfinite(logits))
        if len(numbers) == 0:
            raise RuntimeError(
                "no option is left from which the request can be met: this is a bug, please report it"
            )
        left = logits[numbers]
        return cls(numbers, np.exp(left - left.max()).cumsum())

    def choose(self, rng: np.random.Generator) -> int:
        """Inverse-CDF draw."""
        drawn = self.cumulative.searchsorted(rng.random() * self.cumulative[-1], side="right")
        return int(self.numbers[min(int(drawn), len(self.numbers) - 1)])
