"""What is fitted on held-out crystals after training: uncertainties from warning signs, sureness of gates."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

Z90 = 1.6448536
"""Half-width of a central 90% interval in standard deviations of a normal distribution."""
RAW = (0.0, 1.0, 0.0, 0.0)
"""The blend that takes the raw uncertainty as it is."""
SURE = (1.0, 0.0)
"""The line in a gate's logit that takes it as it is."""


def warning_signs(variance: Tensor, spread: Tensor, distance: Tensor) -> Float[Tensor, "crystals targets 4"]:
    """What uncertainty is read from: 1 and the logs of raw uncertainty, spread and distance."""
    raw = 0.5 * (variance + 1e-12).log()
    far = (distance + 1e-3).log()[:, None].expand_as(raw)
    return torch.stack([torch.ones_like(raw), raw, (spread + 1e-3).log(), far], -1)


@torch.enable_grad()
def fit_blend(signs: Float[Tensor, "labels 4"], error: Float[Tensor, "labels"]) -> Float[Tensor, "4"]:
    """Log scale as a blend of signs: least Laplace loss, convex; a little ridge where a sign never changes.

    Errors of exactly zero (metals told from insulators) would have no finite scale: they are floored.
    """
    error = error + 0.05 * error.mean()
    start = torch.tensor(RAW, dtype=signs.dtype)

    def loss(blend: Tensor) -> Tensor:
        log_scale = signs @ blend
        ridge = 1e-3 * (blend - start)[1:].square().sum()
        return (error * torch.exp(-log_scale) + log_scale).mean() + ridge

    return _least(loss, start)


def fit_intervals(signs: Float[Tensor, "labels 4"], error: Float[Tensor, "labels"]) -> Float[Tensor, "4"]:
    """The blend scaled so that ± 1.645 of it holds 90% of the errors."""
    blend = fit_blend(signs, error)
    ratio = error / (Z90 * (signs @ blend).exp())
    blend[0] += ratio.quantile(0.9).clamp_min(1e-6).log()
    return blend


@torch.enable_grad()
def fit_gate(logit: Float[Tensor, "labels"], nonzero: Bool[Tensor, "labels"]) -> Float[Tensor, "2"]:
    """Slope and offset that make a gate as sure as it is right (Platt scaling), a little ridge on both."""
    start = torch.tensor(SURE, dtype=logit.dtype)

    def loss(line: Tensor) -> Tensor:
        told = line[0] * logit + line[1]
        ridge = 1e-3 * (line - start).square().sum()
        return binary_cross_entropy_with_logits(told, nonzero.to(logit)) + ridge

    return _least(loss, start)


def _least(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Where a convex function is least."""
    found = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([found], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(found)
        value.backward()
        return value

    optimizer.step(closure)
    return found.detach()
