from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.labels import DEFAULT_CONDITIONS, condition_row
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.flow.coupling import nearest_image
from autoperi.flow.loss import matching_loss
from autoperi.flow.velocity import VelocityConfig, VelocityNetwork, base_point, latent_masks, latent_rows
from autoperi.networks.orbit_network import OrbitNetworkConfig
from tests.autoperi.small import (
    SOME_GROUPS,
    TINY,
    TINY_VELOCITY,
    largest,
    permuted,
    small_batch,
    small_crystal,
)

few = settings(max_examples=8, deadline=None)
groups = st.sampled_from(SOME_GROUPS)
seeds = st.integers(0, 10_000)
LATENT = TINY_VELOCITY.latent


@pytest.fixture(scope="module")
def network():
    return _network()


def _network(dtype: torch.dtype = torch.float64) -> VelocityNetwork:
    torch.manual_seed(0)
    network = VelocityNetwork(TINY_VELOCITY)
    network.scale.fit(small_batch())
    return network.to(dtype)


def _nothing(batch: CrystalBatch) -> torch.Tensor:
    return torch.full((batch.n_crystals, 3), torch.nan, dtype=batch.free.dtype)


def _inputs(batch: CrystalBatch, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(batch.n_crystals, generator=generator, dtype=torch.float64).to(batch.free)
    return t, base_point(batch, LATENT, generator)


@torch.no_grad()
def test_answers_only_in_free_directions(network):
    """ds is zero beyond the site's dimension and dz wherever the family fixes the lattice, in all groups."""
    batch = small_batch(range(1, 231), sites=2, max_atoms=12)
    t, point = _inputs(batch)
    _, ds, dz = network(t, point, batch, _nothing(batch)).velocity
    _, s_mask, z_mask = latent_masks(batch, LATENT)
    assert largest(ds * (1 - s_mask)) == 0
    assert largest(dz * (1 - z_mask)) == 0
    assert largest(ds) > 0.01
    assert largest(dz) > 0.01


@torch.no_grad()
def test_arrows_need_no_projection(network):
    """The Cartesian arrow of a site already lies in its Wyckoff set: projecting it back changes nothing."""
    batch = small_batch(range(2, 231, 2), sites=2, max_atoms=12)
    t, (h, s, z) = _inputs(batch)
    moved = batch.with_geometry(s, network.scale.to_coords(z, batch))
    inputs = [network.crystals(moved, z), torch.zeros(len(t), 17 + 8 + 2).to(z)]
    features = network.trunk(moved, torch.cat([network.sites(moved), h], -1), torch.cat(inputs, -1))
    arrows = network.arrow(features.vectors).squeeze(-1)
    back = torch.einsum("sij,sj->si", moved.cartesian_basis(), moved.tangent(arrows))
    assert largest(arrows) > 1e-3
    # the fixed shear of hexagonal lattices is rounded to float32 in LatticeScale.to_coords
    assert largest(back - arrows) < 1e-6


@torch.no_grad()
def test_the_geometry_of_the_genes_is_not_seen(network):
    """Free and lattice coordinates in ``genes`` do not enter: only the point of the flow does."""
    batch = small_batch((2, 62, 194))
    t, point = _inputs(batch)
    other = batch.with_geometry(torch.rand_like(batch.free), torch.randn_like(batch.lattice_coords))
    first, second = (network(t, point, genes, _nothing(batch)) for genes in (batch, other))
    for a, b in zip((*first.velocity, first.logits), (*second.velocity, second.logits), strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
@few
@given(groups, seeds)
def test_any_atom_of_an_orbit_may_stand_for_it(network, number, seed):
    """At another image s' = A s + a of each site, ds' = A ds; the rates of h and z are the same."""
    table = wyckoff_table()
    batch = small_batch([number], seed)
    t, (h, s, z) = _inputs(batch, seed)
    genes = batch.with_geometry(s, network.scale.to_coords(z, batch))
    start = torch.rand(batch.n_sites, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    images = nearest_image(genes, start)
    plain = network(t, (h, s, z), batch, _nothing(batch))
    moved = network(t, (h, images, z), batch, _nothing(batch))
    assert largest(plain.logits - moved.logits) < 1e-6
    assert largest(plain.velocity[0] - moved.velocity[0]) < 1e-6
    assert largest(plain.velocity[2] - moved.velocity[2]) < 1e-6
    mask = batch.free_mask()
    for site in range(batch.n_sites):
        rows = slice(*table.image_start[batch.wyckoff[site] : batch.wyckoff[site] + 2].tolist())
        linear, shift = table.image_linear[rows], table.image_shift[rows]
        off = (linear @ s[site] + shift - images[site]) * mask[site]
        chosen = (off - off.round()).norm(dim=-1) < 1e-9
        assert bool(chosen.any())
        expected = linear[chosen] @ plain.velocity[1][site] * mask[site]
        assert largest(expected - moved.velocity[1][site]) < 1e-6


@torch.no_grad()
@few
@given(st.sampled_from([1, 4, 8, 31, 36, 79, 99, 146, 160, 186]), seeds)
def test_origin_of_polar_groups_is_arbitrary(network, number, seed):
    """A shift of all atoms along the polar directions leaves every rate as it is."""
    table = wyckoff_table()
    batch = small_batch([number], seed)
    t, (h, s, z) = _inputs(batch, seed)
    shift = table.polar[number] @ torch.from_numpy(np.random.default_rng(seed).random(3))
    move = torch.einsum("sij,j->si", table.to_free[batch.wyckoff], shift) * batch.free_mask()
    plain = network(t, (h, s, z), batch, _nothing(batch)).velocity
    moved = network(t, (h, (s + move) % 1.0, z), batch, _nothing(batch)).velocity
    assert all(largest(a - b) < 1e-6 for a, b in zip(plain, moved, strict=True))


@torch.no_grad()
@few
@given(groups, seeds)
def test_sites_can_be_permuted(network, number, seed):
    """A permutation of the sites permutes rates and logits."""
    crystal = small_crystal(number, seed, sites=4)
    order = np.random.default_rng(seed).permutation(crystal.n_sites)
    batch = CrystalBatch.from_crystals([crystal])
    other = CrystalBatch.from_crystals([permuted(crystal, order)])
    t, (h, s, z) = _inputs(batch, seed)
    plain = network(t, (h, s, z), batch, _nothing(batch))
    moved = network(t, (h[order], s[order], z), other, _nothing(batch))
    assert largest(plain.logits[order] - moved.logits) < 1e-9
    assert largest(plain.velocity[0][order] - moved.velocity[0]) < 1e-9
    assert largest(plain.velocity[1][order] - moved.velocity[1]) < 1e-9
    assert largest(plain.velocity[2] - moved.velocity[2]) < 1e-9


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float64, 1e-10)])
def test_batch_equals_single(dtype, tolerance):
    """Rates of a crystal do not depend on the crystals beside it."""
    network = _network(dtype)
    batch = small_batch((1, 15, 62, 166, 225)).to(dtype=dtype)
    t, point = _inputs(batch)
    together = network(t, point, batch, _nothing(batch)).velocity
    for i in range(batch.n_crystals):
        one = torch.tensor([i])
        part = batch.select(one)
        rows = tuple(r == i for r in latent_rows(batch))
        alone = network(t[one], tuple(x[r] for x, r in zip(point, rows, strict=True)), part, _nothing(part))
        for a, b, r in zip(alone.velocity, together, rows, strict=True):
            assert largest(a - b[r]) < tolerance


