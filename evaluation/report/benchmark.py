"""Many models against one reference: judged one by one, resumable, compared in one table and one page."""

import errno
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from importlib.resources import files
from pathlib import Path

import pandas as pd
from pymatgen.core import Structure
from rich.console import Console

from autoperi.crystals.viewer.page import Section, render_page
from autoperi.data.cache import DAMAGED
from autoperi.data.names import file_names, one_line
from autoperi.data.reading import ReadResult, as_read_result, read_groups, read_structures
from autoperi.data.run_folder import run_folder
from evaluation.facts.baselines import BASELINES, draw_baseline
from evaluation.facts.reference import Reference, ReferenceSettings, load_reference
from evaluation.report.comparison import Comparison, Kind, Row
from evaluation.report.figures import all_figures, svg_address
from evaluation.report.page import failure_section, figure_section, metric_table
from evaluation.report.published import published_tables
from evaluation.report.report import Report, library_versions
from evaluation.report.suite import evaluate
from evaluation.settings import EvaluationSettings

# These modules only show what was measured: a change in them leaves finished stages valid.
_PRESENTATION = ("benchmark", "comparison", "figures", "headline", "page", "published", "report")
_console = Console(stderr=True)


@dataclass(frozen=True)
class TableGroup:
    """Rows of one model in a CSV table that holds several.

    Attributes:
        path: of the table.
        column: that names the model.
        value: in that column.
    """

    path: Path
    column: str
    value: str


Source = Path | str | TableGroup | ReadResult | Sequence[Structure]


