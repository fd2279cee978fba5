"""The relax command."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import Computing, asked
from evaluation.options import PotentialName
from evaluation.relaxation.settings import RelaxationSettings


@dataclass(frozen=True)
class Relaxation:
    """By which potential, when a relaxation ends, and what it keeps.

    Attributes:
        potential: chgnet, or sevennet (SevenNet-l3i5, extra `judge`).
        keep_symmetry: keep the space group found at 0.01 Å; faster too.
        fmax: longest force left on an atom or a cell vector, eV/Å.
        steps: most FIRE steps of a crystal.
        time_limit: computing time after which a crystal is given up, seconds.
    """

    potential: PotentialName = "chgnet"
    keep_symmetry: bool = False
    fmax: float = RelaxationSettings.fmax
    steps: int = RelaxationSettings.max_steps
    time_limit: float = RelaxationSettings.max_seconds


@dataclass(frozen=True)
class Relax:
    """Relax crystals, many together; an interrupted run resumes where it stood.

    Examples:
        autoperi relax samples --keep-symmetry --out relaxed

    Attributes:
        path: crystals in any form: folder, CIF, zip, CSV with a CIF column, extxyz, JSON, npz or pt.
        out: folder for relaxed.extxyz, cif/, relax.csv, index.html, run.json and the journal.
        trajectories: also write every step, trajectories/<id>.extxyz.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    trajectories: bool = False
    relaxation: Annotated[Relaxation, tyro.conf.OmitArgPrefixes] = field(default_factory=Relaxation)
    advanced: Annotated[Computing, tyro.conf.OmitArgPrefixes] = field(default_factory=Computing)

    def run(self) -> int:
        """Relax; exit status 1 if any crystal could not be read or relaxed."""
        from autoperi.data.run_folder import run_folder
        from evaluation.relaxation.batch import BatchSettings
        from evaluation.relaxation.relax_files import relax_path
        from evaluation.settings import potential

        asked_for = self.relaxation
        settings = RelaxationSettings(
            asked_for.fmax,
            asked_for.steps,
            asked_for.keep_symmetry,
            max_seconds=asked_for.time_limit,
            trajectory=self.trajectories,
        )
        how = BatchSettings(
            settings,
            workers=self.advanced.workers,
            device=self.advanced.device,
            relaxer=potential(asked_for.potential),
        )
        with run_folder(self.out, asked(self), self.path) as folder:
            relaxed = relax_path(self.path, folder.path, how)
            relaxed.save(folder.new)
            about = {"source": str(self.path), "settings": repr(settings)}
            folder.finish({**about, **relaxed.summary(), "failures": relaxed.failures})
        console.summary(f"relaxed crystals in {self.out}", relaxed.summary())
        return console.left_out(relaxed.failures)
