"""Parts of a report's page and of metrics.md: tables of figures, pictures, unreadable items."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np

from autoperi.crystals.crystal import any_element_in_formulas
from autoperi.crystals.viewer.page import Scene, Section, scene, spaced
from autoperi.data.names import one_line
from autoperi.data.reading import Failure, Sample
from evaluation.metric import Metric
from evaluation.report.headline import GROUPS, grouped

_ABOUT_INTERVALS = (
    "Intervals are percentile bootstrap intervals over crystals. The floor of a distance is what as many "
    "crystals drawn from the reference itself come to on average: a perfect generator scores no better."
)


@any_element_in_formulas()
def scenes(samples: Sequence[Sample], most: int = 300) -> list[Scene]:
    """What the viewer needs of at most so many crystals, evenly spaced over the samples."""
    return [
        scene(
            sample.id,
            sample.structure.composition.reduced_formula,
            sample.structure.lattice.matrix,
            sample.structure.frac_coords,
            sample.structure.atomic_numbers,
        )
        for sample in (samples[k] for k in spaced(len(samples), most))
    ]


def metric_table(metrics: Mapping[str, Mapping[str, Metric]]) -> str:
    """Every figure with its interval, number, denominator and protocol, by group; with their set if many."""
    many = len(metrics) > 1
    headings = [*(["set"] if many else []), "metric", "value", "interval", "floor", "n", "of", "protocol"]
    numeric = {"value", "interval", "floor", "n"}
    head = "".join(f"<th{_number_class(h in numeric)}>{h}</th>" for h in headings)
    bodies = []
    by_set = {name: grouped(own.values()) for name, own in metrics.items()}
    for group in GROUPS:
        rows = [f'<tr class="group"><td colspan="{len(headings)}">{group}</td></tr>']
        for name, metric in ((name, m) for name, found in by_set.items() for m in found.get(group, ())):
            cells = [f"<td>{escape(name)}</td>"] if many else []
            sort = f"{metric.value:.9g}" if np.isfinite(metric.value) else ""
            width = "" if metric.low is None or metric.high is None else f"{metric.high - metric.low:.9g}"
            cells += [
                f"<td>{escape(metric.name)}</td>",
                f'<td class="number" data-value="{sort}">{escape(value_text(metric))}</td>',
                f'<td class="number" data-value="{width}">{interval_text(metric)}</td>',
                f'<td class="number">{floor_text(metric)}</td>',
                f'<td class="number">{metric.n}</td>',
                f"<td>{escape(metric.denominator)}</td>",
                f'<td class="protocol">{escape(metric.protocol)}</td>',
            ]
            rows.append(f"<tr>{''.join(cells)}</tr>")
        if len(rows) > 1:
            bodies.append("<tbody>{}</tbody>".format("\n".join(rows)))
    return (
        f'<div class="scroll"><table class="sortable metrics"><thead><tr>{head}</tr></thead>'
        f"{''.join(bodies)}</table></div>"
        f'<p class="note">{_ABOUT_INTERVALS} The heading "interval" sorts by width.</p>'
    )


def interval_text(metric: Metric, scale: float = 1.0, digits: str = ".4g") -> str:
    """The interval as `low to high`, empty without one."""
    if metric.low is None or metric.high is None:
        return ""
    return f"{scale * metric.low:{digits}} to {scale * metric.high:{digits}}"


def value_text(metric: Metric) -> str:
    """The value with its unit; a dash where there is none."""
    return f"{metric.value:.4g} {metric.unit}".rstrip() if np.isfinite(metric.value) else "–"


def floor_text(metric: Metric) -> str:
    """What a perfect generator would score, empty where that is nothing to say."""
    return "" if metric.floor is None else f"{metric.floor:.3g}"


def table_cell(text: str) -> str:
    """A text inside a table of Markdown: one line, no bars, no markup."""
    return re.sub(r"([\\|<*`\[\]$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", one_line(text))


def metrics_markdown(title: str, metrics: Iterable[Metric]) -> str:
    """Every figure by group, as Markdown."""
    lines = [f"# {table_cell(title)}"]
    for group, found in grouped(metrics).items():
        lines += ["", f"## {group.capitalize()}", ""]
        lines.append("| figure | value | 95% interval | floor | n | of | protocol |")
        lines.append("|---|---:|---:|---:|---:|---|---|")
        for metric in found:
            numbers = (value_text(metric), interval_text(metric), floor_text(metric), str(metric.n))
            texts = (metric.name, *numbers, metric.denominator, metric.protocol)
            lines.append(f"| {' | '.join(map(table_cell, texts))} |")
    return "\n".join([*lines, "", _ABOUT_INTERVALS, ""])


def figure_section(images: Mapping[str, tuple[str, str]]) -> Section:
    """Figures as `data:` addresses with their captions."""
    html = "".join(
        f'<figure class="figure"><img alt="{escape(name)}" src="{address}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for name, (address, caption) in images.items()
    )
    return Section("figures", "Figures", html)


def failure_section(failures: Mapping[str, Sequence[Failure]], most: int = 200) -> Section:
    """Unreadable items by set; the files beside the page name all of them."""
    parts = []
    for name, own in failures.items():
        if not own:
            continue
        rows = "".join(f"<li><b>{escape(f.id)}</b>: {escape(f.reason)}</li>" for f in own[:most])
        more = f"<li>and {len(own) - most} more</li>" if len(own) > most else ""
        opened = " open" if len(failures) == 1 else ""
        parts.append(
            f"<details{opened}><summary>{escape(name)}: {len(own)}</summary><ul>{rows}{more}</ul></details>"
        )
    total = sum(map(len, failures.values()))
    text = "".join(parts) or '<p class="note">None: every item was a crystal.</p>'
    return Section("unreadable", f"Unreadable items ({total})", text)


def _number_class(numeric: bool) -> str:
    return ' class="number"' if numeric else ""
