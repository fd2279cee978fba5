"""How crystals are drawn: every choice of the sampler, with its default."""

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, get_args

from tyro.conf import arg

from autoperi.flow.settings import FlowSettings
from autoperi.genes.settings import DrawConfig

Genes = Literal["learned", "empirical"]
Species = Literal["prior", "flow"]
_STRICTEST = 0.95
"""Share of refused draws beyond which hardly a crystal would pass."""


_MOST_TRIES = 64


@dataclass(frozen=True)
class SampleConfig:
    """How crystals are drawn.

    Attributes:
        genes: learned draws new genes, empirical resamples those of the training set.
        species: prior draws species with the gene, flow lets the flow draw the chemistry.
        guidance: strength of the targets, in gene prior and flow; 1 is the plain conditional model.
        stability: share of the draws of each kind of chemistry that are refused as too far above the hull,
            before geometry is drawn: 0 refuses none, 0.5 keeps the better half; by default what the
            checkpoint finds best, none where it has no critic of stability.
        likely: least chance, foretold from the gene alone, that each value or range asked for is met; the
            likeliest of thirty-two genes is drawn where none has it, and with 0 the first is. Without a
            critic of targets in the checkpoint nothing is chosen so.
        tries: geometries drawn for each gene, from its nearest relatives and from noise; the one whose energy
            is lowest after a few steps down the shipped potential, a pupil of CHGNet, is kept. Figures of raw
            crystals are those of one try.
        novel: refuse crystals whose formula and gene stand together in the training set.
        draw: how genes and species are drawn.
        flow: how geometry is drawn.
        workers: threads; the result does not depend on it.
    """

    genes: Genes = "learned"
    species: Species = "prior"
    guidance: float = 1.0
    stability: float | None = None
    likely: float = 0.5
    tries: int = 1
    novel: bool = False
    draw: Annotated[DrawConfig, arg(name="")] = field(default_factory=DrawConfig)
    flow: Annotated[FlowSettings, arg(name="")] = field(default_factory=FlowSettings)
    workers: int = 1

    def __post_init__(self) -> None:
        for name, value, known in (
            ("genes", self.genes, get_args(Genes)),
            ("species", self.species, get_args(Species)),
        ):
            if value not in known:
                raise ValueError(f"expected {name} among {known}: got {value!r}")
        if not math.isfinite(self.guidance):
            raise ValueError(f"expected a finite guidance: got {self.guidance}")
        if self.stability is not None and not 0 <= self.stability <= _STRICTEST:
            raise ValueError(f"expected a stability from 0 to {_STRICTEST}: got {self.stability}")
        if not 0 <= self.likely < 1:
            raise ValueError(f"expected a chance from 0 to less than 1: got {self.likely}")
        if not 1 <= self.tries <= _MOST_TRIES:
            raise ValueError(f"expected 1 to {_MOST_TRIES} tries: got {self.tries}")
        if self.species == "flow" and self.flow.start.kind == "relative":
            raise ValueError("expected species from the prior where starts are relatives: got species 'flow'")
        if self.workers < 1:
            raise ValueError(f"expected at least one worker: got {self.workers}")

    def from_noise(self) -> "SampleConfig":
        """The same without relatives, unless these are asked for."""
        if self.flow.start.kind == "relative":
            return self
        return replace(self, flow=replace(self.flow, start=replace(self.flow.start, kind="noise")))
