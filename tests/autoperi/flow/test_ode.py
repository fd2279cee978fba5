import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoperi.crystals.crystal import CrystalBatch
from autoperi.flow.ode import (
    exact_divergence,
    geodesic_path,
    hutchinson_divergence,
    log_prob,
    sample_flow,
    time_grid,
)
from autoperi.flow.settings import Solver
from autoperi.flow.velocity import (
    LATENT_MANIFOLD,
    VelocityConfig,
    VelocityNetwork,
    base_point,
    latent_masks,
    latent_rows,
)
from autoperi.networks.manifold import Euclidean, FlatTorus, Product
from tests.autoperi.small import TINY, largest, small_batch, small_crystal

BOTH = Product((Euclidean(), FlatTorus()))
LINE, CIRCLE = Product((Euclidean(),)), Product((FlatTorus(),))
few = settings(max_examples=10, deadline=None)


@few
@given(st.integers(0, 10_000))
def test_geodesics_join_their_ends_at_constant_speed(seed):
    """x(0) = x_0, x(1) = x_1, and d(x(t), x(t+h)) = h |dx/dt| wherever it is measured."""
    generator = torch.Generator().manual_seed(seed)
    x_0 = tuple(m.sample((4, 2), generator) for m in BOTH.factors)
    x_1 = tuple(m.sample((4, 2), generator) for m in BOTH.factors)
    rows = (torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 2]))
    at = [
        geodesic_path(BOTH, x_0, BOTH.log(x_0, x_1), torch.full((3,), t, dtype=torch.float64), rows)
        for t in (0.0, 0.3, 0.4, 1.0)
    ]
    for k in range(2):
        assert largest(BOTH.factors[k].log(at[0].x_t[k], x_0[k])) < 1e-12
        assert largest(BOTH.factors[k].log(at[3].x_t[k], x_1[k])) < 1e-12
        assert largest(BOTH.factors[k].log(at[3].x_1[k], x_1[k])) < 1e-12
        step = BOTH.factors[k].log(at[1].x_t[k], at[2].x_t[k])
        assert largest(step - 0.1 * at[0].dx_t[k]) < 1e-12


def test_each_row_keeps_its_crystal_time():
    """Rows move by the time of the crystal they belong to."""
    x_0 = (torch.zeros(3, 1, dtype=torch.float64),)
    t = torch.tensor([0.25, 0.75], dtype=torch.float64)
    path = geodesic_path(LINE, x_0, (torch.ones(3, 1).double(),), t, (torch.tensor([1, 0, 1]),))
    assert path.x_t[0].squeeze().tolist() == [0.75, 0.25, 0.75]


def _pendulum(t: torch.Tensor, x):
    """A field without closed form that depends on time."""
    return (torch.sin(3 * x[0]) + 0.5 * torch.cos(5 * t) * x[0],)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
@pytest.mark.parametrize("crowding", [1.0, 1.5])
def test_solvers_have_their_order(method, order, crowding):
    """The slope of log error against log step is the order of the method, also on a crowded grid."""
    start = (torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None],)
    exact = sample_flow(_pendulum, LINE, start, Solver("rk4", steps=600, crowding=crowding))[-1][0]
    errors = []
    for steps in (40, 80, 160):
        end = sample_flow(_pendulum, LINE, start, Solver(method, steps=steps, crowding=crowding))[-1][0]
        errors.append(largest(end - exact))
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
def test_dopri5_meets_its_tolerance(tolerance):
    """The adaptive solver ends within ten times its tolerance of the solution."""
    start = (torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None],)
    exact = sample_flow(_pendulum, LINE, start, Solver("rk4", steps=600))[-1][0]
    states = sample_flow(_pendulum, LINE, start, Solver("dopri5", tolerance=tolerance))
    assert len(states) == 2
    assert largest(states[-1][0] - exact) < 10 * tolerance


def test_constant_field_winds_round_the_torus():
    """A constant velocity of 3.25 turns ends a quarter turn on, and the field only sees points in [0, 1)."""
    seen = []

    def velocity(t, x):
        del t
        seen.append(x[0])
        return (torch.full_like(x[0], 3.25),)

    states = sample_flow(velocity, CIRCLE, (torch.tensor([[0.5]], dtype=torch.float64),), Solver(steps=40))
    assert len(states) == 41
    assert float(states[-1][0]) == pytest.approx(0.75, abs=1e-12)
    assert all(0 <= float(x) < 1 for x in seen)