@dataclass(frozen=True)
class BenchmarkSettings:
    """How models are compared.

    Attributes:
        evaluation: every convention of the figures.
        limit: so many items of each file at most, drawn at random; None takes all. Equal numbers make
            uniqueness comparable.
        baselines: crystals drawn from each baseline; 0 leaves them out.
        seed: of that draw and of the baselines.
    """

    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    limit: int | None = None
    baselines: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers of crystals that cannot be."""
        if (self.limit is not None and self.limit < 1) or self.baselines < 0:
            raise ValueError(
                "expected at least one crystal of each model and none or more of each baseline: got limit "
                f"{self.limit}, baselines {self.baselines}"
            )


def parse_models(arguments: Sequence[str]) -> dict[str, Source]:
    """Models from the command line: `NAME=PATH`, or `NAME=TABLE.csv@COLUMN` for each model of a table.

    The models of a table are called `NAME/value`.

    Raises:
        ValueError: when an argument has another form or a name occurs twice.
        FileNotFoundError: when a path does not exist.
    """
    models: dict[str, Source] = {}
    for argument in arguments:
        name, equals, place = argument.partition("=")
        if not (name and equals and place):
            raise ValueError(f"expected NAME=PATH or NAME=TABLE.csv@COLUMN: got {argument!r}")
        path, at, column = place.rpartition("@")
        if not at or Path(place).exists():
            found: dict[str, Source] = {name: _existing(place)}
        else:
            table = pd.read_csv(_existing(path), usecols=lambda c, wanted=column: c == wanted)
            if column not in table:
                raise ValueError(f"no column {column!r} in {path}")
            values = table[column].astype(str).drop_duplicates()
            found = {f"{name}/{value}": TableGroup(Path(path), column, value) for value in values}
        for key, source in ((one_line(key), source) for key, source in found.items()):
            if key in models:
                raise ValueError(f"two models are called {key!r}: give each its own name")
            models[key] = source
    return models


def benchmark(
    models: Mapping[str, Source],
    out: Path | str,
    reference: str | Path | Reference = "mp_20",
    data_dir: Path | str | None = None,
    settings: BenchmarkSettings = BenchmarkSettings(),
    workers: int = 1,
) -> Comparison:
    """Judge every model and the baselines, compare them, and write it all to a folder.

    Each finished model is kept under `models/`, so that an interrupted run, started again, goes on with
    the first unfinished one (and within it with the first unfinished relaxation). A stage is done again
    when its file, the settings, the reference, a library or the measuring code has changed. A model that
    cannot be judged is named in its row; the others are finished.

    Args:
        models: crystals of each model by its name: a path, a part of a table, or structures.
        out: folder for comparison.md, .csv, .json, figures, report.html and models/.
        reference: name of a data set, a file of crystals, or a Reference.
        data_dir: folder of the data sets; by default that of AUTOPERI_DATA, else they are downloaded.
        settings: conventions, limit and baselines.
        workers: processes used where work can be shared.

    Raises:
        FileNotFoundError: when a model's path or the reference does not exist.
    """
    out = Path(out)
    for source in models.values():
        if isinstance(source, str | Path):
            _existing(source)
    if not isinstance(reference, Reference):
        where = ReferenceSettings(
            Path(data_dir) if data_dir else None, symmetry=settings.evaluation.symmetry, workers=workers
        )
        reference = load_reference(reference, where)
    tasks: list[tuple[str, Kind, Source | None]] = []
    tasks.extend((name, "model", source) for name, source in models.items())
    if settings.baselines:
        tasks.extend((name, "baseline", None) for name in BASELINES)
    with run_folder(out, {"command": "benchmark"}) as folder:  # each stage knows what it was asked for
        stages = _Stages(folder.path / "models", reference, data_dir, settings, workers)
        rows, reports = _judged_all(tasks, stages)
        for table in published_tables():
            rows += [Row(f"{m} ({table.source})", "published", table.metrics(m)) for m in table.rows]
        provenance = {"settings": asdict(settings), "versions": library_versions()}
        comparison = Comparison(rows, str(reference), provenance, settings.evaluation.protocol)
        comparison.save(folder.new)
        _write_page(comparison, reports, reference, folder.new)
        errors = {row.name: row.error for row in rows if row.error}
        folder.finish({"models": list(reports), "failures": errors, "reference": str(reference)})
    return comparison


def _judged_all(
    tasks: Sequence[tuple[str, Kind, Source | None]], stages: "_Stages"
) -> tuple[list[Row], dict[str, Report]]:
    """A row for each task, and the reports of those that could be judged; one model at least."""
    rows: list[Row] = []
    reports: dict[str, Report] = {}
    for position, (name, kind, source) in enumerate(tasks, 1):
        _console.print(f"[{position}/{len(tasks)}] {name}", highlight=False, markup=False)
        try:
            report = stages.baseline(name) if source is None else stages.model(name, source)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            rows.append(Row(name, kind, {}, error=one_line(f"{type(error).__name__}: {error}")[:300]))
            _console.print(f"{name} could not be judged: {error}", style="red", markup=False)
            continue
        reports[name] = report
        rows.append(Row(name, kind, report.metrics, len(report.per_structure), len(report.failures)))
    if not any(name in reports for name, kind, _ in tasks if kind == "model"):
        told = "; ".join(f"{row.name}: {row.error}" for row in rows if row.kind == "model")
        raise ValueError(f"expected crystals of at least one model: {told or 'none was named'}")
    return rows, reports


class _Stages:
    """One folder per model, each with the key of what it was computed from."""

    def __init__(
        self,
        folder: Path,
        reference: Reference,
        data_dir: Path | str | None,
        settings: BenchmarkSettings,
        workers: int,
    ) -> None:
        self._folder = folder
        self._reference = reference
        self._data_dir = data_dir
        self._settings = settings
        self._workers = workers
        self._common = json.dumps(
            [asdict(settings.evaluation), str(reference), library_versions(), _code_digest()], default=str
        )

    def model(self, name: str, source: Source) -> Report:
        limit, seed = self._settings.limit, self._settings.seed
        key = f"{_source_digest(source)} limit {limit} seed {seed}"
        return self._judged(name, key, lambda: self._read(source))

    def baseline(self, name: str) -> Report:
        n, seed = self._settings.baselines, self._settings.seed

        def read() -> ReadResult:
            kept = self._folder.parent / "baselines"
            drawn = draw_baseline(name, self._reference, n, seed, self._workers, kept)
            return replace(as_read_result(drawn.structures), source=drawn.method)

        return self._judged(name, f"baseline {n} seed {seed}", read)

    def _judged(self, name: str, key: str, read: Callable[[], ReadResult]) -> Report:
        folder = self._folder / _stage_name(name)
        stamp = hashlib.sha256(f"{name}\n{key}\n{self._common}".encode()).hexdigest()
        done = folder / "stage.txt"
        if done.exists() and done.read_text().strip() == stamp:
            try:
                return Report.load(folder, self._reference.table)
            except DAMAGED as error:
                _console.print(f"{folder} is damaged ({error}): judged again", style="yellow", markup=False)
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        settings = self._settings.evaluation
        journal = folder / "relaxations.jsonl" if settings.stability is not None else None
        report = evaluate(read(), self._reference, self._data_dir, settings, self._workers, journal)
        report.save_tables(folder)
        done.write_text(stamp + "\n")
        return Report.load(folder, self._reference.table)

    def _read(self, source: Source) -> ReadResult:
        limit, seed = self._settings.limit, self._settings.seed
        if isinstance(source, TableGroup):
            return read_groups(source.path, source.column, limit, seed)[source.value]
        if isinstance(source, str | Path):
            return read_structures(source, limit, seed)
        read = as_read_result(source)
        return read if limit is None else ReadResult(read.samples[:limit], read.failures, read.source)


def _write_page(
    comparison: Comparison, reports: Mapping[str, Report], reference: Reference, out: Path
) -> None:
    tables = {name: report.per_structure for name, report in reports.items()}
    metrics = {name: report.metrics for name, report in reports.items()}
    headline = [column.metric for column in comparison.columns()]
    shown = {model: {k: own[k] for k in headline if k in own} for model, own in metrics.items()}
    images = {}
    for name, (figure, caption) in all_figures(tables, reference.table, shown).items():
        figure.savefig(out / f"{name}.png", dpi=130)
        images[name] = (svg_address(figure), caption)
    page = render_page(
        "Benchmark of crystal generators",
        f"{len(reports)} sets of crystals against {reference}. Every figure is measured here unless its row "
        "says published.",
        {name: (report.scenes, report.per_structure.to_dict("records")) for name, report in reports.items()},
        ", ".join(f"{name} {version}" for name, version in library_versions().items()),
        [
            Section("comparison-section", "Comparison", comparison.html()),
            figure_section(images),
        ],
        [
            Section("metrics", "All figures and their provenance", metric_table(metrics)),
            Section("published", "Published figures", _published_html()),
            failure_section({name: report.failures for name, report in reports.items()}),
        ],
    )
    (out / "report.html").write_text(page, encoding="utf-8")


def _published_html() -> str:
    """The papers' tables as printed, each with its source and protocol."""
    parts = []
    for table in published_tables():
        head = "".join(f'<th class="number">{escape(c.replace("_", " "))}</th>' for c in table.columns)
        body = "".join(
            f"<tr><td>{escape(model)}</td>"
            + "".join(f'<td class="number">{"" if v is None else escape(str(v))}</td>' for v in values)
            + "</tr>"
            for model, values in table.rows.items()
        )
        parts.append(
            f"<details><summary>{escape(table.title)}: {escape(table.source)}</summary>"
            f'<p class="note">{escape(table.protocol)}</p><div class="scroll"><table class="sortable">'
            f"<thead><tr><th>model</th>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
        )
    return "".join(parts)


def _existing(path: Path | str) -> Path:
    if not Path(path).exists():
        raise FileNotFoundError(f"no file or folder {path}")
    return Path(path)


def _stage_name(name: str) -> str:
    """A folder's name that depends on nothing but the model's; different models never share one."""
    (safe,) = file_names([name])
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _source_digest(source: Source) -> str:
    """SHA-256 of what a model's crystals come from."""
    digest = hashlib.sha256()
    if isinstance(source, TableGroup):
        digest.update(f"{source.column}\n{source.value}\n".encode())
        source = source.path
    if isinstance(source, str | Path):
        path = Path(source)
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(file.relative_to(path.parent).as_posix().encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()
    for sample in as_read_result(source).samples:
        structure = sample.structure
        digest.update(f"{sample.id} {structure.atomic_numbers}".encode())
        digest.update(structure.lattice.matrix.tobytes() + structure.frac_coords.tobytes())
    return digest.hexdigest()


def _code_digest() -> str:
    """SHA-256 of the code that measures."""
    digest = hashlib.sha256()
    for file in sorted(Path(str(files("evaluation"))).rglob("*.py")):
        if file.stem not in _PRESENTATION:
            digest.update(file.read_bytes())
    return digest.hexdigest()
