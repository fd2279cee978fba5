"""The evaluate command."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import Judging, asked
from evaluation.options import Options


@dataclass(frozen=True)
class Evaluate:
    """Judge crystals of any generator: validity, novelty, distribution, symmetry and stability.

    Examples:
        autoperi evaluate samples --out report
        autoperi evaluate diffcsp.pt --stability --keep-symmetry --out report

    Attributes:
        path: crystals in any form: folder, CIF, zip, CSV with a CIF column, extxyz, JSON, npz or pt.
        out: folder for report.html, metrics.md, metrics.json, per_structure.csv and figures.
        reference: data set or file to compare with.
        judging: What is measured, and by which rules.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    reference: str = "mp_20"
    judging: Annotated[Options, tyro.conf.OmitArgPrefixes] = field(default_factory=Options)
    advanced: Annotated[Judging, tyro.conf.OmitArgPrefixes] = field(default_factory=Judging)

    def run(self) -> int:
        """Evaluate; exit status 1 if any structure could not be read."""
        from autoperi.data.run_folder import run_folder
        from evaluation import EvaluationSettings, evaluate, read_structures

        settings = EvaluationSettings.of(self.judging)
        with run_folder(self.out, asked(self), self.path) as folder:
            journal = folder.path / "relaxations.jsonl" if settings.stability else None
            read = read_structures(self.path)
            where = (self.reference, self.advanced.data_dir)
            report = evaluate(read, *where, settings, self.advanced.workers, journal)
            report.save(folder.new)
            counts = {"readable": len(read.samples), "failures": [(f.id, f.reason) for f in read.failures]}
            folder.finish({"source": str(self.path), **counts})
        console.out.print(report.table())
        return 1 if report.failures else 0
