"""The predict command."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import Computing, asked


@dataclass(frozen=True)
class Models:
    """What is predicted, and by which models.

    Attributes:
        property: names of properties; default all that the shipped models, or the checkpoint, predict.
        checkpoint: folder of a model of your own (`autoperi train-property`); default the shipped ones.
        family: of the shipped models: guide to screen, judge to score what the guide has chosen.
        fast: one network of each ensemble alone, two to three times faster.
    """

    property: tuple[str, ...] = ()
    checkpoint: Path | None = None
    family: Literal["guide", "judge"] = "guide"
    fast: bool = False


@dataclass(frozen=True)
class Predict:
    """Predict properties of crystals: value, uncertainty, and a flag for what the model does not know.

    Examples:
        autoperi predict samples --property formation_energy band_gap --out predicted
        autoperi predict my_cifs/ --checkpoint runs/toughness/checkpoint --out predicted

    Attributes:
        path: anything readable: CIF, folder or zip of CIFs, CSV with a CIF column, extxyz, POSCAR, JSON.
        out: folder for predictions.csv, distributions.png, index.html and run.json.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    models: Annotated[Models, tyro.conf.OmitArgPrefixes] = field(default_factory=Models)
    advanced: Annotated[Computing, tyro.conf.OmitArgPrefixes] = field(default_factory=Computing)

    def run(self) -> int:
        """Predict; exit status 1 if any structure was left out."""
        from autoperi.data.run_folder import run_folder
        from property_models.uses.screen import predict_path

        models = (self.models.property, self.models.family, self.models.checkpoint)
        fast = self.models.fast
        with run_folder(self.out, asked(self), self.path) as folder:
            screened = predict_path(self.path, *models, fast=fast, **asdict(self.advanced))
            screened.save(folder.new)
            folder.finish({"source": str(self.path), "fast": fast, **screened.record()})
        console.summary(f"predictions in {self.out / 'predictions.csv'}", screened.summary())
        return console.left_out(screened.failures)
