"""How crystals are drawn: every choice of the sampler, with its default."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from tyro.conf import arg

from autoperi.flow.settings import FlowSettings
from autoperi.genes.settings import DrawConfig

Genes = Literal["learned", "empirical"]
Species = Literal["prior", "flow"]


@dataclass(frozen=True)
class SampleConfig:
    """How crystals are drawn.

    Attributes:
        genes: learned draws new genes, empirical resamples those of the training set.
        species: prior draws species with the gene, flow lets the flow draw the chemistry.
        guidance: strength of the targets, in gene prior and flow; 1 is the plain conditional model.
        draw: how genes and species are drawn.
        flow: how geometry is drawn.
        workers: threads; the result does not depend on it.
    """

    genes: Genes = "learned"
    species: Species = "prior"
    guidance: float = 1.0
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
        if self.workers < 1:
            raise ValueError(f"expected at least one worker: got {self.workers}")
