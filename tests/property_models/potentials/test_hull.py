import numpy as np
import pytest
import torch

from autoperi.crystals.hull import Hull
from property_models.potentials.hull import SoftHull
from tests.autoperi.small import largest

# amounts by atomic number, eV/atom: Na-Cl-O phases, one of them off the hull
PHASES = [({11: 1, 17: 1}, -2.1), ({11: 2, 8: 1}, -1.4), ({11: 2, 8: 2}, -1.3), ({11: 1, 17: 3}, -0.2)]
PHASES += [({11: 1, 17: 1, 8: 3}, -0.9)]


@pytest.fixture
def hull() -> SoftHull:
    compositions, energies = zip(*PHASES, strict=True)
    return SoftHull(compositions, np.array(energies))


def fractions(amounts: dict[int, float]) -> torch.Tensor:
    row = torch.zeros(94, dtype=torch.float64)
    for z, n in amounts.items():
        row[z - 1] = n
    return row / row.sum()


def test_is_the_hull_at_hard_and_mixed_compositions(hull):
    compositions, energies = zip(*PHASES, strict=True)
    facets = Hull(compositions, np.array(energies))
    rng = np.random.default_rng(0)
    amounts = [dict(zip((8, 11, 17), rng.random(3) + 0.01, strict=True)) for _ in range(40)]
    amounts += [dict(c) for c in compositions] + [{11: 1.0}, {47: 1, 8: 1}]
    found = hull(torch.stack([fractions(a) for a in amounts]))
    expected = torch.tensor([facets.energy(a) for a in amounts], dtype=torch.float64)
    assert largest(expected) > 1
    assert largest(found - expected) < 1e-8


def test_slope_is_that_of_the_facet(hull):
    """Inside a facet the gradient is the finite difference."""
    x = torch.stack([fractions({8: 0.1, 11: 0.6, 17: 0.3}), fractions({11: 0.7, 17: 0.3})]).requires_grad_()
    (slope,) = torch.autograd.grad(hull(x).sum(), x)
    rng = torch.Generator().manual_seed(0)
    direction = torch.randn(x.shape, generator=rng, dtype=torch.float64) * (x > 0)
    h = 1e-5
    expected = (hull(x.detach() + h * direction) - hull(x.detach() - h * direction)).sum() / (2 * h)
    assert abs(float((slope * direction).sum()) - float(expected)) < 1e-6
    assert abs(float(expected)) > 0.1


def test_traces_are_left_out(hull):
    """A hair of every element changes neither system nor value by more than the hair."""
    pure = fractions({11: 1, 17: 1})
    traced = 0.99 * pure + 0.01 / 94
    assert largest(hull(traced[None]) - hull(pure[None])) < 0.05


def test_unlabelled_and_unknown_phases_do_not_count():
    hull = SoftHull([{11: 1, 17: 1}, {11: 1, 17: 1}, {95: 1, 17: 1}], np.array([np.nan, -1.0, -9.0]))
    assert largest(hull(fractions({11: 1, 17: 1})[None]) + 1.0) < 1e-9
    with pytest.raises(ValueError, match="one energy per composition"):
        SoftHull([{11: 1}], np.array([1.0, 2.0]))


def test_a_composition_of_unknown_elements_has_no_hull():
    """Nothing of the elements 1-94: 0, beside crystals that have one."""
    hull = SoftHull([{11: 1, 17: 1}], np.array([-1.0]))
    x = torch.zeros(2, 94, dtype=torch.float64)
    x[0, [10, 16]] = 0.5
    assert hull(x).tolist() == [-1.0, 0.0]
