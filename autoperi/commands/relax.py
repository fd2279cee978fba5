"""The relax command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import asked
from evaluation.relaxation.settings import RelaxationSettings


@dataclass(frozen=True)
class Relax:
    """Relax crystals with CHGNet, many together; an interrupted run resumes where it stood.

    Examples:
        autoperi relax samples --keep-symmetry --out relaxed

    Attributes:
        path: files of any generator.
        out: folder for relaxed.extxyz, cif/, relax.csv, run.json and the journal.
        keep_symmetry: keep the space group found at 0.01 Å; faster too.
        fmax: longest force left on an atom or a cell vector, eV/Å.
        steps: most FIRE steps of a crystal.
        time_limit: computing time after which a crystal is given up, seconds.
        trajectories: also write every step, trajectories/<id>.extxyz.
        workers: processes.
        device: cpu, cuda or cuda:N.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    keep_symmetry: bool = False
    fmax: float = RelaxationSettings.fmax
    steps: int = RelaxationSettings.max_steps
    time_limit: float = RelaxationSettings.max_seconds
    trajectories: bool = False
    workers: int = 1
    device: str = "cpu"

    def run(self) -> int:
        """Relax; exit status 1 if any crystal could not be read or relaxed."""
        from autoperi.data.run_folder import run_folder
        from evaluation.relaxation.batch import BatchSettings
        from evaluation.relaxation.relax_files import relax_path

        settings = RelaxationSettings(
            self.fmax,
            self.steps,
            self.keep_symmetry,
            max_seconds=self.time_limit,
            trajectory=self.trajectories,
        )
        how = BatchSettings(settings, workers=self.workers, device=self.device)
        with run_folder(self.out, asked(self), self.path) as folder:
            relaxed = relax_path(self.path, folder.path, how)
            relaxed.save(folder.new)
            about = {"source": str(self.path), "settings": repr(settings)}
            folder.finish({**about, **relaxed.summary(), "failures": relaxed.failures})
        console.summary(f"relaxed crystals in {self.out}", relaxed.summary())
        return console.left_out(relaxed.failures)
