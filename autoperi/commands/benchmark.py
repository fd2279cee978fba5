"""The benchmark command."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import Judging
from evaluation.options import Options


@dataclass(frozen=True)
class Benchmark:
    """Compare generators in one table and one page; an interrupted run resumes.

    Examples:
        autoperi benchmark ours=samples DiffCSP=diffcsp.pt --out bench
        autoperi benchmark ours=samples others=table.csv@model --limit 1000 --baselines 1000 --out bench

    Attributes:
        models: NAME=PATH of crystals, or NAME=TABLE.csv@COLUMN for every model of a table.
        out: folder for comparison.md, .csv, .json, figures, report.html and models/.
        reference: data set or file to compare with.
        limit: crystals of each model, drawn at random; default all.
        baselines: crystals of each untrained baseline.
        judging: What is measured, and by which rules; the seed is that of draws and baselines too.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=PATH ...")]
    out: Path
    reference: str = "mp_20"
    limit: int | None = None
    baselines: int = 0
    judging: Annotated[Options, tyro.conf.OmitArgPrefixes] = field(default_factory=Options)
    advanced: Annotated[Judging, tyro.conf.OmitArgPrefixes] = field(default_factory=Judging)

    def run(self) -> int:
        """Compare; exit status 1 if a model or a structure could not be read."""
        from evaluation import EvaluationSettings
        from evaluation.report.benchmark import BenchmarkSettings, benchmark, parse_models

        judged = EvaluationSettings.of(self.judging)
        settings = BenchmarkSettings(judged, self.limit, self.baselines, self.judging.seed)
        models = parse_models(self.models)
        where = (self.out, self.reference, self.advanced.data_dir)
        comparison = benchmark(models, *where, settings, self.advanced.workers)
        console.out.print(comparison.table(), *comparison.doubts(), sep="\n", markup=False)
        return 0 if comparison.complete else 1
