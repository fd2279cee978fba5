"""The command line: arguments in, one call into a room, files and a table out. No logic of its own.

The one file that may import every room; each command imports what it needs when it runs.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from autoperi.commands import console
from autoperi.commands.sample import Sample

_JUDGED_BY = ("seed", "coverage", "stability", "hull", "keep_symmetry", "protocol", "fmax", "steps")


@dataclass(frozen=True)
class Encode:
    """Encode structures into chemical latents, one row per symmetry-distinct site.

    Example: autoperi encode my_cifs/ --out latents

    Attributes:
        path: anything readable: CIF, folder or zip of CIFs, CSV with a CIF column, extxyz, POSCAR, JSON.
        out: folder for latents.csv (site by site) and run.json.
        checkpoint: a shipped checkpoint or a checkpoint folder.
        workers: processes that read and symmetrise.
        seed: unused by the encoder's means; kept in run.json.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    checkpoint: str = "mp_20"
    workers: int = 1
    seed: int = 0

    def run(self) -> int:
        """Read, symmetrise, encode; exit status 1 if any structure was left out."""
        from autoperi.commands.encode import encode_path

        rows, failures = encode_path(self.path, self.out, self.checkpoint, self.workers, self.seed)
        console.summary(f"latents in {self.out / 'latents.csv'}", rows)
        return console.left_out(failures)


@dataclass(frozen=True)
class Train:
    """Train a generator; interrupted runs resume where they stood.

    Example: autoperi train --out runs/mp_20
    Example: autoperi train --config my.toml --out runs/mine

    Attributes:
        out: folder of logs, resumable checkpoints and the finished checkpoint.
        config: TOML file with fields of `recipe.Recipe`; sizes default to the shipped checkpoint's.
        stage: one stage alone, or all in order.
        data_dir: folder of the data sets; default AUTOPERI_DATA, else download.
        seed: overrides the recipe's seeds.
    """

    out: Path
    config: Path | None = None
    stage: Literal["all", "autoencoder", "genes", "critic", "flow", "assemble"] = "all"
    data_dir: Path | None = None
    seed: int | None = None

    def run(self) -> int:
        """Run the recipe."""
        from autoperi.training.recipe import read_recipe, run_stages
        from evaluation.metrics.curve import training_figures
        from property_models.physics.training import training_physics

        recipe = read_recipe(self.config, self.seed)
        rooms = (training_figures, training_physics)
        figures = run_stages(recipe, self.out, self.stage, self.data_dir, sys.argv, *rooms)
        console.summary(f"training in {self.out}", figures)
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Judge crystals from any generator.

    Example: autoperi evaluate samples --reference mp_20 --out report

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
        from evaluation import evaluate, read_structures
        from evaluation.options import settings_from_options

        settings = settings_from_options(**{name: getattr(self, name) for name in _JUDGED_BY})
        self.out.mkdir(parents=True, exist_ok=True)
        journal = self.out / "relaxations.jsonl" if self.stability else None
        read = read_structures(self.path, workers=self.workers)
        report = evaluate(read, self.reference, self.data_dir, settings, self.workers, journal)
        report.save(self.out)
        console.out.print(report.table())
        return 1 if report.failures else 0


@dataclass(frozen=True)
class Benchmark:
    """Compare generators in one table and one page; an interrupted run resumes.

    Example: autoperi benchmark ours=samples DiffCSP=diffcsp.pt --limit 1000 --baselines 1000 --out bench

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


@dataclass(frozen=True)
class Predict:
    """Predict properties of crystals: value, uncertainty, and a flag for what the model does not know.

    Example: autoperi predict samples --property formation_energy band_gap --out predicted
    Example: autoperi predict my_cifs/ --checkpoint runs/toughness/checkpoint --out predicted

    Attributes:
        path: anything readable: CIF, folder or zip of CIFs, CSV with a CIF column, extxyz, POSCAR, JSON.
        out: folder for predictions.csv, distributions.png and run.json.
        property: which; default all that the shipped models, or the checkpoint, predict.
        checkpoint: folder of a model of your own (`autoperi train-property`); default the shipped ones.
        family: of the shipped models: guide to screen, judge to score what the guide has chosen.
        fast: one network of each ensemble alone, two to three times faster.
        workers: processes that read and symmetrise, then threads that predict.
        device: cpu, cuda or mps.
        seed: kept in run.json; nothing here is random.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    property: tuple[str, ...] = ()
    checkpoint: Path | None = None
    family: Literal["guide", "judge"] = "guide"
    fast: bool = False
    workers: int = 1
    device: str = "cpu"
    seed: int = 0

    def run(self) -> int:
        """Predict; exit status 1 if any structure was left out."""
        from property_models.uses.screen import predict_path

        models = (self.property, self.family, self.checkpoint)
        how = {"fast": self.fast, "workers": self.workers, "device": self.device}
        screened = predict_path(self.path, *models, **how)
        screened.save(self.out, {"source": str(self.path), "seed": self.seed, "fast": self.fast})
        console.summary(f"predictions in {self.out / 'predictions.csv'}", screened.summary())
        return console.left_out(screened.failures)


