"""Draw genes and species from the gene network, one decision at a time, with per-crystal random numbers.

A decision is an inverse-CDF draw in float64 from the crystal's own generator, so a crystal does not depend
on which others share its batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.constraints import GeneRequest
from autoperi.gene_batch import GeneBatch, composition_hint
from autoperi.gene_network import GeneNetwork
from autoperi.gene_search import OrbitSearch, SpeciesSearch
from autoperi.wyckoff import wyckoff_table


@dataclass(frozen=True)
class DrawConfig:
    """How choices are made from the network's logits.

    Attributes:
        new_genes: share of crystals whose gene is drawn until it is none of the known ones; the others take
            the first gene that comes, which is new as often as the network has learned.
        guidance: factor of classifier-free guidance on the conditions: 1 uses the conditional
            distribution as learned, larger values exaggerate the condition (arXiv:2207.12598).
        sweeps: rounds in which a random half of the drawn species is hidden and drawn again given the
            rest (block Gibbs): corrects early choices in the light of later ones.
        batch_size: crystals per network call; does not change the result.
    """

    new_genes: float = 0.0
    guidance: float = 1.0
    sweeps: int = 2
    batch_size: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.new_genes <= 1 or self.sweeps < 0 or self.batch_size < 1:
            raise ValueError(f"expected new_genes from 0 to 1, sweeps >= 0 and batch_size >= 1: got {self}")


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


class LetterDraw:
    """Draws genes under one request and one set of conditions.

    What may follow a prefix of orbits depends on nothing else then, so the logits of every prefix are worked
    out once: most crystals begin alike, and the search for new genes goes the same ways again and again.
    """

    def __init__(
        self,
        network: GeneNetwork,
        search: OrbitSearch,
        conditions: Float[Tensor, "1 scalars"],
        guidance: float,
    ) -> None:
        self._network, self._search, self._guidance = network, search, guidance
        self._positions = network.positions().detach()
        empty = torch.zeros(1, 0, dtype=torch.long)
        self._blank = GeneBatch(
            torch.zeros(1, dtype=torch.long), empty, empty, conditions, request_hint(search.request)
        )
        self._known: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}

    @torch.no_grad()
    def draw(self, generators: Sequence[np.random.Generator]) -> list[tuple[int, tuple[int, ...]]]:
        """One gene per generator: space group and ascending position indices, within the search's request."""
        first = wyckoff_table().group_start.tolist()
        possible = np.isin(np.arange(231), self._search.groups)
        logits = _guided(self._network, self._blank, self._network.group_logits, self._guidance)[0]
        groups = [_choose(logits, possible, rng) for rng in generators]
        chosen: list[tuple[int, ...]] = [() for _ in generators]
        states = [self._search.start] * len(generators)
        active = list(range(len(generators)))
        while active:
            rows = self._logits([(groups[i], chosen[i]) for i in active])
            going = []
            for i, row in zip(active, rows, strict=True):
                letter = _choose(row, self._search.allowed(groups[i], states[i], chosen[i]), generators[i])
                if letter < 27:
                    position = first[groups[i]] + letter
                    chosen[i] += (position,)
                    states[i] = self._search.step(states[i], position)
                    going.append(i)
            active = going
        return list(zip(groups, chosen, strict=True))

    def _logits(self, prefixes: Sequence[tuple[int, tuple[int, ...]]]) -> list[np.ndarray]:
        """Logits of what follows each prefix; all are of one length."""
        missing = [prefix for prefix in dict.fromkeys(prefixes) if prefix not in self._known]
        if missing:
            orbits = torch.tensor([o for _, o in missing], dtype=torch.long).view(len(missing), -1)
            batch = GeneBatch(
                space_group=torch.tensor([group for group, _ in missing]),
                wyckoff=orbits,
                species=torch.zeros_like(orbits),
                conditions=self._blank.conditions.expand(len(missing), -1),
                hint=self._blank.hint.expand(len(missing), -1),
            )
            rows = _guided(
                self._network,
                batch,
                lambda b: self._network.letter_logits(b, self._positions)[1][:, -1],
                self._guidance,
            )
            self._known.update(zip(missing, rows, strict=True))
        return [self._known[prefix] for prefix in prefixes]


@torch.no_grad()
def draw_hidden(
    network: GeneNetwork,
    search: SpeciesSearch,
    batch: GeneBatch,
    generators: Sequence[np.random.Generator],
    temperature: float,
    config: DrawConfig,
) -> list[list[int]]:
    """Species of every site of each crystal: given ones stay, hidden ones (0) are drawn in random order.

    A ``temperature`` below 1 favours likely chemistry.
    """
    if not temperature > 0:
        raise ValueError(f"expected a temperature above zero: got {temperature}")
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
            for active in _alike([i for i, order in enumerate(orders) if len(order) > step], atoms):
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
                    config.guidance,
                )
                for i, row in zip(active, logits, strict=True):
                    site = orders[i][step]
                    mask = search.allowed(species[i], atoms[i], site)
                    # an element repeats as often as was learned: only which one is tempered
                    if temperature != 1.0:
                        present = np.isin(np.arange(len(row)), species[i])
                        row = _tempered(row, mask, present, temperature)
                    species[i][site] = _choose(row, mask, generators[i])
    return species


def _alike(crystals: Sequence[int], sites: Sequence[Sequence[int]]) -> list[list[int]]:
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
        null = logits(replace(batch, conditions=torch.full_like(batch.conditions, torch.nan))).double()
        out = torch.where(out.isfinite(), null + guidance * (out - null), out)
    return out.cpu().numpy()


def _tempered(logits: np.ndarray, allowed: np.ndarray, kinds: np.ndarray, temperature: float) -> np.ndarray:
    """Logits at a temperature within each kind of option; the probability of each kind stays as learned.

    Tempering everything would also move the number of elements per crystal away from the data.
    """
    out = np.where(allowed, logits, -np.inf)
    for kind in np.unique(kinds[np.isfinite(out)]):
        part = kinds == kind
        mass, scaled = _log_sum_exp(out[part]), out[part] / temperature
        out[part] = scaled - _log_sum_exp(scaled) + mass
    return out


def _log_sum_exp(x: np.ndarray) -> float:
    top = x.max()
    return float(top + np.log(np.exp(x - top).sum()))


def _choose(logits: np.ndarray, allowed: np.ndarray, rng: np.random.Generator) -> int:
    """Inverse-CDF draw among the allowed options."""
    options = np.flatnonzero(allowed & np.isfinite(logits))
    if len(options) == 0:
        raise RuntimeError(
            "no option is left from which the request can be met: this is a bug, please report it"
        )
    left = logits[options]
    cumulative = np.exp(left - left.max()).cumsum()
    drawn = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return int(options[min(int(drawn), len(options) - 1)])