def test_grid_runs_from_noise_to_data():
    """Times rise from exactly 0 to exactly 1, and crowding makes the last step the shortest."""
    like = torch.zeros(1, dtype=torch.float64)
    grid = time_grid(Solver(steps=10, crowding=2.0), like)
    assert grid[0] == 0
    assert grid[-1] == 1
    steps = grid.diff()
    assert bool((steps > 0).all())
    assert bool((steps.diff() < 0).all())
    assert torch.allclose(
        time_grid(Solver(steps=10, crowding=1.0), like).diff(), torch.full((10,), 0.1).double()
    )


@pytest.mark.parametrize(
    ("settings_", "message"),
    [({"steps": 0}, "solver steps"), ({"crowding": 0.0}, "positive"), ({"tolerance": -1.0}, "positive")],
)
def test_impossible_solvers_are_refused(settings_, message):
    """A solver without steps or with a tolerance that is not positive cannot be made."""
    with pytest.raises(ValueError, match=message):
        Solver(**settings_)


def _row_divergence(velocity, n: int, masks):
    return exact_divergence(velocity, (torch.arange(n),) * len(masks), masks, n)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_linear_field_in_closed_form(method):
    """For dx/dt = A x the density at 1 is N(exp(-A) x; 0, 1) exp(-tr A)."""
    matrix = torch.tensor([[0.3, -0.8], [0.5, 0.4]], dtype=torch.float64)
    x_1 = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def base(x):
        return Euclidean().base_log_density(x[0]).sum(-1)

    divergence = _row_divergence(lambda _, x: (x[0] @ matrix.T,), 6, (torch.ones_like(x_1),))
    solver = Solver(method, steps=60, tolerance=1e-9)
    found = log_prob(divergence, base, (x_1,), solver)
    expected = base((x_1 @ torch.matrix_exp(-matrix).T,)) - matrix.trace()
    assert largest(found - expected) < 1e-6


