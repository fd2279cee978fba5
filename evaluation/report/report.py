"""The outcome of an evaluation: on the terminal, as files, as one page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from autoperi.crystals.viewer.page import Scene, Section, render_page
from autoperi.data.cache import versions
from autoperi.data.names import one_line, with_formulas, without_formulas
from autoperi.data.reading import Failure
from evaluation.metric import Metric
from evaluation.options import HEADLINE
from evaluation.report.figures import all_figures, svg_address
from evaluation.report.headline import headline_columns
from evaluation.report.page import (
    failure_section,
    figure_section,
    floor_text,
    interval_text,
    metric_table,
    metrics_markdown,
)
from evaluation.report.stability import disagreements

_LIBRARIES = ("autoperi-gnn", "pymatgen", "smact", "moyopy", "chgnet", "sevenn", "numpy", "scipy")
_HEADINGS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("", "left"),
    ("figure", "left"),
    ("value", "right"),
    ("95% interval", "right"),
    ("floor", "right"),
)
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
        """The headline figures for the terminal, by group; `metrics.md` and the page have all of them."""
        found = [column for column in headline_columns(self._protocol()) if column.metric in self.metrics]
        table = Table(
            title=Text(f"{one_line(self.source)}: {self._counts()}"),
            caption=Text(
                f"against {self.reference_name}; {len(self.metrics)} figures with their n, denominator and "
                "protocol: metrics.md, report.html"
            ),
            box=box.SIMPLE_HEAD,
            caption_justify="left",
        )
        for heading, justify in _HEADINGS:
            table.add_column(heading, justify=justify, overflow="fold")
        group = ""
        for column in found:
            metric = self.metrics[column.metric]
            scale, digits, unit = (100.0, ".1f", " %") if column.percent else (1.0, ".3g", f" {metric.unit}")
            value = f"{scale * metric.value:{digits}}{unit}".rstrip() if np.isfinite(metric.value) else "–"
            interval = interval_text(metric, scale, digits)
            name, group = ("" if column.group == group else column.group), column.group
            table.add_row(name, column.heading, value, interval, floor_text(metric))
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
        """Write metrics.json, per_structure.csv and scenes.json, all that `load` needs, and metrics.md.

        Where several potentials judged, also disagreements.csv: the crystals they do not agree on.
        """
        folder = Path(out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.as_dict(), indent=1, default=str, allow_nan=False)
        (folder / "metrics.json").write_text(text + "\n")
        without_formulas(self.per_structure).to_csv(folder / "per_structure.csv", index=False)
        if (apart := self.disagreements()) is not None:
            without_formulas(apart).to_csv(folder / "disagreements.csv", index=False)
        (folder / "scenes.json").write_text(json.dumps(list(self.scenes)) + "\n")
        title = f"{self.source}: {self._counts()}, against {self.reference_name}"
        (folder / "metrics.md").write_text(metrics_markdown(title, self.metrics.values()), encoding="utf-8")
        return folder

    def disagreements(self) -> pd.DataFrame | None:
        """Crystals that some potentials call stable and others do not; None where one judged or none."""
        judges = [c for c in self.per_structure.columns if c.startswith("e_above_hull")]
        return disagreements(self.per_structure, self._protocol()) if len(judges) > 1 else None

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

    def _protocol(self) -> str:
        """The S.U.N. protocol that is shown in full."""
        chosen = self.settings
        return chosen["protocol"] if isinstance(chosen, dict) else getattr(chosen, "protocol", HEADLINE)

    def _counts(self) -> str:
        return f"{len(self.per_structure)} readable, {len(self.failures)} unreadable"


def library_versions() -> dict[str, str]:
    """Versions of the libraries that the figures depend on."""
    return versions(*_LIBRARIES)
