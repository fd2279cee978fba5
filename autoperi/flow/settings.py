"""How the flow is integrated: plain numbers, so that nothing heavy is imported to name them."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from tyro.conf import arg

StartKind = Literal["auto", "noise", "relative"]
Method = Literal["euler", "midpoint", "rk4", "dopri5"]
_MOST_STEPS = 10_000
"""All states of an integration are kept, so that more would only fill the memory."""


@dataclass(frozen=True)
class Solver:
    """How the flow's differential equation is solved.

    Attributes:
        method: a torchdiffeq method.
        steps: steps of a fixed-step method.
        crowding: exponent that crowds the steps towards t = 1, where geometry becomes sharp:
            t = 1 - (1 - u)**crowding; 1 is an even grid.
        tolerance: relative and absolute tolerance of dopri5.
    """

    method: Annotated[Method, arg(name="solver")] = "euler"
    steps: int = 8
    crowding: float = 1.5
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"expected a solver among {get_args(Method)}: got {self.method!r}")
        if not 1 <= self.steps <= _MOST_STEPS:
            raise ValueError(f"expected 1 to {_MOST_STEPS} solver steps, all are kept: got {self.steps}")
        if not (0 < self.crowding <= 100 and 0 < self.tolerance <= 1):
            raise ValueError(
                "expected positive crowding and tolerance, at most 100 and 1: "
                f"got {self.crowding} and {self.tolerance}"
            )


@dataclass(frozen=True)
class Restart:
    """Going back some way and forth again, which corrects what went wrong the first time.

    A drawn crystal is noised to an earlier time, as in training, and carried to the data again (Xu et al.,
    arXiv:2306.14878). The noise forgets errors of the geometry; what is right is found again.

    Attributes:
        rounds: rounds of noising a crystal drawn from noise in part and drawing it again; 0 leaves the plain
            flow. Many short ones beat few long ones.
        time: how far back; 1 is the crystal, 0 is pure noise.
        steps: solver steps from there, and from a relative.
    """

    rounds: Annotated[int, arg(name="restarts")] = 30
    time: Annotated[float, arg(name="restart-time")] = 0.7
    steps: Annotated[int, arg(name="restart-steps")] = 2

    def __post_init__(self) -> None:
        if not (0 <= self.rounds <= 1000 and 1 <= self.steps <= _MOST_STEPS and 0 <= self.time < 1):
            raise ValueError(
                f"expected 0 to 1000 restarts, 1 to {_MOST_STEPS} steps of each and 0 <= time < 1: got {self}"
            )


@dataclass(frozen=True)
class StartSettings:
    """Where a trajectory begins.

    Attributes:
        kind: noise; relative, the training crystal of the same gene and pattern with the elements nearest
            (needs known species); auto takes the relative where there is one, else a near crystal of the same
            gene whose elements are ordered otherwise, else noise.
        time: how far a relative is taken as it is; 1 is unchanged, 0 is noise; by default what the checkpoint
            finds best.
    """

    kind: Annotated[StartKind, arg(name="start")] = "auto"
    time: Annotated[float | None, arg(name="start-time")] = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(StartKind):
            raise ValueError(f"expected a start among {get_args(StartKind)}: got {self.kind!r}")
        if self.time is not None and not 0 < self.time < 1:
            raise ValueError(f"expected a start time between 0 and 1: got {self.time}")


@dataclass(frozen=True)
class FlowSettings:
    """How geometry (and, where unknown, chemistry) is drawn for given genes.

    Attributes:
        solver: integration of the flow.
        restart: rounds of going back and forth after it.
        corrections: passes of the denoising decoder after the flow.
        settling: where physics guides, steps along it alone after the corrections, which do not know it.
        batch_size: crystals integrated together; does not change the result.
        start: where trajectories begin.
    """

    solver: Annotated[Solver, arg(name="")] = field(default_factory=Solver)
    restart: Annotated[Restart, arg(name="")] = field(default_factory=Restart)
    corrections: int = 1
    settling: int = 20
    batch_size: int = 128
    start: Annotated[StartSettings, arg(name="")] = field(default_factory=StartSettings)

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not all(0 <= n <= 10_000 for n in (self.corrections, self.settling)):
            raise ValueError(
                f"expected batch_size >= 1, corrections and settling from 0 to 10000: got {self}"
            )
