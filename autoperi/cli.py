"""The command line: arguments in, one call into a room, files and a table out. No logic of its own.

The one file that may import every room; each command imports what it needs when it runs.
"""

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

_out = Console()
_err = Console(stderr=True)


@dataclass(frozen=True)
class Sample:
    """Draw new crystals.

    Example: autoperi sample --n 1000 --seed 0 --out samples
    Example: autoperi sample --n 100 --formula BaTiO3 --space-group 99 --out batio3
    Example: autoperi sample --n 100 --band-gap 1.3 --guidance 2 --elements Ga As In P --out gaps

    Attributes:
        n: how many crystals.
        seed: of all randomness; crystal i depends on (seed, i) alone.
        out: folder for crystals.extxyz, cif/, crystals.csv and run.json.
        checkpoint: a shipped checkpoint or a checkpoint folder.
        genes: learned prior (new genes) or the training set's.
        species: drawn with the gene (prior) or by the flow.
        temperature: of the species; below 1 is more conservative.
        letter_temperature: of the orbits; above 1 gives more new genes.
        sweeps: rounds in which half of the species are drawn again given the rest.
        band_gap: target, eV.
        formation_energy: target, eV/atom.
        e_above_hull: target, eV/atom.
        guidance: strength of the targets; 1 is the plain conditional model.
        space_group: permitted space-group numbers.
        crystal_system: permitted crystal system.
        formula: reduced formula, e.g. BaTiO3.
        anonymous_formula: e.g. ABC3.
        chemical_system: exactly these elements, e.g. Ba-Ti-O.
        elements: only these elements may appear.
        exclude: these elements may not appear.
        atoms: fewest and most atoms per primitive cell.
        solver: integrator of the flow.
        steps: solver steps.
        restarts: rounds of noising a drawn crystal in part and drawing it again.
        corrections: passes of the denoising decoder.
        log_likelihood: also write the log-density of geometry given gene and species, in nats.
        workers: threads; the result does not depend on it.
        device: cpu, cuda or mps.
    """

    out: Path
    n: int = 100
    seed: int = 0
    checkpoint: str = "mp_20"
    genes: Literal["learned", "empirical"] = "learned"
    species: Literal["prior", "flow"] = "prior"
    temperature: float = 1.0
    letter_temperature: float = 1.35
    sweeps: int = 1
    band_gap: float | None = None
    formation_energy: float | None = None
    e_above_hull: float | None = None
    guidance: float = 1.0
    space_group: tuple[int, ...] = ()
    crystal_system: str | None = None
    formula: str | None = None
    anonymous_formula: str | None = None
    chemical_system: str | None = None
    elements: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    atoms: tuple[int, int] | None = None
    solver: Literal["euler", "midpoint", "rk4", "dopri5"] = "euler"
    steps: int = 15
    restarts: int = 3
    corrections: int = 5
    log_likelihood: bool = False
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    device: str = "cpu"

    def run(self) -> int:
        """Sample and write."""
        from dataclasses import replace

        import torch
        from rich.progress import Progress

        from autoperi.constraints import GeneRequest
        from autoperi.files import write_crystals
        from autoperi.flow import Solver
        from autoperi.generator import SampleConfig, load
        from autoperi.model import FlowSettings, Restart

        began = time.perf_counter()
        torch.set_num_threads(1)  # the workers are the parallelism: more threads would only contend
        generator = load(self.checkpoint, self.device)
        loaded = time.perf_counter()
        request = GeneRequest(
            space_groups=self.space_group or None,
            crystal_system=self.crystal_system,
            formula=self.formula,
            anonymous_formula=self.anonymous_formula,
            chemical_system=self.chemical_system,
            allowed_elements=self.elements or None,
            denied_elements=self.exclude,
            n_atoms=self.atoms,
        )
        asked = {name: getattr(self, name) for name in ("band_gap", "formation_energy", "e_above_hull")}
        conditions = {name: value for name, value in asked.items() if value is not None}
        config = SampleConfig(
            genes=self.genes,
            species=self.species,
            temperature=self.temperature,
            letter_temperature=self.letter_temperature,
            sweeps=self.sweeps,
            guidance=self.guidance,
            flow=FlowSettings(Solver(self.solver, self.steps), Restart(self.restarts), 1.0, self.corrections),
            workers=self.workers,
        )
        with Progress(console=_err, transient=True) as bar:
            task = bar.add_task("sampling", total=self.n)
            crystals = generator.sample(
                self.n,
                self.seed,
                request=request,
                conditions=conditions,
                config=config,
                progress=lambda done: bar.advance(task, done),
            )
        if self.log_likelihood:
            densities = generator.flow.log_prob(crystals, probes=1, seed=self.seed)
            crystals = [
                replace(c, properties={**c.properties, "log_likelihood": float(d)})
                for c, d in zip(crystals, densities, strict=True)
            ]
        sampled = time.perf_counter()
        record = {
            "seed": self.seed,
            "checkpoint": {"name": generator.name, "sha256": generator.sha256},
            "conditions": conditions,
            "settings": repr(config),
            "request": repr(request),
        }
        seconds = {"load": loaded - began, "sample": sampled - loaded}
        write_crystals(crystals, self.out, {**record, "seconds": seconds})
        written = time.perf_counter() - sampled
        _summary(
            f"{self.n} crystals in {self.out}",
            {
                "load / sample / write": f"{seconds['load']:.1f} / {seconds['sample']:.1f} / {written:.1f} s",
                "space groups": str(len({c.space_group for c in crystals})),
                "genes": str(len({c.gene for c in crystals})),
                "formulas": str(len({c.formula for c in crystals})),
                "atoms per cell": f"{sum(c.n_atoms for c in crystals) / len(crystals):.1f} on average",
                "first": ", ".join(f"{c.formula} ({c.space_group})" for c in crystals[:5]),
            },
        )
        return 0


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
        from autoperi.dataset import load_dataset
        from autoperi.files import latents_table
        from autoperi.generator import load

        dataset = load_dataset(self.path, None, workers=self.workers)
        generator = load(self.checkpoint)
        crystals = list(dataset)
        table = latents_table(crystals, generator.flow.encode(crystals))
        self.out.mkdir(parents=True, exist_ok=True)
        table.to_csv(self.out / "latents.csv", index=False)
        run = {
            "seed": self.seed,
            "source": str(self.path),
            "checkpoint": {"name": generator.name, "sha256": generator.sha256},
            "failures": [list(row) for row in dataset.failures],
        }
        _write_json(self.out / "run.json", run)
        counts = {"crystals": len(crystals), "sites": len(table), "left out": len(dataset.failures)}
        _summary(f"latents in {self.out / 'latents.csv'}", {name: str(n) for name, n in counts.items()})
        return _left_out(dataset.failures)


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
    stage: Literal["all", "autoencoder", "genes", "flow", "assemble"] = "all"
    data_dir: Path | None = None
    seed: int | None = None

    def run(self) -> int:
        """Run the recipe."""
        from autoperi.recipe import read_recipe, run_stages
        from evaluation.curve import training_figures

        recipe = read_recipe(self.config, self.seed)
        figures = run_stages(recipe, self.out, self.stage, self.data_dir, sys.argv, training_figures)
        _summary(f"training in {self.out}", figures)
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
        coverage: also COV-R, COV-P and fingerprint distances (needs the extra `coverage`; slow).
        stability: also relax with CHGNet and measure energies above the hull.
        workers: processes.
        seed: of the bootstrap.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    reference: str = "mp_20"
    data_dir: Path | None = None
    coverage: bool = False
    stability: bool = False
    workers: int = 1
    seed: int = 0

    def run(self) -> int:
        """Evaluate; exit status 1 if any structure could not be read."""
        from evaluation import EvaluationSettings, evaluate, read_structures
        from evaluation.coverage import CoverageSettings
        from evaluation.metric import BootstrapSettings
        from evaluation.stability import StabilitySettings

        settings = EvaluationSettings(
            bootstrap=BootstrapSettings(seed=self.seed),
            coverage=CoverageSettings(seed=self.seed) if self.coverage else None,
            stability=StabilitySettings() if self.stability else None,
        )
        self.out.mkdir(parents=True, exist_ok=True)
        journal = self.out / "relaxations.jsonl" if self.stability else None
        read = read_structures(self.path, workers=self.workers)
        report = evaluate(read, self.reference, self.data_dir, settings, self.workers, journal)
        report.save(self.out)
        _out.print(report.table())
        return 1 if report.failures else 0


