"""The evaluate command."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import Judging, asked
from evaluation.options import ClassName, Options


@dataclass(frozen=True)
class Evaluate:
    """Judge crystals of any generator: validity, novelty, distribution, symmetry and stability.

    Examples:
        autoperi evaluate samples --out report
        autoperi evaluate diffcsp.pt --stability --keep-symmetry --out report
        autoperi evaluate zeolites --class zeolite --out report

    Attributes:
        path: crystals in any form: folder, CIF, zip, CSV with a CIF column, extxyz, JSON, npz or pt.
        out: folder for report.html, metrics.md, metrics.json, per_structure.csv and figures.
        reference: data set or file to compare with.
        kind: class by whose rules and against whose train set they are judged, in place of all else:
            metrics.md, metrics.json and per_structure.csv are written.
        judging: What is measured, and by which rules.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    reference: str = "mp_20"
    kind: Annotated[ClassName | None, tyro.conf.arg(name="class")] = None
    judging: Annotated[Options, tyro.conf.OmitArgPrefixes] = field(default_factory=Options)
    advanced: Annotated[Judging, tyro.conf.OmitArgPrefixes] = field(default_factory=Judging)

    def run(self) -> int:
        """Evaluate; exit status 1 if any structure could not be read."""
        if self.kind is not None:
            return self._by_class(self.kind)
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

    def _by_class(self, kind: ClassName) -> int:
        """By the rules of one class."""
        from autoperi.data.run_folder import run_folder
        from evaluation import evaluate_class, read_structures
        from evaluation.metric import BootstrapSettings

        if self.reference != type(self).reference or self.judging != Options(seed=self.judging.seed):
            raise ValueError(
                f"expected --class {kind} without a reference and without options of stability, coverage and "
                "protocol: a class has its own train set and rules"
            )
        with run_folder(self.out, asked(self), self.path) as folder:
            read = read_structures(self.path)
            bootstrap = BootstrapSettings(seed=self.judging.seed)
            report = evaluate_class(read, kind, self.advanced.data_dir, bootstrap, self.advanced.workers)
            report.save(folder.new)
            counts = {"readable": len(read.samples), "failures": [(f.id, f.reason) for f in read.failures]}
            folder.finish({"source": str(self.path), **counts})
        console.out.print(report.table())
        return 1 if report.failures else 0
