"""The outcome of an evaluation: on the terminal, as files, as one page."""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from evaluation.figures import figure_png, save_figures
from evaluation.metric import Metric
from evaluation.readers import Failure

_LIBRARIES = ("autoperi-gnn", "pymatgen", "smact", "moyopy", "chgnet", "numpy", "scipy")


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
        settings: the conventions used (a dataclass).
        pairs_compared: geometric comparisons behind uniqueness and novelty.
    """

    per_structure: pd.DataFrame
    metrics: Mapping[str, Metric]
    failures: Sequence[Failure]
    source: str
    reference_name: str
    reference_table: pd.DataFrame = field(repr=False)
    settings: Any = None
    pairs_compared: Mapping[str, int] = field(default_factory=dict)

    def table(self) -> Table:
        """The metrics for the terminal."""
        table = Table(title=f"{self.source}: {self._counts()}", caption=self.reference_name)
        for heading, justify in (
            ("metric", "left"),
            ("value", "right"),
            ("95% interval", "right"),
            ("n", "right"),
            ("of", "left"),
            ("protocol", "left"),
        ):
            table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in self._rows():
            table.add_row(*row)
        return table

    def as_dict(self) -> dict[str, Any]:
        """Metrics, failures, settings and library versions as plain values."""
        return {
            "source": self.source,
            "reference": self.reference_name,
            "n_readable": len(self.per_structure),
            "failures": [asdict(failure) for failure in self.failures],
            "pairs_compared": dict(self.pairs_compared),
            "metrics": {name: metric.as_dict() for name, metric in self.metrics.items()},
            "settings": asdict(self.settings) if self.settings is not None else None,
            "versions": _versions(),
        }

    def save(self, out_dir: Path | str) -> Path:
        """Write metrics.json, per_structure.csv, figures and report.html; returns the folder."""
        folder = Path(out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.as_dict(), indent=1, default=str, allow_nan=False)
        (folder / "metrics.json").write_text(text + "\n")
        self.per_structure.to_csv(folder / "per_structure.csv", index=False)
        save_figures(self.per_structure, self.reference_table, folder)
        (folder / "report.html").write_text(self._html(), encoding="utf-8")
        return folder

    def _counts(self) -> str:
        return f"{len(self.per_structure)} readable, {len(self.failures)} unreadable"

    def _rows(self) -> list[tuple[str, str, str, str, str, str]]:
        rows = []
        for metric in self.metrics.values():
            value = f"{metric.value:.4g}" + (f" {metric.unit}" if metric.unit else "")
            interval = ""
            if metric.low is not None and metric.high is not None:
                interval = f"{metric.low:.4g} to {metric.high:.4g}"
            rows.append((metric.name, value, interval, str(metric.n), metric.denominator, metric.protocol))
        return rows

    def _html(self) -> str:
        """One self-contained page: no network, figures inside."""
        headings = ("metric", "value", "95% interval", "n", "of", "protocol")
        head = "".join(f"<th>{h}</th>" for h in headings)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self._rows()
        )
        image = figure_png(self.per_structure, self.reference_table)
        failures = "".join(f"<li><b>{escape(f.id)}</b>: {escape(f.reason)}</li>" for f in self.failures[:200])
        versions = escape(", ".join(f"{k} {v}" for k, v in _versions().items()))
        return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Crystal report</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; }}
table {{ border-collapse: collapse; }}
td, th {{ border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; }}
td:nth-child(-n+4) {{ font-variant-numeric: tabular-nums; white-space: nowrap; }}
img {{ max-width: 100%; }}
</style></head><body>
<h1>Crystal report</h1>
<p>{escape(self.source)}: {self._counts()}. Reference: {escape(self.reference_name)}.</p>
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table>
<img alt="Distributions of samples and reference" src="data:image/png;base64,{image}">
<h2>Unreadable items ({len(self.failures)})</h2>
<ul>{failures}</ul>
<p>{versions}</p>
</body></html>
"""


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
