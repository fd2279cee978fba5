from dataclasses import replace
from types import SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.flow import loss as matching_module
from autoperi.flow.coupling import pair
from autoperi.flow.loss import matching_loss, without_drift
from autoperi.flow.velocity import LATENT_MANIFOLD, VelocityNetwork, VelocityOutput, base_point
from autoperi.networks.embedding import LatticeScale
from autoperi.networks.layers import sum_by
from tests.autoperi.small import SOME_GROUPS, TINY_VELOCITY, largest, small_batch

few = settings(max_examples=15, deadline=None)
groups = st.integers(1, 230)
seeds = st.integers(0, 10_000)


def _uniform(batch, seed: int) -> torch.Tensor:
    return torch.rand(batch.n_sites, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@few
@given(st.sampled_from(SOME_GROUPS), seeds)
def test_drift_is_the_polar_mean_and_nothing_else(number, seed):
    """without_drift takes off a common shift along the polar directions and leaves none; twice is once."""
    table = wyckoff_table()
    batch = small_batch([number], seed)
    rate = (_uniform(batch, seed) - 0.5) * batch.free_mask()
    left = without_drift(batch, rate)

    def mean(r):
        atoms = batch.atoms()
        moves = torch.einsum("sij,sj->si", batch.basis(), r)
        return torch.einsum("aij,aj->ai", atoms.rotation, moves[atoms.site]).mean(0)

    polar = table.polar[number]
    taken = torch.einsum("sij,sj->si", batch.basis(), rate - left)
    assert largest(mean(left)) < 1e-12
    assert largest(taken - mean(rate)) < 1e-12
    assert largest(polar @ mean(rate) - mean(rate)) < 1e-12
    assert largest(without_drift(batch, left) - left) < 1e-12
    if largest(polar) == 0:
        assert largest(taken) == 0


def _perfect(batch, latents, seed: int):
    """A stand-in network that repeats the draw of the noise and so knows the velocity."""
    scale = LatticeScale().double()
    scale.fit(batch)
    h_0, s_0, z_0 = base_point(batch, latents.shape[1], torch.Generator().manual_seed(seed))
    order, s_1 = pair(batch, s_0)
    x_0 = (h_0[order], s_0[order], z_0)
    x_1 = (latents, s_1, scale.from_coords(batch.lattice_coords, batch))
    dh, ds, dz = LATENT_MANIFOLD.log(x_0, x_1)
    velocity = (dh, without_drift(batch, ds), dz)

    def answer(t, point, genes, conditions, distance):
        del conditions
        assert not bool(distance.isfinite().any())
        for x, start, v, manifold, row in zip(
            point,
            x_0,
            velocity,
            LATENT_MANIFOLD.factors,
            (batch.crystal, batch.crystal, torch.arange(batch.n_crystals)),
            strict=True,
        ):
            expected = manifold.exp(start, t[row][:, None] * v)
            assert largest(manifold.log(x, expected)) < 1e-9
        assert bool(((genes.species == 0) | (genes.species == batch.species)).all())
        logits = torch.full((batch.n_sites, 101), -1e3, dtype=torch.float64)
        rows = (batch.crystal, batch.crystal, torch.arange(batch.n_crystals))
        way = tuple(v * (1 - t)[row][:, None] for v, row in zip(velocity, rows, strict=True))
        return VelocityOutput(way, velocity, logits.scatter(1, batch.species[:, None], 1e3))

    class Network(SimpleNamespace):
        def __call__(self, *args):
            return answer(*args)

    return Network(scale=scale, velocity=velocity)


def test_a_perfect_network_has_no_loss():
    """At the true velocity and species every term is zero, and the point it is asked at lies on the path.

    Some sites go the longer way round the torus once the drift is taken off; path and target agree there.
    """
    longer = 0
    for seed in range(4):
        batch = small_batch(SOME_GROUPS, seed, sites=5)
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(batch.n_sites, 3, generator=generator, dtype=torch.float64)
        nothing = torch.full((batch.n_crystals, 3), torch.nan, dtype=torch.float64)
        network = _perfect(batch, latents, seed)
        terms = matching_loss(network, batch, latents, nothing, torch.Generator().manual_seed(seed))
        assert set(terms) == {"total", "latent", "sites", "lattice", "species"}
        assert all(float(v) < 1e-12 for v in terms.values())
        longer += int((network.velocity[1].abs() > 0.5).sum())
    assert longer > 0


def test_no_hidden_species_is_no_trouble(monkeypatch):
    """A batch whose species are all known has a species loss of zero, not NaN."""
    torch.manual_seed(0)
    network = VelocityNetwork(TINY_VELOCITY).double()
    batch = small_batch((225, 62))
    monkeypatch.setattr(matching_module, "known_sites", lambda species, *_: species)
    latents = torch.zeros(batch.n_sites, 3, dtype=torch.float64)
    terms = matching_loss(network, batch, latents, torch.full((2, 3), torch.nan, dtype=torch.float64))
    assert largest(terms["species"]) == 0
    assert bool(terms["total"].isfinite())


def test_drift_costs_nothing_in_the_target():
    """A velocity that drifts along a polar axis is penalised by its square: the target has no drift."""
    batch = small_batch((186,), sites=3)
    latents = torch.zeros(batch.n_sites, 3, dtype=torch.float64)
    network = _perfect(batch, latents, 0)
    nothing = torch.full((1, 3), torch.nan, dtype=torch.float64)
    polar = wyckoff_table().polar[186]
    drift = torch.einsum("sij,j->si", wyckoff_table().to_free[batch.wyckoff], polar @ torch.ones(3).double())

    def drifting(*args):
        said = network(*args)
        way = said.displacement
        return replace(said, displacement=(way[0], way[1] + drift, way[2]))

    stand_in = type("Drifting", (), {"scale": network.scale, "__call__": lambda _, *a: drifting(*a)})()
    terms = matching_loss(stand_in, batch, latents, nothing, torch.Generator().manual_seed(0))
    weights = batch.multiplicity().double()[:, None]
    assert largest(sum_by(drift * weights, batch.crystal, 1)) > 0.1
    assert float(terms["sites"]) > 0.01
