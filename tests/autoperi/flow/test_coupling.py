from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.graph import orbit_graph
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.flow.coupling import nearest_image, pair
from tests.autoperi.small import largest, small_batch, small_crystal

few = settings(max_examples=15, deadline=None)
groups = st.integers(1, 230)
seeds = st.integers(0, 10_000)


def _uniform(batch, seed: int) -> torch.Tensor:
    return torch.rand(batch.n_sites, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _length(batch, site: int, move: torch.Tensor) -> torch.Tensor:
    move = (move - move.round()) * batch.free_mask()[site]
    return (move @ batch.cartesian_basis()[site].T).norm(dim=-1)


@few
@given(groups, seeds)
def test_nearest_image_is_the_same_crystal(number, seed):
    """Replacing a site by an image of it leaves the set of atoms in the cell unchanged."""
    batch = small_batch([number], seed, max_atoms=24)
    other = replace(batch, free=nearest_image(batch, _uniform(batch, seed)))
    atoms = batch.atoms()
    before, after = (atoms.positions(b.site_positions()) for b in (batch, other))
    for site in range(batch.n_sites):
        own = atoms.site == site
        difference = before[own][:, None] - after[own][None]
        distance = (difference - difference.round()).norm(dim=-1)
        assert float(distance.amin(0).max()) < 1e-9
        assert float(distance.amin(1).max()) < 1e-9


@few
@given(groups, seeds)
def test_no_image_is_nearer(number, seed):
    """No atom of the orbit that lies on the same Wyckoff set is nearer to the start (all of them tried).

    The distance is the length of the torus path that the flow takes.
    """
    table = wyckoff_table()
    batch = small_batch([number], seed, max_atoms=24)
    start = _uniform(batch, seed)
    nearest = nearest_image(batch, start)
    atoms = batch.atoms()
    positions = atoms.positions(batch.site_positions())
    for site in range(batch.n_sites):
        position = int(batch.wyckoff[site])
        dim = int(table.dim[position])
        found = _length(batch, site, nearest[site] - start[site])
        tried = 0
        for x in positions[atoms.site == site]:
            y = table.to_free[position] @ (x - table.origin[position])
            if largest((y - y.round())[dim:]) < 1e-6 if dim < 3 else True:
                tried += 1
                y = torch.where(torch.arange(3) < dim, y, 0.0)
                assert float(found) <= float(_length(batch, site, y - start[site])) + 1e-9
        assert tried >= 1


def _crowded(number: int, seed: int) -> CrystalBatch:
    """Several sites of few species, so that some are equal; two crystals, so that they could be mixed up."""
    crystals = [small_crystal(number, seed + i, sites=5, max_atoms=40) for i in range(2)]
    crystals = [replace(c, species=c.species * 0 + 8 + c.wyckoff % 2) for c in crystals]
    return CrystalBatch.from_crystals(crystals)


def _surroundings(batch) -> list[list[float]]:
    """Of every site: its position and the sorted distances to the atoms within 6 Å, told apart by species."""
    atoms = batch.atoms()
    graph = orbit_graph(batch, 6.0)
    species = batch.species[atoms.site[graph.atom]].double()
    seen = torch.stack([graph.site.double(), batch.wyckoff[graph.site].double(), species, graph.distance], -1)
    return sorted([round(x, 6) for x in row] for row in seen.tolist())


@few
@given(groups, seeds)
def test_the_target_is_the_same_crystal(number, seed):
    """Whatever origin, order and atoms are chosen: every site sees what it saw, and stays on its position."""
    batch = _crowded(number, seed)
    _, target = pair(batch, _uniform(batch, seed))
    before, after = _surroundings(batch), _surroundings(replace(batch, free=target))
    assert len(before) == len(after)
    assert np.abs(np.array(before) - np.array(after)).max() < 1e-4


@few
@given(groups, seeds)
def test_noise_is_only_permuted_among_equal_sites(number, seed):
    """The permuted noise is the same set within every crystal, position and species."""
    batch = _crowded(number, seed)
    start = _uniform(batch, seed)
    order, _ = pair(batch, start)
    moved = start[order]
    label = torch.stack([batch.crystal, batch.wyckoff, batch.species], -1).double()
    before, after = (torch.cat([label, s], -1).tolist() for s in (start, moved))
    assert sorted(before) == sorted(after)


@few
@given(st.sampled_from([g for g in range(1, 231) if wyckoff_table().origins[g] == 1]), seeds)
def test_the_way_is_never_longer_than_site_by_site(number, seed):
    """Where a group has one origin, assigning noise to equal sites can only shorten the squared way."""
    batch = _crowded(number, seed)
    start = _uniform(batch, seed)

    def way(begin, end):
        return sum(float(_length(batch, i, end[i] - begin[i])) ** 2 for i in range(batch.n_sites))

    order, target = pair(batch, start)
    assert way(start[order], target) <= way(start, nearest_image(batch, start)) + 1e-9


@pytest.mark.parametrize("origin", range(8))
def test_a_crystal_seen_from_another_origin_is_recognised(origin):
    """Noise that is the crystal itself, from another origin of Pnma and with equal sites swapped, stays."""
    table = wyckoff_table()
    wyckoff = np.array([table.index(62, letter) for letter in "ccd"])
    free = np.array([[0.1, 0.2, 0.0], [0.3, 0.45, 0.0], [0.15, 0.05, 0.4]])
    crystal = Crystal(62, wyckoff, np.array([26, 26, 8]), free, np.array([0.1, 0.2, 0.0, 0.0, 0.0, 1.8]))
    batch = CrystalBatch.from_crystals([crystal])
    row = table.move_start[batch.wyckoff] + origin
    assert table.move_keeps[row].all()
    moved = (table.move_linear[row] @ batch.free[..., None]).squeeze(-1) + table.move_shift[row]
    start = (moved % 1.0 * batch.free_mask())[[1, 0, 2]]
    order, target = pair(batch, start)
    gap = (target - start[order]) * batch.free_mask()
    assert largest(gap - gap.round()) < 1e-9
