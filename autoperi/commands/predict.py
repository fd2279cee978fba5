"""The predict command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import asked


@dataclass(frozen=True)
class Predict:
    """Predict properties of crystals: value, uncertainty, and a flag for what the model does not know.

    Examples:
        autoperi predict samples --property formation_energy band_gap --out predicted
        autoperi predict my_cifs/ --checkpoint runs/toughness/checkpoint --out predicted

    Attributes:
        path: anything readable: CIF, folder or zip of CIFs, CSV with a CIF column, extxyz, POSCAR, JSON.
        out: folder for predictions.csv, distributions.png and run.json.
        property: which; default all that the shipped models, or the checkpoint, predict.
        checkpoint: folder of a model of your own (`autoperi train-property`); default the shipped ones.
        family: of the shipped models: guide to screen, judge to score what the guide has chosen.
        fast: one network of each ensemble alone, two to three times faster.
        workers: processes that read and symmetrise, then threads that predict.
        device: cpu, cuda or cuda:N.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    property: tuple[str, ...] = ()
    checkpoint: Path | None = None
    family: Literal["guide", "judge"] = "guide"
    fast: bool = False
    workers: int = 1
    device: str = "cpu"

    def run(self) -> int:
        """Predict; exit status 1 if any structure was left out."""
        from autoperi.data.run_folder import run_folder
        from property_models.uses.screen import predict_path

        models = (self.property, self.family, self.checkpoint)
        how = {"fast": self.fast, "workers": self.workers, "device": self.device}
        with run_folder(self.out, asked(self), self.path) as folder:
            screened = predict_path(self.path, *models, **how)
            screened.save(folder.new)
            folder.finish({"source": str(self.path), "fast": self.fast, **screened.record()})
        console.summary(f"predictions in {self.out / 'predictions.csv'}", screened.summary())
        return console.left_out(screened.failures)
