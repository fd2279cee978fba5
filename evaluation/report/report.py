"""The outcome of an evaluation: on the terminal, as files, as one page."""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from autoperi.crystals.viewer.page import Scene, Section, render_page
from autoperi.data.names import with_formulas, without_formulas
from autoperi.data.reading import Failure
from evaluation.metric import Metric
from evaluation.report.figures import all_figures, svg_address
from evaluation.report.page import failure_section, figure_section, interval_text, metric_table

_LIBRARIES = ("autoperi-gnn", "pymatgen", "smact", "moyopy", "chgnet", "numpy", "scipy")
_TEXT_COLUMNS = ("id", "formula", "gene", "duplicate_of", "match_error", "error")


@dataclass(frozen=True)
class Report:
    """Everything an evaluation found.

    Attributes:
        per_structure: one row per readable crystal; first column `id`.
        metrics: by name, each with denominator, interval and protocol.
        failures: unreadable items.
        source: where the crystals came from.
        reference_name: what they were compared with.
        reference_table: facts of the reference crystals, for the figures.
        settings: the conventions used, a dataclass or its plain form.
        pairs_compared: geometric comparisons behind uniqueness and novelty.
        scenes: what the page draws, see `evaluation.report.page.scenes`.
    """

    per_structure: pd.DataFrame
    metrics: Mapping[str, Metric]
    failures: Sequence[Failure]
    source: str
    reference_name: str
    reference_table: pd.DataFrame = field(repr=False)
    settings: Any = None
    pairs_compared: Mapping[str, int] = field(default_factory=dict)
    scenes: Sequence[Scene] = field(default=(), repr=False)

    def table(self) -> Table:
        """The metrics for the terminal."""
        table = Table(title=f"{self.source}: {self._counts()}", caption=self.reference_name)
        for heading, justify in (
            ("metric", "left"),
            ("value", "right"),
            ("95% interval", "right"),
            ("floor", "right"),
            ("n", "right"),
            ("of", "left"),
            ("protocol", "left"),
        ):
            table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for metric in self.metrics.values():
            value = f"{metric.value:.4g}" + (f" {metric.unit}" if metric.unit else "")
            interval = interval_text(metric)
            floor = "" if metric.floor is None else f"{metric.floor:.3g}"
            table.add_row(
                metric.name, value, interval, floor, str(metric.n), metric.denominator, metric.protocol
            )
        return table

    def as_dict(self) -> dict[str, Any]:
        """Metrics, failures, settings and library versions as plain values."""
        settings = self.settings
        if settings is not None and not isinstance(settings, dict):
            settings = asdict(settings)
        return {
            "source": self.source,
            "reference": self.reference_name,
            "n_readable": len(self.per_structure),
            "failures": [asdict(failure) for failure in self.failures],
            "pairs_compared": dict(self.pairs_compared),
            "metrics": {name: metric.as_dict() for name, metric in self.metrics.items()},
            "settings": settings,
            "versions": library_versions(),
        }

    def save(self, out_dir: Path | str) -> Path:
        """Write the files of `save_tables`, the figures as PNG and report.html; returns the folder."""
        folder = self.save_tables(out_dir)
        figures = all_figures(
            {"samples": self.per_structure}, self.reference_table, {"samples": self.metrics}
        )
        for name, (figure, _) in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=130)
        images = {name: (svg_address(figure), caption) for name, (figure, caption) in figures.items()}
        page = render_page(
            "Crystal report",
            f"{self.source}: {self._counts()}. Reference: {self.reference_name}.",
            {"samples": (self.scenes, self.per_structure.to_dict("records"))},
            ", ".join(f"{name} {version}" for name, version in library_versions().items()),
            [Section("metrics", "Metrics", metric_table({"samples": self.metrics})), figure_section(images)],
            [failure_section({"samples": self.failures})],
        )
        (folder / "report.html").write_text(page, encoding="utf-8")
        return folder

    def save_tables(self, out_dir: Path | str) -> Path:
        """Write metrics.json, per_structure.csv and scenes.json, all that `load` needs."""
        folder = Path(out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.as_dict(), indent=1, default=str, allow_nan=False)
        (folder / "metrics.json").write_text(text + "\n")
        without_formulas(self.per_structure).to_csv(folder / "per_structure.csv", index=False)
        (folder / "scenes.json").write_text(json.dumps(list(self.scenes)) + "\n")
        return folder

    @classmethod
    def load(cls, folder: Path | str, reference_table: pd.DataFrame) -> "Report":
        """A report from the files of `save_tables`.

        Raises:
            FileNotFoundError: when one of them is missing.
        """
        folder = Path(folder)
        stored = json.loads((folder / "metrics.json").read_text())
        header = pd.read_csv(folder / "per_structure.csv", nrows=0).columns
        texts = {column: "string" for column in _TEXT_COLUMNS if column in header}
        table = pd.read_csv(
            folder / "per_structure.csv",
            dtype=texts,  # type: ignore[arg-type]
            keep_default_na=False,
            na_values={c: [""] for c in header if c != "id"},
        )
        metrics = {
            name: Metric(**{**record, "value": float("nan") if record["value"] is None else record["value"]})
            for name, record in stored["metrics"].items()
        }
        return cls(
            per_structure=with_formulas(table),
            metrics=metrics,
            failures=tuple(Failure(**failure) for failure in stored["failures"]),
            source=stored["source"],
            reference_name=stored["reference"],
            reference_table=reference_table,
            settings=stored["settings"],
            pairs_compared=stored["pairs_compared"],
            scenes=json.loads((folder / "scenes.json").read_text()),
        )

    def _counts(self) -> str:
        return f"{len(self.per_structure)} readable, {len(self.failures)} unreadable"


def library_versions() -> dict[str, str]:
    """Versions of the libraries that the figures depend on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
