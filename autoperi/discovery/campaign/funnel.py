"""The funnel of a campaign: how many crystals entered and left each stage, and what it cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape

from autoperi.crystals.viewer.page import Section


@dataclass(frozen=True)
class Passed:
    """What came of a stage.

    Attributes:
        stage: its name.
        entered: crystals.
        left: crystals that are still there after it.
        seconds: of a core.
        missed: of each window, by its name, how far the nearest prediction was from it.
    """

    stage: str
    entered: int
    left: int
    seconds: float
    missed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Funnel:
    """Stages in order, over any number of shards.

    Attributes:
        stages: what came of each.
    """

    stages: Sequence[Passed] = ()

    @classmethod
    def summed(cls, funnels: Iterable["Funnel"]) -> "Funnel":
        """Several funnels of the same stages as one."""
        total: dict[str, Passed] = {}
        for funnel in funnels:
            for one in funnel.stages:
                old = total.get(one.stage, Passed(one.stage, 0, 0, 0.0))
                total[one.stage] = Passed(
                    one.stage,
                    old.entered + one.entered,
                    old.left + one.left,
                    old.seconds + one.seconds,
                    {**old.missed, **{k: min(far, old.missed.get(k, far)) for k, far in one.missed.items()}},
                )
        return cls(tuple(total.values()))

    def then(self, stage: str, left: int, seconds: float = 0.0) -> "Funnel":
        """The same with one more stage."""
        entered = self.stages[-1].left if self.stages else 0
        return Funnel((*self.stages, Passed(stage, entered, left, seconds)))

    @property
    def seconds(self) -> float:
        """Of a core, in all stages."""
        return sum(one.seconds for one in self.stages)

    @property
    def drawn(self) -> int:
        """Crystals that the generator was asked for."""
        return self.stages[0].entered if self.stages else 0

    @property
    def found(self) -> int:
        """Crystals after the last stage."""
        return self.stages[-1].left if self.stages else 0

    def per_hour(self) -> float:
        """Crystals found in an hour of a core."""
        return 3600 * self.found / self.seconds if self.seconds else 0.0

    def narrowest(self) -> Passed | None:
        """The stage that let the smallest share pass."""
        entered = [one for one in self.stages if one.entered]
        return min(entered, key=lambda one: one.left / one.entered, default=None)

    def missed(self) -> dict[str, float]:
        """Windows that no crystal came into, and how far the nearest was from them."""
        told = next((one.missed for one in self.stages if one.missed), {})
        return {name: far for name, far in told.items() if far > 0}

    def record(self) -> dict:
        """As plain values."""
        told = ({**asdict(one), "seconds": round(one.seconds, 3)} for one in self.stages)
        stages = [{name: value for name, value in one.items() if value != {}} for one in told]
        return {
            "stages": stages,
            "cpu_seconds": round(self.seconds, 3),
            "crystals_per_cpu_hour": round(self.per_hour(), 2),
        }

    def lines(self) -> str:
        """For a terminal: a line a stage."""
        width = max((len(one.stage) for one in self.stages), default=0)
        most = max(self.drawn, 1)
        bars = ["█" * round(24 * one.left / most) for one in self.stages]
        return "\n".join(
            f"{one.stage:<{width}} {one.left:>7} {bar:<24} {one.seconds:>9.1f} s"
            for one, bar in zip(self.stages, bars, strict=True)
        )

    def section(self) -> Section:
        """For a page: bars with numbers."""
        most = max(self.drawn, 1)
        rows = "".join(
            f"<tr><td>{escape(one.stage)}</td><td>{one.entered}</td><td>{one.left}</td>"
            f'<td style="min-width:16em"><div style="background:#4477aa;height:.9em;width:'
            f'{100 * one.left / most:.2f}%"></div></td><td>{one.seconds:.1f}</td></tr>'
            for one in self.stages
        )
        head = "<tr><th>stage</th><th>entered</th><th>left</th><th></th><th>core-seconds</th></tr>"
        told = f"<p>{self.found} crystals, {self.per_hour():.0f} in an hour of a core.</p>"
        return Section("funnel", "Funnel", f'{told}<div class="scroll"><table>{head}{rows}</table></div>')
