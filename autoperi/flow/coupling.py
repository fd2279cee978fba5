"""Optimal transport between noise and a crystal, over everything that leaves the crystal the same."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.networks.layers import sum_by


def pair(
    batch: CrystalBatch, start: Float[Tensor, "sites 3"]
) -> tuple[Int[Tensor, "sites"], Float[Tensor, "sites 3"]]:
    """Whose noise each site takes, and the free coordinates it flows to, up to the description's symmetry.

    The same crystal is described from any origin its group allows, by any atom of each orbit, and with equal
    sites (same position, same species) in any order. Origin, order and atoms are chosen so that the squared
    way from ``start`` is short. The velocity network treats all descriptions alike and equal sites' noise is
    exchangeable, so this is a coupling of base and data with shorter, less ambiguous paths (equivariant
    optimal transport, Klein et al., arXiv:2306.15030, here over the group's normalizer).

    Returns:
        for each site the one of its equals whose noise it takes, and the free coordinates of the target.
    """
    first, second, count = _equal_sites(batch)
    moved = _best_origin(batch, start, first, second)
    distance, _ = _nearest(moved, second, start[first])
    order = _assignment(distance, second, count)
    return order, nearest_image(moved, start[order])


def nearest_image(batch: CrystalBatch, start: Float[Tensor, "sites 3"]) -> Float[Tensor, "sites 3"]:
    """Free coordinates of the same crystal, each site given by the atom of its orbit nearest to ``start``."""
    return _nearest(batch, torch.arange(batch.n_sites, device=start.device), start)[1]


def _equal_sites(
    batch: CrystalBatch,
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"], Int[Tensor, "sites"]]:
    """Pairs (i, j) of sites that only coordinates tell apart, sorted by i, and their number for each i."""
    label = torch.stack([batch.crystal, batch.wyckoff, batch.species], -1)
    _, group, size = torch.unique(label, dim=0, return_inverse=True, return_counts=True)
    by_group = torch.argsort(group, stable=True)
    begin = (size.cumsum(0) - size)[group]
    count = size[group]
    first = torch.repeat_interleave(torch.arange(batch.n_sites, device=count.device), count)
    rank = torch.arange(len(first), device=count.device) - (count.cumsum(0) - count)[first]
    return first, by_group[begin[first] + rank], count


def _nearest(
    batch: CrystalBatch, site: Int[Tensor, "rows"], start: Float[Tensor, "rows 3"]
) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows 3"]]:
    """For every row the atom of the site's orbit, on the site's own set, that is nearest to ``start``.

    Returns:
        squared distance (Å²) and free coordinates, wrapped.
    """
    table = wyckoff_table(str(batch.device))
    position = batch.wyckoff[site]
    begin = table.image_start[position]
    count = table.image_start[position + 1] - begin
    row = torch.repeat_interleave(torch.arange(len(site), device=site.device), count)
    image = begin[row] + torch.arange(len(row), device=site.device) - (count.cumsum(0) - count)[row]
    own = site[row]
    images = (table.image_linear[image].to(start) @ batch.free[own][..., None]).squeeze(-1)
    images = images + table.image_shift[image].to(start)
    offset = images - start[row]
    offset = (offset - offset.round()) * batch.free_mask()[own]
    squared = (batch.cartesian_basis()[own] @ offset[..., None]).squeeze(-1).square().sum(-1)
    best = squared.new_full((len(site),), torch.inf).scatter_reduce(0, row, squared, "amin")
    winner = (squared <= best[row]).nonzero().squeeze(-1)
    chosen = torch.zeros(len(site), dtype=torch.long, device=site.device)
    chosen[row[winner]] = winner
    return best, images[chosen] % 1.0 * batch.free_mask()[site]


def _best_origin(
    batch: CrystalBatch,
    start: Float[Tensor, "sites 3"],
    first: Int[Tensor, "pairs"],
    second: Int[Tensor, "pairs"],
) -> CrystalBatch:
    """The batch from the origins that lie nearest to the noise, each site free to go to its nearest equal."""
    table = wyckoff_table(str(batch.device))
    origins = table.origins[batch.space_group]
    least = start.new_full((batch.n_crystals,), torch.inf)
    best = batch.free
    for origin in range(int(origins.max())):
        free, keeps = _seen_from(batch, origin, origin < origins)
        pairs = keeps[batch.crystal[first]].nonzero().squeeze(-1)
        squared, _ = _nearest(replace(batch, free=free), second[pairs], start[first[pairs]])
        way = start.new_full((batch.n_sites,), torch.inf).scatter_reduce(0, first[pairs], squared, "amin")
        cost = sum_by((way * batch.multiplicity())[:, None], batch.crystal, batch.n_crystals).squeeze(-1)
        better = cost < least
        least = torch.where(better, cost, least)
        best = torch.where(better[batch.crystal][:, None], free, best)
    return replace(batch, free=best)


def _seen_from(
    batch: CrystalBatch, origin: int, exists: Bool[Tensor, "crystals"]
) -> tuple[Float[Tensor, "sites 3"], Bool[Tensor, "crystals"]]:
    """Free coordinates from one of the other origins, and which crystals keep all their positions there."""
    table = wyckoff_table(str(batch.device))
    row = table.move_start[batch.wyckoff] + origin * exists[batch.crystal]
    lost = (1 - table.move_keeps[row]).to(batch.free)
    keeps = sum_by(lost[:, None], batch.crystal, batch.n_crystals).squeeze(-1) == 0
    moved = (table.move_linear[row].to(batch.free) @ batch.free[..., None]).squeeze(-1)
    moved = moved + table.move_shift[row].to(batch.free)
    return moved % 1.0 * batch.free_mask(), keeps & exists


def _assignment(
    distance: Float[Tensor, "pairs"], second: Int[Tensor, "pairs"], count: Int[Tensor, "sites"]
) -> Int[Tensor, "sites"]:
    """Whose noise each site takes: the least total squared way within every set of equal sites."""
    squared, other, size = distance.cpu().numpy(), second.cpu().numpy(), count.cpu().numpy()
    begin = size.cumsum() - size
    order = np.arange(len(size))
    leaders = np.flatnonzero((size > 1) & (other[begin] == order))
    for leader in leaders:
        members = other[begin[leader] : begin[leader] + size[leader]]
        noise, target = linear_sum_assignment(squared[begin[members][:, None] + np.arange(len(members))])
        order[members[target]] = members[noise]
    return torch.from_numpy(order).to(count.device)
