"""The benchmark command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from autoperi.commands import console

_JUDGED_BY = ("seed", "coverage", "stability", "hull", "keep_symmetry", "protocol", "fmax", "steps")


@dataclass(frozen=True)
class Benchmark:
    """Compare generators in one table and one page; an interrupted run resumes.

    Examples:
        autoperi benchmark ours=samples DiffCSP=diffcsp.pt --limit 1000 --baselines 1000 --out bench

    Attributes:
        models: NAME=PATH of crystals, or NAME=TABLE.csv@COLUMN for every model of a table.
        out: folder for comparison.md, .csv, .json, figures, report.html and models/.
        reference: data set or file to compare with.
        coverage: also COV-R and COV-P of the test split (needs the extra `coverage`; slow).
        stability: also relax with CHGNet and measure energies above the hull.
        hull: mp_20 (DFT), consistent (by CHGNet too) or a CSV (composition, formation_energy_per_atom).
        keep_symmetry: relax within the space group.
        protocol: of S.U.N. and its matcher: wyformer, mattergen, strict or cdvae.
        fmax: force at which a relaxation ends, eV/Å.
        steps: most steps of a relaxation.
        baselines: crystals of each untrained baseline.
        limit: crystals of each model, drawn at random; default all.
        workers: processes.
        seed: of the draw, the baselines and the bootstrap.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    out: Path
    reference: str = "mp_20"
    coverage: bool = False
    stability: bool = False
    hull: str = "mp_20"
    keep_symmetry: bool = False
    protocol: str = "wyformer"
    fmax: float = 0.1
    steps: int = 500
    baselines: int = 0
    limit: int | None = None
    workers: int = 1
    seed: int = 0

    def run(self) -> int:
        """Compare; exit status 1 if a model or a structure could not be read."""
        from evaluation.options import settings_from_options
        from evaluation.report.benchmark import BenchmarkSettings, benchmark, parse_models

        judged = settings_from_options(**{name: getattr(self, name) for name in _JUDGED_BY})
        settings = BenchmarkSettings(judged, self.limit, self.baselines, self.seed)
        models = parse_models(self.models)
        comparison = benchmark(models, self.out, self.reference, settings=settings, workers=self.workers)
        console.out.print(comparison.table(), *comparison.doubts(), sep="\n", markup=False)
        return 0 if comparison.complete else 1
