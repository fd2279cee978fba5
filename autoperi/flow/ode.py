"""Conditional flow matching on a product manifold: path, sampling, likelihood.

The only file that knows torchdiffeq; it knows nothing of crystals. A velocity is any callable
``velocity(t, point) -> tangent`` with a scalar t; t = 0 is noise, t = 1 is data.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchdiffeq import odeint

from autoperi.flow.settings import Solver
from autoperi.networks.manifold import Point, Product

_TOGETHER = 8
"""Vector-Jacobian products that are taken at once."""
Velocity = Callable[[Tensor, Point], Point]


@dataclass(frozen=True)
class PathSample:
    """A point on the geodesic from noise to data and its velocity there."""

    x_0: Point
    x_1: Point
    t: Float[Tensor, "crystals"]
    x_t: Point
    dx_t: Point


def geodesic_path(
    manifold: Product, x_0: Point, velocity: Point, t: Float[Tensor, "crystals"], rows: tuple[Tensor, ...]
) -> PathSample:
    """Points at times t on geodesics x_0 -> x_1 (Chen and Lipman, arXiv:2302.03660, eq. 13).

    Args:
        manifold: the product of factors.
        x_0: base points.
        velocity: with which the geodesic leaves x_0; ``manifold.log(x_0, x_1)`` for the shortest one.
        t: one time in [0, 1] per crystal.
        rows: for each factor, the crystal of each row.
    """
    moved = tuple(t[index][:, None] * u for u, index in zip(velocity, rows, strict=True))
    return PathSample(x_0, manifold.exp(x_0, velocity), t, manifold.exp(x_0, moved), velocity)


def time_grid(solver: Solver, like: Tensor, start: float = 0.0) -> Float[Tensor, "times"]:
    """The times from ``start`` to 1 at which a fixed-step method stands; the ends for an adaptive one."""
    points = 2 if solver.method == "dopri5" else solver.steps + 1
    u = torch.linspace(0, 1, points, dtype=torch.float64)
    return (1 - (1 - start) * (1 - u) ** solver.crowding).to(like)


def _integrate(solver: Solver, velocity: Velocity, start: Point, times: Float[Tensor, "times"]) -> Point:
    """State at each of ``times``, stacked in front; unwrapped, as torchdiffeq leaves it."""
    states = odeint(
        velocity, start, times, method=solver.method, rtol=solver.tolerance, atol=solver.tolerance
    )
    return tuple(torch.as_tensor(state) for state in states)


def sample_flow(
    velocity: Velocity, manifold: Product, x: Point, solver: Solver, start: float = 0.0
) -> list[Point]:
    """Carry points from time ``start`` along the flow; the state at every solver time, the last at 1."""

    def wrapped(t: Tensor, point: Point) -> Point:
        return velocity(t, manifold.exp(point, tuple(torch.zeros_like(a) for a in point)))

    states = _integrate(solver, wrapped, x, time_grid(solver, x[0], start))
    zeros = tuple(torch.zeros_like(a) for a in x)
    return [manifold.exp(point, zeros) for point in zip(*states, strict=True)]


Divergence = Callable[[Tensor, Point], tuple[Point, Float[Tensor, "*probes crystals"]]]


def log_prob(
    divergence: Divergence,
    base: Callable[[Point], Float[Tensor, "crystals"]],
    x_1: Point,
    solver: Solver,
    probes: int | None = None,
) -> Float[Tensor, "*probes crystals"]:
    """Log-density of data points by the instantaneous change of variables, per crystal.

    ``log p(x_1) = log p_0(x_0) - ∫ div v dt`` (Chen et al., arXiv:1806.07366, eq. 8), the integral taken
    backwards along the trajectory.

    Args:
        divergence: returns the velocity and its divergence per crystal at (t, point).
        base: log-density of the base per crystal.
        x_1: data points.
        solver: how to integrate.
        probes: of an estimated divergence, each of which gives an estimate; None for an exact one.
    """
    shape = () if probes is None else (probes,)
    start = x_1[0].new_zeros(*shape, len(base(x_1)))

    def augmented(t: Tensor, state: Point) -> Point:
        velocity, trace = divergence(t, state[:-1])
        return (*velocity, trace)

    times = time_grid(solver, x_1[0]).flip(0)
    states = _integrate(solver, augmented, (*x_1, start), times)
    *x_0, integral = (s[-1] for s in states)
    return base(tuple(x_0)) + integral


def exact_divergence(
    velocity: Velocity, rows: tuple[Int[Tensor, "_"], ...], masks: Point, n_crystals: int
) -> Divergence:
    """Divergence by one vector-Jacobian product per free coordinate, of all crystals at once."""
    slot = _slots(rows, masks, n_crystals)
    most = 1 + max(int(s.max()) for s in slot if s.numel())

    def evaluate(t: Tensor, x: Point) -> tuple[Point, Tensor]:
        with torch.enable_grad():
            point = tuple(a.detach().requires_grad_() for a in x)
            v = velocity(t, point)
            total = x[0].new_zeros(n_crystals)
            for which in torch.arange(most, device=total.device).split(_TOGETHER):
                probes = tuple((s == which[:, None, None]).to(a) for s, a in zip(slot, v, strict=True))
                total = total + _quadratics(v, point, probes, rows, n_crystals).sum(0)
        return tuple(a.detach() for a in v), total

    return evaluate


def hutchinson_divergence(
    velocity: Velocity,
    rows: tuple[Int[Tensor, "_"], ...],
    masks: Point,
    n_crystals: int,
    probes: list[Point],
) -> Divergence:
    """An unbiased divergence from each of some fixed ±1 probes (Grathwohl et al., arXiv:1810.01367)."""
    masked = tuple(torch.stack(p) * m for p, m in zip(zip(*probes, strict=True), masks, strict=True))
    groups = list(zip(*(p.split(_TOGETHER) for p in masked), strict=True))

    def evaluate(t: Tensor, x: Point) -> tuple[Point, Tensor]:
        with torch.enable_grad():
            point = tuple(a.detach().requires_grad_() for a in x)
            v = velocity(t, point)
            found = [_quadratics(v, point, group, rows, n_crystals) for group in groups]
        return tuple(a.detach() for a in v), torch.cat(found)

    return evaluate


def _slots(rows: tuple[Tensor, ...], masks: Point, n_crystals: int) -> tuple[Tensor, ...]:
    """Number the free coordinates of each crystal 0, 1, 2, ... across factors; -1 where fixed."""
    crystal = torch.cat([r[:, None].expand(m.shape)[m > 0] for r, m in zip(rows, masks, strict=True)])
    order = torch.argsort(crystal, stable=True)
    counts = torch.bincount(crystal, minlength=n_crystals)
    start = counts.cumsum(0) - counts
    number = torch.empty_like(crystal)
    number[order] = torch.arange(len(crystal), device=crystal.device) - start[crystal[order]]
    slots, used = [], 0
    for mask in masks:
        slot = torch.full(mask.shape, -1, dtype=torch.long, device=mask.device)
        n = int((mask > 0).sum())
        slot[mask > 0] = number[used : used + n]
        used += n
        slots.append(slot)
    return tuple(slots)


def _quadratics(
    v: Point, x: Point, probes: Point, rows: tuple[Tensor, ...], n_crystals: int
) -> Float[Tensor, "probes crystals"]:
    """Probe · J · probe per crystal, for probes that are stacked in front."""
    gradients = torch.autograd.grad(v, x, probes, retain_graph=True, allow_unused=True, is_grads_batched=True)
    total = v[0].new_zeros(len(probes[0]), n_crystals)
    for g, p, r in zip(gradients, probes, rows, strict=True):
        if g is not None:
            total = total.index_add(1, r, (g * p).sum(-1))
    return total
