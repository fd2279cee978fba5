"""The evaluate command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import asked

_JUDGED_BY = ("seed", "coverage", "stability", "hull", "keep_symmetry", "protocol", "fmax", "steps")


@dataclass(frozen=True)
class Evaluate:
    """Judge crystals of any generator: validity, novelty, distribution, symmetry and stability.

    Examples:
        autoperi evaluate samples --reference mp_20 --out report

    Attributes:
        path: files of any generator.
        out: folder for metrics.json, per_structure.csv, figures and report.html.
        reference: data set or file to compare with.
        data_dir: folder of the data sets; default AUTOPERI_DATA.
        coverage: also COV-R, COV-P and fingerprint distances to the test split (extra `coverage`; slow).
        stability: also relax with CHGNet and measure energies above the hull.
        hull: mp_20 (DFT), consistent (by CHGNet too) or a CSV (composition, formation_energy_per_atom).
        keep_symmetry: relax within the space group.
        protocol: of S.U.N. and its matcher: wyformer, mattergen, strict or cdvae.
        fmax: force at which a relaxation ends, eV/Å.
        steps: most steps of a relaxation.
        workers: processes.
        seed: of the bootstrap.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    reference: str = "mp_20"
    data_dir: Path | None = None
    coverage: bool = False
    stability: bool = False
    hull: str = "mp_20"
    keep_symmetry: bool = False
    protocol: str = "wyformer"
    fmax: float = 0.1
    steps: int = 500
    workers: int = 1
    seed: int = 0

    def run(self) -> int:
        """Evaluate; exit status 1 if any structure could not be read."""
        from autoperi.data.run_folder import run_folder
        from evaluation import evaluate, read_structures
        from evaluation.options import settings_from_options

        settings = settings_from_options(**{name: getattr(self, name) for name in _JUDGED_BY})
        with run_folder(self.out, asked(self), self.path) as folder:
            journal = folder.path / "relaxations.jsonl" if self.stability else None
            read = read_structures(self.path)
            if not read.samples:
                first = f", first {read.failures[0].id}: {read.failures[0].reason}" if read.failures else ""
                raise ValueError(
                    f"expected crystals in {self.path}: got {len(read.failures)} unreadable items{first}"
                )
            report = evaluate(read, self.reference, self.data_dir, settings, self.workers, journal)
            report.save(folder.new)
            counts = {"readable": len(read.samples), "failures": [(f.id, f.reason) for f in read.failures]}
            folder.finish({"source": str(self.path), **counts})
        console.out.print(report.table())
        return 1 if report.failures else 0