@dataclass(frozen=True)
class TrainProperty:
    """Learn any numeric columns of a table of crystals; an interrupted run resumes where it stood.

    Example: autoperi train-property mine.csv --targets toughness --out runs/toughness
    Example: autoperi predict new.csv --checkpoint runs/toughness/checkpoint --out predicted

    Attributes:
        table: CSV with a column cif, poscar or structure, or anything readable that carries numbers.
        targets: columns to learn together; empty cells are missing labels.
        out: folder of logs, resumable checkpoints, the finished checkpoint and run.json.
        config: TOML file with fields of `property_models.training.fit_ensemble.PropertyRecipe`.
        start: checkpoint to start from, a shipped one (`autoperi info`) or a folder: few labels go further.
        search: trials of a search for better sizes and learning rate first (needs the extra `search`).
        workers: processes that symmetrise, and networks trained at once.
        seed: overrides the recipe's.
    """

    table: Annotated[Path, tyro.conf.Positional]
    targets: tuple[str, ...]
    out: Path
    config: Path | None = None
    start: str | None = None
    search: int = 0
    workers: int = 2
    seed: int | None = None

    def run(self) -> int:
        """Train, calibrate, measure on held-out compounds; exit status 1 if any row could not be read."""
        from property_models.training.fit_ensemble import PropertyRecipe
        from property_models.training.train_property import train_property

        recipe = PropertyRecipe.read(self.config) if self.config else None
        what = (self.table, self.targets, self.out, recipe)
        how = {"workers": self.workers, "seed": self.seed, "search": self.search, "start": self.start}
        trained = train_property(*what, **how)
        console.summary(f"checkpoint in {self.out / 'checkpoint'}", trained.summary())
        return console.left_out(trained.left_out)


@dataclass(frozen=True)
class Relax:
    """Relax crystals with CHGNet, many together; an interrupted run resumes where it stood.

    Example: autoperi relax samples --keep-symmetry --out relaxed

    Attributes:
        path: files of any generator.
        out: folder for relaxed.extxyz, cif/, relax.csv, run.json and the journal.
        keep_symmetry: keep the space group found at 0.01 Å; faster too.
        fmax: longest force left on an atom or a cell vector, eV/Å.
        steps: most FIRE steps of a crystal.
        time_limit: computing time after which a crystal is given up, seconds.
        trajectories: also write every step, trajectories/<id>.extxyz.
        workers: processes.
        device: cpu, cuda or mps.
        seed: kept in run.json; nothing here is random.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    keep_symmetry: bool = False
    fmax: float = 0.1
    steps: int = 500
    time_limit: float = 600.0
    trajectories: bool = False
    workers: int = 1
    device: str = "cpu"
    seed: int = 0

    def run(self) -> int:
        """Relax; exit status 1 if any crystal could not be read or relaxed."""
        from autoperi.data.files import write_run
        from evaluation.relaxation.batch import BatchSettings
        from evaluation.relaxation.relax_files import relax_path
        from evaluation.relaxation.relaxation import RelaxationSettings

        settings = RelaxationSettings(
            self.fmax,
            self.steps,
            self.keep_symmetry,
            max_seconds=self.time_limit,
            trajectory=self.trajectories,
        )
        how = BatchSettings(settings, workers=self.workers, device=self.device)
        relaxed = relax_path(self.path, self.out, how)
        relaxed.save(self.out)
        about = {"source": str(self.path), "seed": self.seed, "settings": repr(settings)}
        write_run(self.out, {**about, **relaxed.summary(), "failures": relaxed.failures})
        console.summary(f"relaxed crystals in {self.out}", relaxed.summary())
        return console.left_out(relaxed.failures)


@dataclass(frozen=True)
class Info:
    """Show what is shipped, or what a checkpoint is: sizes, provenance, held-out figures, hash.

    Example: autoperi info
    Example: autoperi info band_gap_judge

    Attributes:
        checkpoint: a shipped checkpoint or a checkpoint folder, of a generator or of a property model;
            without it, the names of all that are shipped.
        out: folder for info.json, if wanted.
        seed: accepted by every command; nothing here is random.
    """

    checkpoint: Annotated[str, tyro.conf.Positional] = ""
    out: Path | None = None
    seed: int = 0

    def run(self) -> int:
        """Print and, if asked, write."""
        from property_models.catalogue import described, sizes

        title, rows = "shipped", sizes()
        if self.checkpoint:
            name, rows = described(self.checkpoint)
            title = f"checkpoint {name}"
        console.summary(title, rows)
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            told = json.dumps({"name": self.checkpoint or title, **rows}, indent=1)
            (self.out / "info.json").write_text(told + "\n")
        return 0


_COMMANDS = {
    "sample": Sample,
    "train": Train,
    "encode": Encode,
    "evaluate": Evaluate,
    "benchmark": Benchmark,
    "predict": Predict,
    "train-property": TrainProperty,
    "relax": Relax,
    "info": Info,
}


def _sample(command: Sample) -> int:
    predictor = steering = None
    if command.predict:
        from property_models.uses.screen import predictor
    if command.physics:
        from property_models.physics.guidance import energy_guidance as steering
    return command.run(predictor, steering)


def main() -> None:
    """Entry point of ``autoperi``; user errors are one line and exit status 2."""
    command = tyro.extras.subcommand_cli_from_dict(_COMMANDS, prog="autoperi", description=__doc__)
    try:
        status = _sample(command) if isinstance(command, Sample) else command.run()
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        if os.environ.get("AUTOPERI_DEBUG"):
            raise
        console.complain(f"autoperi: {error}")
        status = 2
    sys.exit(status)


if __name__ == "__main__":
    main()
