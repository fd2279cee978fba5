import numpy as np
import pytest
import torch

from property_models.networks.calibration import fit_gate
from property_models.networks.distribution import Distribution

GATED = Distribution(
    size=torch.tensor([[2.0], [0.3], [1.0]]),
    scale=torch.tensor([[0.5], [0.4], [0.2]]),
    nonzero=torch.tensor([[0.9], [0.6], [0.2]]),
    gated=torch.tensor([True]),
)


def _drawn(told: Distribution, n: int) -> np.ndarray:
    """Values that follow a distribution of gated targets, one row for each crystal."""
    rng = np.random.default_rng(0)
    size, scale, share = (x.numpy() for x in (told.size, told.scale, told.nonzero))
    values = np.maximum(rng.laplace(size, scale, (len(size), n)), 0)
    return np.where(rng.random(values.shape) < share, values, 0.0)


def test_windows_hold_what_is_drawn():
    """Shares of windows are those of drawn values, with zero inside, outside and at the edge."""
    values = _drawn(GATED, 200_000)
    for low, high in ((-0.3, 0.3), (0.0, 0.0), (0.0, 1.0), (1.7, 2.3), (0.1, np.inf), (-np.inf, np.inf)):
        told = GATED.within(low, high).squeeze(1).numpy()
        assert told == pytest.approx(((values >= low) & (values <= high)).mean(1), abs=4e-3)
    assert GATED.median.squeeze(1).numpy() == pytest.approx(np.median(values, 1), abs=0.02)


def test_targets_that_are_not_gated_may_be_negative():
    """The median is the value, and nine tenths lie within ± 1.645 of the uncertainty."""
    told = Distribution.around(torch.tensor([[-1.0, 3.0]]), torch.tensor([[0.5, 2.0]]))
    assert told.median.tolist() == [[-1.0, 3.0]]
    assert float(told.within(-1 - 1.6449 * 0.5, -1 + 1.6449 * 0.5)[0, 0]) == pytest.approx(0.9, abs=1e-4)
    assert float(told.within(-np.inf, -1)[0, 0]) == pytest.approx(0.5)


def test_gradients_are_finite_where_the_decision_turns():
    share = torch.tensor([[0.0], [0.5], [0.500001], [1.0]], requires_grad=True)
    told = Distribution(torch.ones(4, 1), torch.ones(4, 1), share, torch.tensor([True]))
    assert bool(torch.autograd.grad(told.median.sum(), share)[0].isfinite().all())


def test_a_gate_becomes_as_sure_as_it_is_right():
    """Labels that follow a fifth of the logit less one give that line back."""
    torch.manual_seed(0)
    logit = 5 * torch.randn(20_000, dtype=torch.double)
    nonzero = torch.rand_like(logit) < (0.2 * logit - 1).sigmoid()
    slope, offset = fit_gate(logit, nonzero).tolist()
    assert slope == pytest.approx(0.2, abs=0.02)
    assert offset == pytest.approx(-1, abs=0.06)
