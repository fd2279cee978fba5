"""Log-probabilities under the gene network: genes exactly, species by the any-order bound."""

from collections.abc import Sequence
from dataclasses import replace
from math import lgamma

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from autoperi.crystals.wyckoff import relabellings
from autoperi.genes.batch import GeneBatch
from autoperi.genes.network import GeneNetwork


@torch.no_grad()
def gene_log_prob(network: GeneNetwork, batch: GeneBatch) -> Float[Tensor, "crystals"]:
    """Exact log p(gene) of the sampler at temperature 1, in nats: the sum over all its names.

    Letters that would pass ``n_max`` atoms are excluded, as in sampling; a larger crystal sets its own limit.
    """
    names = [
        [name for name, _ in relabellings(g, tuple(p for p in w if p >= 0))]
        for g, w in zip(batch.space_group.tolist(), batch.wyckoff.tolist(), strict=True)
    ]
    gene = torch.tensor([i for i, own in enumerate(names) for _ in own])
    named = batch.select(gene.to(batch.wyckoff.device))
    rows = [[*name, *[-1] * (named.wyckoff.shape[1] - len(name))] for own in names for name in own]
    named = replace(named, wyckoff=torch.tensor(rows)).to(network.multiplicity.device)
    each = _name_log_prob(network, named)
    top = each.new_full((len(batch),), -torch.inf).scatter_reduce(0, gene, each, "amax")
    return top + each.new_zeros(len(batch)).index_add(0, gene, (each - top[gene]).exp()).log()


def _name_log_prob(network: GeneNetwork, batch: GeneBatch) -> Float[Tensor, "crystals"]:
    group, orbit = network.letter_logits(batch)
    is_site = batch.wyckoff >= 0
    atoms = network.multiplicity[batch.wyckoff.clamp(min=0)] * is_site
    limit = atoms.sum(dim=1).clamp(min=network.config.n_max)
    start = network.group_start[batch.space_group]
    candidates = (start[:, None] + torch.arange(27, device=start.device)).clamp(
        max=len(network.multiplicity) - 1
    )
    total = pad(atoms.cumsum(dim=1), (1, 0))[:, :, None] + network.multiplicity[candidates][:, None]
    too_many = pad(total > limit[:, None, None], (0, 1), value=False)
    steps = orbit.double().masked_fill(too_many, -torch.inf).log_softmax(dim=-1)
    target = pad(torch.where(is_site, batch.wyckoff - start[:, None], 27), (0, 1), value=27)
    used = pad(is_site, (1, 0), value=True)
    letters = steps.gather(-1, target[..., None])[..., 0].masked_fill(~used, 0.0).sum(dim=1)
    groups = group.double().log_softmax(dim=-1).gather(1, batch.space_group[:, None])[:, 0]
    return (groups + letters).cpu()


@torch.no_grad()
def species_log_prob(
    network: GeneNetwork, batch: GeneBatch, generators: Sequence[np.random.Generator]
) -> Float[Tensor, "crystals"]:
    """Log p(species | gene) along one random order per crystal, in nats.

    Its mean over orders is a lower bound on the log-probability of drawing in random order. Sites on the
    same position are interchangeable, so the count of distinct labellings is included.
    """
    batch = batch.to(network.multiplicity.device)
    count = (batch.wyckoff >= 0).sum(dim=1)
    out = torch.zeros(len(batch), dtype=torch.float64)
    orders = [rng.permutation(int(k)) for rng, k in zip(generators, count, strict=True)]
    positions = network.positions()
    for step in range(int(count.max())):
        rows = torch.tensor([i for i, order in enumerate(orders) if len(order) > step])
        part = batch.select(rows.to(batch.wyckoff.device))
        hide = torch.zeros(part.wyckoff.shape, dtype=torch.bool)
        for row, i in zip(hide, rows.tolist(), strict=True):
            row[torch.from_numpy(orders[i][step:])] = True
        site = torch.tensor([int(orders[i][step]) for i in rows.tolist()])
        each = torch.arange(len(rows))
        hidden = replace(part, species=part.species.masked_fill(hide.to(part.species.device), 0))
        logits = network.species_logits(hidden, each, site, positions).double().log_softmax(dim=-1)
        out[rows] += logits.gather(1, part.species[each, site][:, None])[:, 0].cpu()
    return out + torch.tensor([_labellings(w, z) for w, z in zip(batch.wyckoff, batch.species, strict=True)])


def _labellings(wyckoff: Tensor, species: Tensor) -> float:
    """Log of the number of ways to hand the species of each position to its sites."""
    real = wyckoff >= 0
    pairs = torch.stack([wyckoff[real], species[real]], dim=1)
    sites = pairs[:, 0].unique(return_counts=True)[1].tolist()
    kinds = pairs.unique(dim=0, return_counts=True)[1].tolist()
    return sum(lgamma(n + 1) for n in sites) - sum(lgamma(n + 1) for n in kinds)
