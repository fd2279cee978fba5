"""Models side by side: one table, what it cannot decide, and the files it goes to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from autoperi.data.names import without_formulas
from evaluation.metric import Metric
from evaluation.options import HEADLINE
from evaluation.ranking import rank
from evaluation.report.headline import Column, headline_columns
from evaluation.report.page import interval_text, table_cell

Kind = Literal["model", "baseline", "published"]
_GROUPS: Mapping[Kind, str] = {
    "model": "models, measured here",
    "baseline": "baselines, measured here",
    "published": "published figures: other protocols, not to be ranked with the rows above",
}


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        name: of the model.
        kind: model, baseline or published.
        metrics: by name.
        readable: crystals judged; None for published rows.
        unreadable: items that were no crystal.
        error: why the model could not be judged, or nothing.
    """

    name: str
    kind: Kind
    metrics: Mapping[str, Metric]
    readable: int | None = None
    unreadable: int = 0
    error: str = ""


@dataclass(frozen=True)
class Comparison:
    """The outcome of a benchmark.

    Attributes:
        rows: models, baselines, published figures.
        reference: what the crystals were compared with.
        provenance: settings and versions.
        protocol: name of the S.U.N. protocol that has all its columns.
    """

    rows: Sequence[Row]
    reference: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = HEADLINE

    @property
    def complete(self) -> bool:
        """Whether every model was judged and every item of it was a crystal."""
        return not any(row.error or row.unreadable for row in self.rows)

    def columns(self) -> list[Column]:
        """Headline metrics that at least one measured row has."""
        measured = [row.metrics for row in self.rows if row.kind != "published"]
        return [
            c for c in headline_columns(self.protocol) if any(c.metric in metrics for metrics in measured)
        ]

    def shown(self) -> list[Row]:
        """Measured rows, and published ones that have a figure in a column."""
        wanted = {column.metric for column in self.columns()}
        return [row for row in self.rows if row.kind != "published" or wanted & set(row.metrics)]

    def leaders(self, column: Column) -> list[str]:
        """Models that may be the best of a column, by `ranking.rank`: the first and its equals, in order."""
        own = [
            (row.name, row.metrics[column.metric])
            for row in self.rows
            if row.kind == "model" and column.metric in row.metrics
        ]
        own = [(name, metric) for name, metric in own if np.isfinite(metric.value)]
        if column.better is None or not own:
            return []
        own.sort(key=lambda entry: entry[1].value, reverse=column.better == "high")
        first = own[0][1]
        return [name for name, metric in own if metric is first or rank(first, metric).order == 0]

    def doubts(self) -> list[str]:
        """What the samples cannot decide, a sentence per column, and how many more would.

        The last sentence says when sets of different size distort a comparison.
        """
        sentences = []
        models = {row.name: row for row in self.rows if row.kind == "model" and not row.error}
        for column in self.columns():
            tied = self.leaders(column)
            if len(tied) < 2:
                continue
            sizes = sorted(
                {m.metrics[column.metric].n for m in models.values() if column.metric in m.metrics}
            )
            n = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
            who = f"any of the {len(tied)} models" if len(tied) == len(models) > 2 else _listed(tied)
            sentences.append(
                f"{column.heading}: cannot rank {who} at n = {n}; all may be the best. "
                + " ".join(
                    _advice(
                        tied[0], other, *(models[name].metrics[column.metric] for name in (tied[0], other))
                    )
                    for other in dict.fromkeys((tied[1], tied[-1]))
                )
            )
        if sentences:
            sentences.append(
                "Cannot rank means that the difference to the first is within 1.96 of its bootstrap standard "
                "errors (95%, each pair by itself); the sample sizes are those at which a true difference of "
                "the size seen shows in four runs of five."
            )
        counts = {row.readable + row.unreadable for row in self.rows if row.readable is not None}
        if len(counts) > 1:
            sentences.append(
                f"Sets differ in size ({min(counts)} to {max(counts)} items): uniqueness, and all that "
                "contains it, falls as a set grows; compare equal sizes (limit)."
            )
        return sentences

    def table(self) -> Table:
        """What was measured, for the terminal: figures downwards, a column for each set; leaders are bold."""
        judged = [row for row in self.rows if row.kind != "published" and not row.error]
        table = Table(
            title=Text(f"Benchmark against {self.reference}"),
            caption="bold: the best, or not to be told apart from it; intervals, protocols and published "
            "figures: comparison.md, report.html",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
        )
        table.add_column("")
        table.add_column("figure")
        for row in judged:
            table.add_column(Text(row.name), justify="right", overflow="fold")
        table.add_row("", "items", *map(_count, judged))
        group = ""
        for column in self.columns():
            leaders = self.leaders(column)
            cells = [
                Text(_value_text(row, column), style="bold" if row.name in leaders else "") for row in judged
            ]
            name, group = ("" if column.group == group else column.group), column.group
            table.add_row(name, _heading(column), *cells)
        return table

    def markdown(self) -> str:
        """The table, the protocols of its columns and what it cannot decide."""
        columns = self.columns()
        headings = ["model", "n", *(_heading(c) for c in columns)]
        lines = [
            f"# Benchmark against {self.reference}",
            "",
            f"| {' | '.join(headings)} |",
            f"|---|{'---:|' * (len(headings) - 1)}",
        ]
        kind = None
        for row in self.shown():
            if row.kind != kind:
                kind = row.kind
                lines.append(f"| *{_GROUPS[kind]}* |{' |' * (len(headings) - 1)}")
            cells = [_cell_text(row, column) for column in columns]
            name = f"{row.name} ({row.error})" if row.error else row.name
            lines.append(f"| {' | '.join([table_cell(name), _count(row), *cells])} |")
        lines += ["", "## Protocols", ""]
        lines += [f"- **{c.heading}**: {protocol}" for c, protocol in self._protocols()]
        sources = {
            m.protocol for row in self.shown() if row.kind == "published" for m in row.metrics.values()
        }
        lines += [f"- {source}" for source in sorted(sources)]
        if self.doubts():
            lines += ["", "## What cannot be decided", "", *(f"- {sentence}" for sentence in self.doubts())]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """The same as a sortable table whose cells carry their provenance."""
        columns = self.columns()
        head = "".join(
            f'<th class="number" title="{escape(c.metric)}">{escape(_heading(c))}</th>' for c in columns
        )
        count = sum(row.kind == "model" and not row.error for row in self.rows)
        leaders = {c.metric: tied if len(tied := self.leaders(c)) < max(2, count) else [] for c in columns}
        bodies = []
        for kind, title in _GROUPS.items():
            rows = [row for row in self.shown() if row.kind == kind]
            if not rows:
                continue
            lines = [f'<tr class="group"><td colspan="{len(columns) + 2}">{escape(title)}</td></tr>']
            for row in rows:
                cells = [_html_cell(row, column, leaders[column.metric]) for column in columns]
                error = f"<small>{escape(row.error)}</small>" if row.error else ""
                name = f'<td>{escape(row.name)}{error}</td><td class="number">{_count(row)}</td>'
                lines.append(f"<tr>{name}{''.join(cells)}</tr>")
            bodies.append(f"<tbody>{''.join(lines)}</tbody>")
        doubts = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.doubts())
        protocols = "".join(
            f"<li><b>{escape(c.heading)}</b>: {escape(protocol)}</li>" for c, protocol in self._protocols()
        )
        return (
            f'<div class="scroll tall"><table id="comparison" class="sortable"><thead><tr><th>model</th>'
            f'<th class="number">n</th>{head}</tr></thead>{"".join(bodies)}</table></div>'
            '<p class="note">Green: best model of a column, or not to be told apart from it. Point at a '
            "figure for its denominator and protocol; a heading sorts.</p>"
            f"<details open><summary>What these figures cannot decide</summary><ul>{doubts}</ul></details>"
            f"<details><summary>Protocols of the columns</summary><ul>{protocols}</ul></details>"
        )

    def save(self, folder: Path) -> None:
        """Write comparison.md, comparison.csv (one line per figure) and comparison.json."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "comparison.md").write_text(self.markdown(), encoding="utf-8")
        records = [
            {"model": row.name, "kind": row.kind, **metric.as_dict()}
            for row in self.rows
            for metric in row.metrics.values()
        ]
        without_formulas(pd.DataFrame(records)).to_csv(folder / "comparison.csv", index=False)
        plain = {
            "reference": self.reference,
            "rows": [
                {**asdict(row), "metrics": {name: m.as_dict() for name, m in row.metrics.items()}}
                for row in self.rows
            ],
            "doubts": self.doubts(),
            "provenance": dict(self.provenance),
        }
        text = json.dumps(plain, indent=1, default=str, allow_nan=False)
        (folder / "comparison.json").write_text(text + "\n", encoding="utf-8")

    def _protocols(self) -> list[tuple[Column, str]]:
        found = []
        for column in self.columns():
            own = [row.metrics[column.metric] for row in self.rows if column.metric in row.metrics]
            found.append((column, f"{own[0].protocol}; of: {own[0].denominator}"))
        return found


def _advice(first: str, other: str, one: Metric, two: Metric) -> str:
    """How many more samples would tell two models apart, as a sentence."""
    verdict = rank(one, two)
    if verdict.samples_needed is None or verdict.more_samples is None:
        return f"{first} and {other}: {verdict.reason}."
    return (
        f"Telling {first} from {other} takes about {_rounded(verdict.samples_needed)} samples of each, "
        f"{_rounded(verdict.more_samples)} more."
    )


def _rounded(count: int) -> str:
    """Two digits of a number of samples, upwards."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // unit) * unit:,}" if count < 10**7 else "more than 10 million"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _heading(column: Column) -> str:
    return f"{column.heading} %" if column.percent else column.heading


