import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoperi.networks.manifold import Euclidean, FlatTorus, Product

few = settings(max_examples=25, deadline=None)
factors = st.sampled_from([Euclidean(), FlatTorus()])
seeds = st.integers(0, 10_000)


def _draw(manifold, seed: int, n: int = 5) -> torch.Tensor:
    return manifold.sample((n, 3), torch.Generator().manual_seed(seed))


@few
@given(factors, seeds)
def test_exp_inverts_log(manifold, seed):
    """exp_x(log_x(y)) = y."""
    x, y = _draw(manifold, seed), _draw(manifold, seed + 1)
    assert torch.allclose(manifold.exp(x, manifold.log(x, y)), y, atol=1e-12)


@few
@given(factors, seeds)
def test_log_inverts_exp(manifold, seed):
    """log_x(exp_x(u)) = u for every u within the injectivity radius, 1/2 per entry on the torus."""
    x = _draw(manifold, seed)
    u = 0.499 * (2 * torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 1)
    assert torch.allclose(manifold.log(x, manifold.exp(x, u)), u, atol=1e-12)


@few
@given(seeds)
def test_torus_log_is_the_shortest(seed):
    """On the torus no integer shift of y is nearer than log says, and log(x, y) = -log(y, x)."""
    torus = FlatTorus()
    x, y = _draw(torus, seed), _draw(torus, seed + 1)
    short = torus.log(x, y)
    images = (y - x)[..., None] + torch.arange(-2.0, 3.0)
    assert torch.allclose(short.abs(), images.abs().amin(-1), atol=1e-15)
    assert torch.allclose(short, -torus.log(y, x), atol=1e-15)
    assert torch.allclose(short, torus.log(x + 3, y - 2), atol=1e-12)


@few
@given(seeds, st.floats(-30, 30))
def test_torus_wraps(seed, step):
    """Exp stays in [0, 1) and adding a whole turn changes nothing."""
    torus = FlatTorus()
    x = _draw(torus, seed)
    there = torus.exp(x, torch.full_like(x, step))
    assert bool(((there >= 0) & (there < 1)).all())
    turned = torus.exp(x, torch.full_like(x, step + 1))
    assert float(torus.log(there, turned).abs().max()) < 1e-12


def test_product_works_factor_by_factor():
    """A product applies each factor to its own tensor."""
    product = Product((Euclidean(), FlatTorus()))
    x = tuple(_draw(m, 0) for m in product.factors)
    y = tuple(_draw(m, 1) for m in product.factors)
    there = product.exp(x, product.log(x, y))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(there, y, strict=True))
    densities = product.base_log_density(x)
    for m, a, d in zip(product.factors, x, densities, strict=True):
        assert torch.equal(m.base_log_density(a), d)


@pytest.mark.parametrize(("manifold", "low", "high"), [(Euclidean(), -9.0, 9.0), (FlatTorus(), 0.0, 1.0)])
def test_base_density_integrates_to_one(manifold, low, high):
    """The base densities are normalised."""
    x = torch.linspace(low, high, 20_001, dtype=torch.float64)
    assert float(torch.trapezoid(manifold.base_log_density(x).exp(), x)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("manifold", [Euclidean(), FlatTorus()])
def test_samples_follow_the_base_density(manifold):
    """The mean log-density of samples is minus the entropy of the base."""
    x = manifold.sample((200_000,), torch.Generator().manual_seed(0))
    entropy = 0.5 * math.log(2 * math.pi * math.e) if isinstance(manifold, Euclidean) else 0.0
    assert float(manifold.base_log_density(x).mean()) == pytest.approx(-entropy, abs=0.01)
    spread = 1.0 if isinstance(manifold, Euclidean) else 12**-0.5
    assert float(x.std()) == pytest.approx(spread, rel=0.01)
