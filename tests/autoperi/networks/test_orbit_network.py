from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.graph import orbit_graph
from autoperi.crystals.symmetry import symmetrise
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.flow.coupling import nearest_image
from autoperi.networks.orbit_network import OrbitNetwork
from autoperi.networks.trunk import OrbitFeatures
from tests.autoperi.small import (
    SOME_GROUPS,
    TINY,
    largest,
    permuted,
    small_batch,
    small_crystal,
    without_symmetry,
)
from tests.prototypes import prototype

few = settings(max_examples=8, deadline=None)
groups = st.sampled_from(SOME_GROUPS)
seeds = st.integers(0, 10_000)


@pytest.fixture(scope="module")
def network():
    return _network()


def _network() -> OrbitNetwork:
    torch.manual_seed(0)
    return OrbitNetwork(TINY, 5, 4).double()


def _inputs(batch: CrystalBatch, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Arbitrary numbers for each site and each crystal."""
    generator = torch.Generator().manual_seed(seed)
    sites = torch.randn(batch.n_sites, 5, generator=generator, dtype=torch.float64)
    return sites, torch.randn(batch.n_crystals, 4, generator=generator, dtype=torch.float64)


def _assert_equal(a: OrbitFeatures, b: OrbitFeatures, tolerance: float) -> None:
    for name in ("scalars", "vectors", "crystal", "strain"):
        assert largest(getattr(a, name) - getattr(b, name)) < tolerance, name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_reduced_equals_full(dtype, tolerance):
    """On the sites alone the network gives what it gives on the whole cell without symmetry.

    Scalars are copied along an orbit, vectors turned, and the crystal's own features are the same.
    The tolerance is relative to the largest scalar.
    """
    batch = small_batch()
    network = _network().to(dtype)
    full, turn = without_symmetry(batch)
    graph = orbit_graph(batch, 1.0)
    atoms = batch.atoms()
    sites, crystals = (x.to(dtype) for x in _inputs(batch))
    reduced = network(batch.to(dtype=dtype), sites, crystals)
    whole = network(full.to(dtype=dtype), sites[atoms.site], crystals)
    turn = turn.to(dtype)
    tolerance *= largest(reduced.scalars)
    assert largest(reduced.vectors) > 0.01
    assert largest(reduced.strain) > 0.01
    assert largest(whole.scalars - reduced.scalars[atoms.site]) < tolerance
    expected = graph.rotation.to(dtype) @ reduced.vectors[atoms.site]
    assert largest(turn[atoms.crystal] @ whole.vectors - expected) < tolerance
    assert largest(whole.crystal - reduced.crystal) < tolerance
    strain = turn[:, None] @ whole.strain @ turn[:, None].transpose(-1, -2)
    assert largest(strain - reduced.strain) < tolerance


@few
@given(st.integers(1, 230), seeds)
def test_reduced_equals_full_in_any_group(network, number, seed):
    """The same theorem for hypothesis' choice of the group."""
    batch = small_batch([number], seed, sites=2, max_atoms=24)
    full, turn = without_symmetry(batch)
    sites, crystals = _inputs(batch)
    reduced, whole = network(batch, sites, crystals), network(full, sites[batch.atoms().site], crystals)
    rotation = orbit_graph(batch, 1.0).rotation
    site = batch.atoms().site
    assert largest(whole.scalars - reduced.scalars[site]) < 1e-10
    assert largest(turn @ whole.vectors - rotation @ reduced.vectors[site]) < 1e-10


def test_dropping_the_rotation_is_noticed(network):
    """Copying vectors along an orbit without turning them is another network: the tests above have teeth."""
    batch = small_batch([62])
    full, turn = without_symmetry(batch)
    sites, crystals = _inputs(batch)
    site = batch.atoms().site
    reduced, whole = network(batch, sites, crystals), network(full, sites[site], crystals)
    assert largest(turn @ whole.vectors - reduced.vectors[site]) > 1e-3


def test_vectors_lie_in_the_wyckoff_set(network):
    """Site vectors are invariant under the stabiliser: projecting them on the free directions is exact."""
    batch = small_batch(range(1, 231), sites=2, max_atoms=12)
    vectors = network(batch, *_inputs(batch)).vectors
    basis = batch.cartesian_basis()
    for channel in range(vectors.shape[-1]):
        rate = batch.tangent(vectors[..., channel])
        assert largest(torch.einsum("sij,sj->si", basis, rate) - vectors[..., channel]) < 1e-9
    assert largest(vectors[wyckoff_table().dim[batch.wyckoff] == 0]) < 1e-9


def test_strain_has_the_symmetry_of_the_crystal(network):
    """The tensors of a crystal are symmetric and invariant under every operation of its point group."""
    table = wyckoff_table()
    batch = small_batch(SOME_GROUPS, max_atoms=12)
    strain = network(batch, *_inputs(batch)).strain
    assert largest(strain - strain.transpose(-1, -2)) < 1e-12
    for tensors, lattice, group in zip(strain, batch.lattice(), batch.space_group.tolist(), strict=True):
        general = int(table.group_start[group + 1]) - 1
        rows = slice(*table.orbit_start[general : general + 2].tolist())
        turn = lattice.T @ table.orbit_rotation[rows] @ torch.linalg.inv(lattice.T)
        turned = turn[:, None] @ tensors @ turn[:, None].transpose(-1, -2)
        assert largest(turned - tensors) < 1e-10


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_batch_equals_single(dtype, tolerance):
    """What is said of a crystal does not depend on the crystals beside it."""
    network = _network().to(dtype)
    batch = small_batch((1, 15, 62, 166, 194, 225)).to(dtype=dtype)
    sites, crystals = (x.to(dtype) for x in _inputs(batch))
    together = network(batch, sites, crystals)
    for i in range(batch.n_crystals):
        own = batch.crystal == i
        alone = network(batch.select(torch.tensor([i])), sites[own], crystals[i : i + 1])
        part = OrbitFeatures(
            together.scalars[own],
            together.vectors[own],
            together.crystal[i : i + 1],
            together.strain[i : i + 1],
        )
        _assert_equal(alone, part, tolerance)


def test_no_gradient_between_crystals(network):
    """The derivative of one crystal's features with respect to another crystal is exactly zero."""
    batch = small_batch((2, 62, 166))
    sites, crystals = _inputs(batch)
    leaves = [x.requires_grad_() for x in (batch.free, batch.lattice_coords, sites, crystals)]
    out = network(batch.with_geometry(leaves[0], leaves[1]), sites, crystals)
    own = batch.crystal == 1
    total = out.scalars[own].sum() + out.vectors[own].sum() + out.crystal[1].sum() + out.strain[1].sum()
    free, lattice, site, crystal = torch.autograd.grad(total, leaves)
    for rows, mine in ((free, own), (site, own), (lattice, torch.arange(3) == 1)):
        assert largest(rows[~mine]) == 0.0
        assert largest(rows[mine]) > 0
    assert largest(crystal[torch.arange(3) != 1]) == 0.0


@few
@given(st.permutations(range(4)), seeds)
def test_crystals_can_be_permuted(network, order, seed):
    """A permutation of the crystals permutes the features and does nothing else."""
    batch = small_batch((1, 36, 160, 221), seed)
    sites, crystals = _inputs(batch)
    order = torch.tensor(order)
    rows, _ = batch.site_rows(order)
    plain = network(batch, sites, crystals)
    moved = network(batch.select(order), sites[rows], crystals[order])
    expected = OrbitFeatures(
        plain.scalars[rows], plain.vectors[rows], plain.crystal[order], plain.strain[order]
    )
    _assert_equal(moved, expected, 1e-11)


@few
@given(groups, seeds)
def test_sites_can_be_permuted(network, number, seed):
    """A permutation of the sites of a crystal permutes its site features and does nothing else."""
    crystal = small_crystal(number, seed, sites=4)
    order = np.random.default_rng(seed).permutation(crystal.n_sites)
    batch = CrystalBatch.from_crystals([crystal])
    sites, crystals = _inputs(batch)
    plain = network(batch, sites, crystals)
    moved = network(CrystalBatch.from_crystals([permuted(crystal, order)]), sites[order], crystals)
    expected = OrbitFeatures(plain.scalars[order], plain.vectors[order], plain.crystal, plain.strain)
    _assert_equal(moved, expected, 1e-11)


@few
@given(groups, seeds)
def test_any_atom_of_an_orbit_may_stand_for_it(network, number, seed):
    """A site given by another atom of its orbit has the same scalars; its vectors turn with it."""
    batch = small_batch([number], seed)
    start = torch.rand(batch.n_sites, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    other = replace(batch, free=nearest_image(batch, start))
    inputs = _inputs(batch)
    plain, moved = network(batch, *inputs), network(other, *inputs)
    atoms, rotation = batch.atoms(), orbit_graph(batch, 1.0).rotation
    positions, chosen = atoms.positions(batch.site_positions()), other.site_positions()
    assert largest(moved.scalars - plain.scalars) < 1e-9
    assert largest(moved.crystal - plain.crystal) < 1e-9
    assert largest(moved.strain - plain.strain) < 1e-9
    for site in range(batch.n_sites):
        orbit = (atoms.site == site).nonzero().squeeze(-1)
        difference = positions[orbit] - chosen[site]
        distance = (difference - difference.round()).norm(dim=-1)
        assert float(distance.min()) < 1e-9
        atom = orbit[distance.argmin()]
        assert largest(moved.vectors[site] - rotation[atom] @ plain.vectors[site]) < 1e-9


@few
@given(st.sampled_from([1, 4, 7, 8, 31, 36, 43, 79, 99, 146, 160, 186]), seeds)
def test_origin_of_polar_groups_is_arbitrary(network, number, seed):
    """A shift of all atoms along the group's polar directions changes nothing."""
    table = wyckoff_table()
    batch = small_batch([number], seed)
    shift = table.polar[number] @ torch.from_numpy(np.random.default_rng(seed).random(3))
    assert largest(shift) > 0
    move = torch.einsum("sij,j->si", table.to_free[batch.wyckoff], shift)
    moved = replace(batch, free=(batch.free + move * batch.free_mask()) % 1.0)
    inputs = _inputs(batch)
    _assert_equal(network(moved, *inputs), network(batch, *inputs), 1e-9)


@few
@given(seeds)
def test_choice_of_cell_is_arbitrary(network, seed):
    """Another cell of the same lattice (unimodular change) gives the same features, turned into its frame."""
    rng = np.random.default_rng(seed)
    crystal = small_crystal(1, seed, sites=4)
    lattice, frac, species = crystal.expand()
    change = np.eye(3)
    for _ in range(3):
        i, j = rng.choice(3, 2, replace=False)
        step = np.eye(3)
        step[i, j] = rng.choice([-1, 1])
        change = step @ change
    other = Crystal.without_symmetry(change @ lattice, frac @ np.linalg.inv(change), species)
    batch, moved = CrystalBatch.from_crystals([crystal]), CrystalBatch.from_crystals([other])
    # both frames hold the same atoms: moved = original turned by this rotation (columns)
    turn = torch.linalg.solve(torch.from_numpy(change) @ batch.lattice(), moved.lattice()).transpose(-1, -2)
    inputs = _inputs(batch)
    plain, out = network(batch, *inputs), network(moved, *inputs)
    assert largest(out.scalars - plain.scalars) < 1e-9
    assert largest(out.crystal - plain.crystal) < 1e-9
    assert largest(out.vectors - turn @ plain.vectors) < 1e-9
    assert largest(out.strain - turn[:, None] @ plain.strain @ turn[:, None].transpose(-1, -2)) < 1e-9


CHANGES = {
    "unimodular": [[1, 1, 0], [0, 1, 0], [0, -2, 1]],
    "double": [[2, 0, 0], [0, 1, 0], [0, 0, 1]],
    "sheared supercell": [[1, 1, 0], [0, 1, 1], [1, 0, 1]],
}


@pytest.mark.parametrize("name", ["NaCl", "TiO2 rutile", "ZnO wurtzite", "CaTiO3", "Bi2Te3", "FeS2 pyrite"])
@pytest.mark.parametrize("change", CHANGES)
def test_any_cell_becomes_the_same_crystal(network, name, change):
    """Through symmetrise a crystal has the same features whatever cell or supercell it came in.

    (Messages are not additive over images, so supercells must be reduced first, which symmetrise does.)
    """
    structure = prototype(name)
    found = []
    for same in (structure, structure.make_supercell(CHANGES[change], in_place=False)):
        batch = CrystalBatch.from_crystals([symmetrise(same)])
        sites = (batch.species[:, None] * torch.linspace(0, 1, 5, dtype=torch.float64)).sin()
        out = network(batch, sites, torch.ones(1, 4, dtype=torch.float64))
        rows = torch.cat([batch.species[:, None], batch.multiplicity()[:, None], out.scalars], -1)
        found.append((rows[np.lexsort(rows.detach().T.numpy()[::-1])], out.crystal, out.vectors.norm(dim=1)))
    assert largest(found[0][0] - found[1][0]) < 1e-5
    assert largest(found[0][1] - found[1][1]) < 1e-5
    assert largest(found[0][2].sum() - found[1][2].sum()) < 1e-5


def test_atoms_leave_the_cutoff_smoothly(network):
    """Features stay continuous as the last image of a pair crosses the cutoff."""
    outs = _across_the_cutoff(network)
    _assert_equal(outs[0], outs[1], 1e-6)


def _across_the_cutoff(network: OrbitNetwork) -> list[OrbitFeatures]:
    outs = []
    for length in (TINY.cutoff - 1e-5, TINY.cutoff + 1e-5):
        lattice = np.diag([30.0, 30.0, 30.0])
        frac = np.array([[0, 0, 0], [length / 30, 0, 0]])
        batch = CrystalBatch.from_crystals([Crystal.without_symmetry(lattice, frac, np.array([8, 8]))])
        outs.append(network(batch, *_inputs(batch)))
    return outs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nasty_geometry_stays_finite(dtype):
    """Tiny and flat cells, atoms 1e-5 Å apart and atoms alone give finite features and gradients."""
    network = _network().to(dtype)
    cells = [
        (np.eye(3) * 0.6, [[0, 0, 0], [0.5, 0.5, 0.4]]),
        (np.diag([8.0, 8.0, 0.3]), [[0, 0, 0], [0.5, 0.5, 0.4]]),
        (np.eye(3) * 5, [[0, 0, 0], [2e-6, 0, 0], [0.5, 0.5, 0.5]]),
        (np.eye(3) * 40, [[0.2, 0.2, 0.2]]),
    ]
    crystals = [Crystal.without_symmetry(c, np.array(f), np.full(len(f), 8)) for c, f in cells]
    batch = CrystalBatch.from_crystals(crystals).to(dtype=dtype)
    leaves = (batch.free.requires_grad_(), batch.lattice_coords.requires_grad_())
    out = network(batch, *(x.to(dtype) for x in _inputs(batch)))
    values = (out.scalars, out.vectors, out.crystal, out.strain)
    gradients = torch.autograd.grad(sum(v.square().sum() for v in values), leaves)
    assert all(bool(v.isfinite().all()) for v in (*values, *gradients))