def _count(row: Row) -> str:
    if row.readable is None:
        sizes = {metric.n for metric in row.metrics.values() if metric.n}
        return f"{max(sizes)}" if sizes else ""
    return f"{row.readable + row.unreadable}"


def _format(row: Row, column: Column) -> tuple[float, str]:
    """Scale and number format of a cell; published figures keep their own digits."""
    scale, digits = (100.0, ".1f") if column.percent else (1.0, ".3g")
    return scale, ".4g" if row.kind == "published" else digits


def _cell_text(row: Row, column: Column) -> str:
    metric = row.metrics.get(column.metric)
    if metric is None or not np.isfinite(metric.value):
        return ""
    interval = interval_text(metric, *_format(row, column)).replace(" to ", ", ")
    return _value_text(row, column) + (f" [{interval}]" if interval else "")


def _value_text(row: Row, column: Column) -> str:
    metric = row.metrics.get(column.metric)
    if metric is None or not np.isfinite(metric.value):
        return ""
    scale, digits = _format(row, column)
    return f"{scale * metric.value:{digits}}"


def _html_cell(row: Row, column: Column, leaders: Sequence[str]) -> str:
    metric = row.metrics.get(column.metric)
    if metric is None or not np.isfinite(metric.value):
        return '<td class="number" data-value=""></td>'
    scale, digits = _format(row, column)
    interval = interval_text(metric, scale, digits).replace(" to ", " – ")
    best = row.kind == "model" and row.name in leaders
    clear = best and len(leaders) == 1
    value = f"{scale * metric.value:{digits}}"
    hint = f"{metric.name} = {metric.value:.4g}; n = {metric.n}, of: {metric.denominator}; {metric.protocol}"
    hint += "" if metric.floor is None else f"; floor {metric.floor:.3g}"
    return (
        f'<td class="number{" best" if best else ""}" data-value="{metric.value:.9g}" title="{escape(hint)}">'
        f"{f'<b>{value}</b>' if clear else value}{f'<small>{interval}</small>' if interval else ''}</td>"
    )