def test_no_gradient_between_crystals(network):
    """The rates of one crystal have no derivative with respect to another's point."""
    batch = small_batch((2, 62, 166))
    t, point = _inputs(batch)
    point = tuple(x.requires_grad_() for x in point)
    velocity = network(t, point, batch, _nothing(batch)).velocity
    rows = tuple(r == 1 for r in latent_rows(batch))
    total = sum(v[r].square().sum() for v, r in zip(velocity, rows, strict=True))
    for gradient, own in zip(torch.autograd.grad(total, point), rows, strict=True):
        assert largest(gradient[~own]) == 0
        assert largest(gradient[own]) > 0


@torch.no_grad()
def test_rates_are_periodic(network):
    """A whole turn of a free coordinate changes nothing."""
    batch = small_batch((1, 62, 166))
    t, (h, s, z) = _inputs(batch)
    turned = s + batch.free_mask() * torch.tensor([1.0, -2.0, 3.0])
    plain, moved = (network(t, (h, x, z), batch, _nothing(batch)).velocity for x in (s, turned))
    assert all(largest(a - b) < 1e-9 for a, b in zip(plain, moved, strict=True))


@torch.no_grad()
def test_guidance_mixes_two_velocities(network):
    """The guided field is v_0 + g (v_c - v_0); at g = 1 or without conditions it is the plain one."""
    batch = small_batch((62, 221))
    t, point = torch.tensor(0.3, dtype=torch.float64), _inputs(batch)[1]
    asked = torch.tensor([condition_row({"band_gap": 2.0}, DEFAULT_CONDITIONS)] * 2, dtype=torch.float64)
    torch.nn.init.normal_(network.conditions.null, generator=torch.Generator().manual_seed(0))
    plain = network.field(batch, _nothing(batch))(t, point)
    conditional = network.field(batch, asked)(t, point)
    assert largest(plain[0] - conditional[0]) > 1e-6
    guided = network.field(batch, asked, 2.5)(t, point)
    for g, c, u in zip(guided, conditional, plain, strict=True):
        assert largest(g - (u + 2.5 * (c - u))) < 1e-12
    for a, b in zip(network.field(batch, _nothing(batch), 2.5)(t, point), plain, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(network.field(batch, asked, 1.0)(t, point), conditional, strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_an_absent_condition_is_the_null_token(network):
    """NaN in every column is the unconditional model; each known value changes the answer by itself."""
    batch = small_batch([62])
    t, point = _inputs(batch)
    plain = network(t, point, batch, _nothing(batch)).velocity[0]
    for name in ("band_gap", "formation_energy", "e_above_hull"):
        row = torch.tensor([condition_row({name: 0.3}, DEFAULT_CONDITIONS)], dtype=torch.float64)
        assert largest(network(t, point, batch, row).velocity[0] - plain) > 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_gives_finite_rates(dtype):
    """At t = 0, with an unfitted scale (1 Å³ per atom, extreme shapes), rates and gradients are finite."""
    torch.manual_seed(0)
    config = VelocityConfig(latent=2, condition_width=4, network=replace(TINY, cutoff=3.0))
    network = VelocityNetwork(config).to(dtype)
    network.scale.spread.fill_(0.7)
    batch = small_batch((1, 2, 15, 62, 166, 225), sites=2, max_atoms=6).to(dtype=dtype)
    for seed in range(3):
        point = base_point(batch, 2, torch.Generator().manual_seed(seed))
        leaves = tuple(x.requires_grad_() for x in point)
        answer = network(torch.zeros(6, dtype=dtype), leaves, batch, _nothing(batch))
        gradients = torch.autograd.grad(sum(v.sum() for v in answer.velocity), leaves)
        values = (*answer.velocity, answer.logits, *gradients)
        assert all(bool(v.isfinite().all()) for v in values)


def test_base_point_is_the_announced_noise():
    """h and z are standard normal, s is uniform, and all of them are zero where nothing is free."""
    batch = CrystalBatch.from_crystals([small_crystal(g, 0) for g in (1, 62, 166, 225)] * 50)
    h, s, z = base_point(batch, 8, torch.Generator().manual_seed(0))
    _, s_mask, z_mask = latent_masks(batch, 8)
    assert largest(s * (1 - s_mask)) == 0
    assert largest(z * (1 - z_mask)) == 0
    assert float(h.std()) == pytest.approx(1, abs=0.05)
    assert float(s[s_mask > 0].mean()) == pytest.approx(0.5, abs=0.03)
    assert float(s[s_mask > 0].std()) == pytest.approx(12**-0.5, abs=0.02)
    assert float(z[z_mask > 0].std()) == pytest.approx(1, abs=0.1)


def test_every_parameter_is_trained(network):
    """One backward pass of the matching loss reaches every parameter, as distributed training requires."""
    batch = small_batch((1, 62, 166))
    latents = torch.zeros(batch.n_sites, LATENT, dtype=torch.float64)
    network.zero_grad()
    matching_loss(network, batch, latents, _nothing(batch), torch.Generator().manual_seed(0))[
        "total"
    ].backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    network.zero_grad()


def test_width_and_depth_are_free():
    """Any size of the trunk works, one layer and one vector channel included."""
    config = VelocityConfig(
        latent=1,
        condition_width=2,
        network=OrbitNetworkConfig(width=4, vectors=1, layers=1, cutoff=3.0, radial=3),
    )
    network = VelocityNetwork(config)
    network.scale.fit(small_batch())
    batch = small_batch((62,)).to(dtype=torch.float32)
    answer = network(torch.zeros(1), base_point(batch, 1), batch, _nothing(batch))
    assert answer.velocity[0].shape == (batch.n_sites, 1)


@torch.no_grad()
def test_a_start_from_noise_is_the_default(network):
    """A distance that is infinite says what none says; a near relative is told apart from a far one."""
    batch = small_batch((2, 62, 194))
    t, point = _inputs(batch)
    plain = network(t, point, batch, _nothing(batch))
    said = [
        network(t, point, batch, _nothing(batch), torch.full_like(t, distance))
        for distance in (torch.inf, 0.1, 0.5)
    ]
    assert torch.equal(plain.logits, said[0].logits)
    assert largest(said[0].logits - said[1].logits) > 1e-6
    assert largest(said[1].logits - said[2].logits) > 1e-6
    assert all(bool(one.logits.isfinite().all()) for one in said)
