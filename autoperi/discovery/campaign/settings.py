"""What a campaign looks for; with the number of a shard it decides what that finds."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoperi.crystals.labels import Window
from autoperi.generator.choice import Predict
from autoperi.generator.geometry import Descent
from autoperi.generator.settings import SampleConfig
from autoperi.genes.request import GeneRequest
from evaluation.facts.levels import LEVELS, Level
from evaluation.options import PotentialName
from evaluation.stability.hull_choice import HullChoice

KNOWN = ("mp_20/train", "mp_20/val", "mp_20/test")
ENERGY = "e_above_hull"


@dataclass(frozen=True)
class Campaign:
    """What is looked for, and how.

    Attributes:
        guide: adds ``predicted_e_above_hull`` (eV/atom) and, of every window, ``predicted_<name>`` and
            ``predicted_<name>_chance`` that it is met; these choose before and after relaxation.
        judge: adds ``judged_<name>``, told of what is found and never chosen by.
        windows: of properties by name.
        steer: windows of further conditions of the generator: what is drawn is steered into them, and nothing
            is chosen by them.
        sure: least chance that each window is met.
        stable: most energy above the hull, eV/atom, after relaxation by CHGNet with symmetry kept.
        novelty: the least level of novelty.
        known: reference sets, by name or path; a crystal in any of them is known.
        request: hard constraints, met exactly before and after relaxation.
        checkpoint: the generator.
        seed: of all randomness.
        config: how crystals are drawn.
        descent: gives that by whose energy one of several tries is kept.
        judges: further potentials that tell heights above their own hulls, never chosen by.
        hull: what heights are above.
        phonons: the potential by which crystals without imaginary phonons alone are kept; None asks of none.
        data_dir: folder of the data sets.
    """

    guide: Predict
    judge: Predict | None = None
    windows: tuple[tuple[str, Window], ...] = ()
    steer: tuple[tuple[str, Window], ...] = ()
    sure: float = 0.0
    stable: float = 0.05
    novelty: Level = "substitution"
    known: tuple[str, ...] = KNOWN
    request: GeneRequest = field(default_factory=GeneRequest)
    checkpoint: str = "mp_20"
    seed: int = 0
    config: SampleConfig = field(default_factory=SampleConfig)
    descent: Callable[[], Descent] | None = None
    judges: tuple[PotentialName, ...] = ()
    hull: HullChoice = field(default_factory=HullChoice)
    phonons: PotentialName | None = None
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.stable):
            raise ValueError(f"expected a finite height above the hull, eV/atom: got {self.stable}")
        if self.novelty not in LEVELS:
            raise ValueError(f"expected a novelty among {', '.join(LEVELS)}: got {self.novelty!r}")
        if not 0 <= self.sure < 1:
            raise ValueError(f"expected a chance from 0 to less than 1: got {self.sure}")
        if not self.known and self.novelty != "duplicate":
            raise ValueError("expected known crystals, against which novelty is told: got no set of them")
        for name, window in self.windows:
            if window.low == window.high:
                example = f"{window.low - 0.2:.4g}:{window.high + 0.2:.4g}"
                raise ValueError(
                    f"expected a range of {name}, e.g. {example}: a value is never met to the last digit"
                )

    def drawn(self) -> SampleConfig:
        """How crystals are drawn: known formulas with their genes are not paid for where they are refused."""
        return replace(self.config, novel=self.config.novel or self.novelty != "duplicate", workers=1)