def test_density_on_the_circle_integrates_to_one():
    """On the torus ∫ p dx = 1 within 1e-3, for a velocity that depends on place and time."""
    n = 400
    x_1 = (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n

    def velocity(t, x):
        return (0.3 * torch.sin(2 * math.pi * x[0]) * (1 + t) + 0.2 * torch.cos(6 * math.pi * x[0]) + 0.7,)

    divergence = _row_divergence(velocity, n, (torch.ones_like(x_1),))
    density = log_prob(divergence, lambda x: 0 * x[0].sum(-1), (x_1,), Solver("rk4", steps=60)).exp()
    assert float(density.max()) > 1.5
    assert float(density.mean()) == pytest.approx(1, abs=1e-3)


def test_density_on_line_and_circle_integrates_to_one():
    """On the product of a line and a circle, with a velocity that couples them, ∫ p = 1 within 1e-3."""
    line = torch.linspace(-9, 9, 241, dtype=torch.float64)
    circle = (torch.arange(48, dtype=torch.float64) + 0.5) / 48
    h, s = (g.reshape(-1, 1) for g in torch.meshgrid(line, circle, indexing="ij"))

    def velocity(t, x):
        turn = 2 * math.pi * x[1]
        return 0.5 * torch.sin(x[0]) * torch.cos(turn) + 0.3 * t, 0.2 * torch.sin(turn) * torch.tanh(x[0])

    def base(x):
        return Euclidean().base_log_density(x[0]).sum(-1)

    divergence = _row_divergence(velocity, len(h), (torch.ones_like(h), torch.ones_like(s)))
    density = log_prob(divergence, base, (h, s), Solver("rk4", steps=30)).exp()
    total = torch.trapezoid(density.reshape(len(line), -1).mean(-1), line)
    assert float(total) == pytest.approx(1, abs=1e-3)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = VelocityNetwork(VelocityConfig(latent=2, condition_width=4, network=TINY)).double()
    network.scale.fit(small_batch())
    return network


def test_divergence_equals_the_trace_of_the_jacobian(network):
    """exact_divergence is the trace, per crystal and over free coordinates, of the brute-force Jacobian."""
    batch = small_batch((1, 36, 166, 221), sites=2, max_atoms=6)
    masks, rows = latent_masks(batch, 2), latent_rows(batch)
    x = base_point(batch, 2, torch.Generator().manual_seed(0))
    velocity = network.field(batch, torch.full((batch.n_crystals, 3), torch.nan, dtype=torch.float64))
    t = torch.tensor(0.4, dtype=torch.float64)
    v, found = exact_divergence(velocity, rows, masks, batch.n_crystals)(t, x)
    jacobian = torch.autograd.functional.jacobian(lambda *point: velocity(t, point), x)
    expected = torch.zeros(batch.n_crystals, dtype=torch.float64)
    for k, (mask, row) in enumerate(zip(masks, rows, strict=True)):
        block = jacobian[k][k].reshape(mask.numel(), mask.numel())
        expected.index_add_(0, row, (block.diagonal().reshape(mask.shape) * mask).sum(-1))
    assert largest(expected) > 0.01
    assert largest(found - expected) < 1e-10
    for mine, plain in zip(v, velocity(t, x), strict=True):
        assert torch.equal(mine, plain)


def test_hutchinson_is_unbiased(network):
    """The mean of the estimate over all sign vectors is the exact divergence, to rounding."""
    batch = CrystalBatch.from_crystals([small_crystal(225, 1, sites=2), small_crystal(166, 1, sites=1)])
    masks, rows = latent_masks(batch, 2), latent_rows(batch)
    x = base_point(batch, 2, torch.Generator().manual_seed(1))
    velocity = network.field(batch, torch.full((batch.n_crystals, 3), torch.nan, dtype=torch.float64))
    n = max(sum(int(m[r == c].sum()) for m, r in zip(masks, rows, strict=True)) for c in range(2))
    assert n <= 9
    probes = []
    for signs in itertools.product([-1.0, 1.0], repeat=n):
        probe = tuple(torch.zeros_like(m) for m in masks)
        for c in range(2):
            sign = iter(signs)
            for p, m, r in zip(probe, masks, rows, strict=True):
                for i, j in ((m * (r == c)[:, None]) > 0).nonzero().tolist():
                    p[i, j] = next(sign)
        probes.append(probe)
    t = torch.tensor(0.6, dtype=torch.float64)
    _, found = hutchinson_divergence(velocity, rows, masks, 2, probes)(t, x)
    _, exact = exact_divergence(velocity, rows, masks, 2)(t, x)
    assert found.shape == (len(probes), 2)
    assert largest(found.mean(0) - exact) < 1e-10
    assert largest(found[0] - exact) > 1e-4


def test_log_prob_evaluates_the_divergence_for_the_integral_alone():
    """As often as the solver asks for it: once a step of Euler."""
    asked = []

    def divergence(t, x):
        asked.append(float(t))
        return (0 * x[0],), torch.zeros(2, len(x[0]), dtype=torch.float64)

    x = torch.zeros(3, 1, dtype=torch.float64)
    density = log_prob(divergence, lambda x: x[0].sum(-1), (x,), Solver("euler", steps=4), probes=2)
    assert density.shape == (2, 3)
    assert len(asked) == 4


def test_crystals_have_independent_likelihoods(network):
    """The log-density of a crystal does not depend on the crystals beside it."""
    batch = small_batch((36, 221), sites=2, max_atoms=6)
    x = base_point(batch, 2, torch.Generator().manual_seed(0))

    def density(part, point):
        masks, rows = latent_masks(part, 2), latent_rows(part)
        nothing = torch.full((part.n_crystals, 3), torch.nan, dtype=torch.float64)
        divergence = exact_divergence(network.field(part, nothing), rows, masks, part.n_crystals)

        def base(y):
            total = torch.zeros(part.n_crystals, dtype=torch.float64)
            for d, m, r in zip(LATENT_MANIFOLD.base_log_density(y), masks, rows, strict=True):
                total = total.index_add(0, r, (d * m).sum(-1))
            return total

        return log_prob(divergence, base, point, Solver("midpoint", steps=3))

    together = density(batch, x)
    for c in range(2):
        own = batch.crystal == c
        alone = density(batch.select(torch.tensor([c])), (x[0][own], x[1][own], x[2][c : c + 1]))
        assert largest(alone - together[c]) < 1e-9
