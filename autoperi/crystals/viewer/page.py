"""Self-contained pages with turnable crystals: nothing to fetch, every name shown as text.

A page forbids itself every request by its content security policy. Crystals are drawn by a viewer of its
own on 2D canvases (assets/crystal.js): WebGL viewers run out of contexts after about sixteen pictures, need
a GPU or its emulation, and would put half a megabyte of other people's code into each page.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

if TYPE_CHECKING:
    from autoperi.crystals.crystal import Crystal

Scene = dict[str, Any]
Facts = Mapping[Any, Any]
MOST_SHOWN = 2000
"""Crystals of a gallery, evenly spaced: a page of some 3 MB."""


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


def scene(name: str, formula: str, cell: np.ndarray, frac: np.ndarray, numbers: Sequence[int]) -> Scene:
    """What the viewer needs of a crystal.

    Args:
        name: its id.
        formula: reduced.
        cell: rows are lattice vectors, Å, [3, 3].
        frac: fractional positions, [atoms, 3].
        numbers: atomic numbers, [atoms].
    """
    return {
        "id": name,
        "formula": formula,
        "cell": np.round(cell, 4).ravel().tolist(),
        "z": [int(z) for z in numbers],
        "frac": np.round(frac, 4).ravel().tolist(),
    }


def crystal_scene(name: str, crystal: "Crystal") -> Scene:
    """The same of a crystal under its own symmetry."""
    lattice, frac, numbers = crystal.expand()
    return scene(name, crystal.formula, lattice, frac % 1.0, numbers.tolist())


def spaced(count: int, most: int) -> list[int]:
    """Positions of at most so many of ``count`` things, evenly spaced."""
    if count <= most:
        return list(range(count))
    return np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()


def render_page(
    title: str,
    lead: str,
    crystals: Mapping[str, tuple[Sequence[Scene], Sequence[Facts]]],
    footer: str,
    sections: Sequence[Section] = (),
    closing: Sequence[Section] = (),
) -> str:
    """The whole page.

    Args:
        title: of the page.
        lead: a sentence below it.
        crystals: scenes of each set, and a row of facts of each of its crystals, `id` among them; a scene
            may carry `cif`, the path of its file beside the page.
        footer: plain text.
        sections: above the crystals.
        closing: sections below the crystals.
    """
    sets = {name: _crystal_set(shown, rows) for name, (shown, rows) in crystals.items()}
    shown = (crystal for entry in sets.values() for crystal in entry["crystals"])
    data = {"sets": sets, "elements": _elements(shown)}
    links = [*sections, Section("crystals", "Crystals", ""), *closing] if sections or closing else []
    return _filled(
        "page.html",
        ("crystal.js", "frame.js", "page.js"),
        data,
        title=escape(title),
        lead=escape(lead),
        navigation="".join(f'<a href="#{link.anchor}">{escape(link.heading)}</a>' for link in links),
        sections="\n".join(map(_section, sections)),
        closing="\n".join(map(_section, closing)),
        footer=escape(footer),
    )


def render_gallery(title: str, lead: str, rows: Sequence[Facts], draw: Callable[[int], Scene]) -> str:
    """The page of a folder of crystals; of more than `MOST_SHOWN`, which no browser likes, some are shown.

    Args:
        title: of the page.
        lead: a sentence below it.
        rows: facts of every crystal, its `id` among them.
        draw: scene of the crystal of a row.
    """
    shown = [draw(k) for k in spaced(len(rows), MOST_SHOWN)]
    return render_page(title, lead, {"crystals": (shown, rows)}, "")


def render_crystal(shown: Scene, facts: Facts) -> str:
    """A page of one crystal in large with its facts."""
    data = {"crystal": _with_facts(shown, facts), "elements": _elements([shown])}
    return _filled("crystal.html", ("crystal.js", "frame.js"), data)


def embedded(page: str, height: int) -> str:
    """A page inside another one, as notebooks want it: scripts and style of neither reach the other."""
    frame = f'style="width:100%;height:{height}px;border:0" sandbox="allow-scripts"'
    return f'<iframe {frame} srcdoc="{escape(page)}"></iframe>'


def _filled(name: str, scripts: Sequence[str], data: Mapping[str, Any], **texts: str) -> str:
    assets = files("autoperi.crystals.viewer") / "assets"

    def read(asset: str) -> str:
        return (assets / asset).read_text(encoding="utf-8")

    return Template(read(name)).substitute(
        style=read("page.css"),
        frame=read("frame.html"),
        script="\n".join(map(read, scripts)),
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        **texts,
    )


def _section(section: Section) -> str:
    return f'<section id="{section.anchor}"><h2>{escape(section.heading)}</h2>\n{section.html}\n</section>'


def _elements(shown: Iterable[Scene]) -> dict[int, list[Any]]:
    """Symbol, Jmol's colour and covalent radius in Å of every element that is drawn."""
    table = {}
    for z in sorted({z for crystal in shown for z in crystal["z"]}):
        colour = jmol_colors[z] if z < len(jmol_colors) else (0.9, 0.0, 0.48)
        code = "".join(f"{round(255 * part):02x}" for part in colour)
        table[z] = [chemical_symbols[z], f"#{code}", round(float(covalent_radii[z]), 2)]
    return table


def _crystal_set(shown: Sequence[Scene], rows: Sequence[Facts]) -> dict[str, Any]:
    """Scenes with the row of facts of each, and a sentence on how many there are."""
    facts = {str(row["id"]): row for row in rows}
    crystals = [_with_facts(one, facts.get(one["id"], {})) for one in shown]
    if len(crystals) < len(rows):
        note = f"{len(crystals)} of {len(rows)} crystals, evenly spaced; the table beside this page has all."
    else:
        note = f"All {len(rows)} crystals. A click on a picture or a row opens the crystal."
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    return {"columns": columns, "crystals": crystals, "note": note}


def _with_facts(shown: Scene, facts: Facts) -> Scene:
    return {**shown, "facts": {str(k): _plain(v) for k, v in facts.items() if k != "id"}}


def _plain(value: Any) -> str | int | float | bool | None:
    """A table's cell as JSON; missing and infinite values become None."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.5g}") if math.isfinite(value) else None
    return None if value is None or value is pd.NA else str(value)
