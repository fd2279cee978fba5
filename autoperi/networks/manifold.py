"""Flat manifolds as four functions: exp, log, sample, density of the sample."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Point = tuple[Tensor, ...]
"""A point of a product manifold: one tensor per factor, ragged rows, entries beyond a mask zero."""


@runtime_checkable
class Manifold(Protocol):
    """What the flow needs to know of a space."""

    def exp(self, x: Tensor, tangent: Tensor) -> Tensor:
        """Where the geodesic from x with this velocity is after unit time."""
        ...

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Velocity of the shortest geodesic from x to y."""
        ...

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """A draw from the base distribution (float64)."""
        ...

    def base_log_density(self, x: Tensor) -> Tensor:
        """Log-density of ``sample`` entry by entry."""
        ...


@dataclass(frozen=True)
class Euclidean:
    """ℝⁿ with a standard normal base."""

    def exp(self, x: Tensor, tangent: Tensor) -> Tensor:
        """``x + tangent``."""
        return x + tangent

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """``y - x``."""
        return y - x

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def base_log_density(self, x: Tensor) -> Tensor:
        """Log-density of the standard normal."""
        return -0.5 * x.square() - 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class FlatTorus:
    """[0, 1)ⁿ with opposite faces joined and a uniform base (Chen and Lipman, arXiv:2302.03660)."""

    def exp(self, x: Tensor, tangent: Tensor) -> Tensor:
        """(x + tangent) mod 1."""
        return (x + tangent) % 1.0

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Shortest way round, each entry in [-1/2, 1/2]."""
        difference = y - x
        return difference - difference.round()

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Uniform."""
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def base_log_density(self, x: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Product:
    """A product of manifolds: everything factor by factor."""

    factors: Sequence[Manifold]

    def exp(self, x: Point, tangent: Point) -> Point:
        """Factor by factor."""
        return tuple(m.exp(a, b) for m, a, b in zip(self.factors, x, tangent, strict=True))

    def log(self, x: Point, y: Point) -> Point:
        """Factor by factor."""
        return tuple(m.log(a, b) for m, a, b in zip(self.factors, x, y, strict=True))

    def base_log_density(self, x: Point) -> Point:
        """Factor by factor, entry by entry."""
        return tuple(m.base_log_density(a) for m, a in zip(self.factors, x, strict=True))
