"""One self-contained page: tables, figures and turnable crystals, with nothing to fetch.

The page forbids itself every request by its content security policy. Crystals are drawn by a viewer of
its own on 2D canvases (assets/crystal.js): WebGL viewers run out of contexts after about sixteen
pictures, need a GPU or its emulation, and would put half a megabyte of other people's code into each page.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.colors import to_hex

from evaluation.metric import Metric
from evaluation.reading.readers import Failure, Sample

_PICTURES = 24  # crystals drawn at once; the others open from their row


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: its name in links.
        heading: as shown.
        html: its content, already escaped.
    """

    anchor: str
    heading: str
    html: str


def scenes(samples: Sequence[Sample], most: int = 300) -> list[dict[str, Any]]:
    """What the viewer needs of at most so many crystals, evenly spaced over the samples.

    Each has id, reduced formula, cell (nine numbers, rows are lattice vectors, Å), z and frac (three per
    atom).
    """
    chosen = np.unique(np.linspace(0, len(samples) - 1, most).round().astype(int)) if samples else []
    if len(samples) <= most:
        chosen = range(len(samples))
    return [
        {
            "id": sample.id,
            "formula": sample.structure.composition.reduced_formula,
            "cell": sample.structure.lattice.matrix.round(4).ravel().tolist(),
            "z": [int(z) for z in sample.structure.atomic_numbers],
            "frac": sample.structure.frac_coords.round(4).ravel().tolist(),
        }
        for sample in (samples[int(k)] for k in chosen)
    ]


def render_page(
    title: str,
    lead: str,
    sections: Sequence[Section],
    crystals: Mapping[str, tuple[Sequence[Mapping[str, Any]], pd.DataFrame]],
    closing: Sequence[Section],
    footer: str,
) -> str:
    """The whole page.

    Args:
        title: of the page.
        lead: a sentence below it.
        sections: above the crystals.
        crystals: scenes and per-structure table of each set.
        closing: sections below the crystals.
        footer: plain text.
    """
    assets = files("evaluation.report") / "assets"
    sets = {name: _crystal_set(shown, table) for name, (shown, table) in crystals.items()}
    used = sorted({z for entry in sets.values() for crystal in entry["crystals"] for z in crystal["z"]})
    data = {"sets": sets, "pictures": _PICTURES, "elements": {z: _element(z) for z in used}}
    links = [*sections, Section("crystals", "Crystals", ""), *closing]
    navigation = "".join(f'<a href="#{link.anchor}">{escape(link.heading)}</a>' for link in links)
    return Template((assets / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        lead=escape(lead),
        navigation=navigation,
        style=(assets / "report.css").read_text(encoding="utf-8"),
        sections="\n".join(map(_section, sections)),
        closing="\n".join(map(_section, closing)),
        footer=escape(footer),
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        script="\n".join((assets / name).read_text(encoding="utf-8") for name in ("crystal.js", "report.js")),
    )


def metric_table(metrics: Mapping[str, Mapping[str, Metric]]) -> str:
    """Every figure with its interval, number, denominator and protocol; one column more for many sets."""
    many = len(metrics) > 1
    headings = [*(["set"] if many else []), "metric", "value", "interval", "floor", "n", "of", "protocol"]
    numeric = {"value", "interval", "floor", "n"}
    head = "".join(f"<th{_number_class(h in numeric)}>{h}</th>" for h in headings)
    rows = []
    for name, own in metrics.items():
        for metric in own.values():
            cells = [f"<td>{escape(name)}</td>"] if many else []
            sort = f"{metric.value:.9g}" if np.isfinite(metric.value) else ""
            unit = f" {metric.unit}" if metric.unit else ""
            width = "" if metric.low is None or metric.high is None else f"{metric.high - metric.low:.9g}"
            cells += [
                f"<td>{escape(metric.name)}</td>",
                f'<td class="number" data-value="{sort}">{metric.value:.4g}{escape(unit)}</td>',
                f'<td class="number" data-value="{width}">{interval_text(metric)}</td>',
                f'<td class="number">{"" if metric.floor is None else f"{metric.floor:.3g}"}</td>',
                f'<td class="number">{metric.n}</td>',
                f"<td>{escape(metric.denominator)}</td>",
                f'<td class="protocol">{escape(metric.protocol)}</td>',
            ]
            rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table class="sortable metrics"><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
        '<p class="note">Intervals are percentile bootstrap intervals over crystals; the heading "interval" '
        "sorts by width. The floor of a distance is what as many crystals drawn from the reference itself "
        "come to on average: a perfect generator scores no better.</p>"
    )


def interval_text(metric: Metric, scale: float = 1.0, digits: str = ".4g") -> str:
    """The interval as `low to high`, empty without one."""
    if metric.low is None or metric.high is None:
        return ""
    return f"{scale * metric.low:{digits}} to {scale * metric.high:{digits}}"


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


def _section(section: Section) -> str:
    return f'<section id="{section.anchor}"><h2>{escape(section.heading)}</h2>\n{section.html}\n</section>'


def _number_class(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _element(z: int) -> list[Any]:
    """Symbol, Jmol's colour and covalent radius in Å."""
    colour = to_hex(tuple(jmol_colors[z])) if z < len(jmol_colors) else "#e6007a"
    return [chemical_symbols[z], colour, round(float(covalent_radii[z]), 2)]


def _crystal_set(shown: Sequence[Mapping[str, Any]], table: pd.DataFrame) -> dict[str, Any]:
    """Scenes with the row of facts of each, and a sentence on how many there are."""
    columns = [str(column) for column in table.columns]
    facts = {str(row["id"]): row for row in table.to_dict("records")}
    crystals = [
        {**scene, "facts": {k: _plain(v) for k, v in facts.get(scene["id"], {}).items() if k != "id"}}
        for scene in shown
    ]
    if len(crystals) < len(table):
        note = f"{len(crystals)} of {len(table)} crystals, evenly spaced; the table beside this page has all."
    else:
        note = f"All {len(table)} readable crystals. A click on a row opens the crystal."
    return {"columns": columns, "crystals": crystals, "note": note}


def _plain(value: Any) -> str | int | float | bool | None:
    """A table's cell as JSON; missing and infinite values become None."""
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.5g}") if np.isfinite(value) else None
    return str(value)