@dataclass(frozen=True)
class Benchmark:
    """Compare generators in one table and one page; an interrupted run resumes.

    Example: autoperi benchmark ours=samples DiffCSP=diffcsp.pt --limit 1000 --baselines 1000 --out bench

    Attributes:
        models: NAME=PATH of crystals, or NAME=TABLE.csv@COLUMN for every model of a table.
        out: folder for comparison.md, .csv, .json, figures, report.html and models/.
        reference: data set or file to compare with.
        stability: also relax with CHGNet and measure energies above the hull.
        baselines: crystals of each untrained baseline.
        limit: crystals of each model, drawn at random; default all.
        workers: processes.
        seed: of the draw, the baselines and the bootstrap.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    out: Path
    reference: str = "mp_20"
    stability: bool = False
    baselines: int = 0
    limit: int | None = None
    workers: int = 1
    seed: int = 0

    def run(self) -> int:
        """Compare; exit status 1 if a model or a structure could not be read."""
        from evaluation import EvaluationSettings
        from evaluation.benchmark import BenchmarkSettings, benchmark, parse_models
        from evaluation.metric import BootstrapSettings
        from evaluation.stability import StabilitySettings

        stability = StabilitySettings() if self.stability else None
        judged = EvaluationSettings(bootstrap=BootstrapSettings(seed=self.seed), stability=stability)
        settings = BenchmarkSettings(judged, self.limit, self.baselines, self.seed)
        models = parse_models(self.models)
        comparison = benchmark(models, self.out, self.reference, settings=settings, workers=self.workers)
        _out.print(comparison.table(), *comparison.doubts(), sep="\n", markup=False)
        return 0 if comparison.complete else 1


@dataclass(frozen=True)
class Info:
    """Show what a checkpoint is: sizes, provenance, figures, hash.

    Example: autoperi info mp_20

    Attributes:
        checkpoint: a shipped checkpoint or a checkpoint folder.
        out: folder for info.json, if wanted.
        seed: accepted by every command; nothing here is random.
    """

    checkpoint: Annotated[str, tyro.conf.Positional] = "mp_20"
    out: Path | None = None
    seed: int = 0

    def run(self) -> int:
        """Print and, if asked, write."""
        from autoperi.generator import load

        generator = load(self.checkpoint)
        rows = generator.describe()
        _summary(f"checkpoint {generator.name}", rows)
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            _write_json(self.out / "info.json", {"name": generator.name, **rows})
        return 0


def _write_json(path: Path, content: dict) -> None:
    import json

    path.write_text(json.dumps(content, indent=1) + "\n")


def _left_out(failures: list[tuple[str, str, str]]) -> int:
    """Name what could not be read; the exit status."""
    for name, where, reason in failures:
        _err.print(f"left out: {name} ({where}): {reason}", style="yellow", highlight=False, markup=False)
    return 1 if failures else 0


def _summary(title: str, rows: dict[str, str]) -> None:
    table = Table(title=title, show_header=False, min_width=len(title) + 4)
    for name, value in rows.items():
        table.add_row(name, value)
    _out.print(table)


_COMMANDS = {c.__name__.lower(): c for c in (Sample, Train, Encode, Evaluate, Benchmark, Info)}


def main() -> None:
    """Entry point of ``autoperi``; user errors are one line and exit status 2."""
    command = tyro.extras.subcommand_cli_from_dict(_COMMANDS, prog="autoperi", description=__doc__)
    try:
        status = command.run()
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        if os.environ.get("AUTOPERI_DEBUG"):
            raise
        _err.print(f"autoperi: {error}", style="red", highlight=False, markup=False)
        status = 2
    sys.exit(status)


if __name__ == "__main__":
    main()
