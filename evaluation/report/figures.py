"""Figures of one or many sets of crystals beside a reference.

Every set has a row or panel of its own, so that any number of them stays readable. Figures are made without
pyplot, so that no window system and no global state is needed.
"""

import base64
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from evaluation.metric import Metric

_INK, _SOFT, _REFERENCE = "#18212c", "#5b6876", "#c3cad2"
_COLOURS = ("#1b6ca8", "#d1603d", "#3a8f5c", "#8a5fb0", "#b8912b", "#c24d7c", "#2f9aa0", "#7a6a58")
_SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")
_LAST_GROUP = (2, 15, 74, 142, 167, 194, 230)
_SYSTEM_COLOURS = ("#dfe4ea", "#b9c7d8", "#8fb0d0", "#5f93c1", "#e0b873", "#d28a4c", "#a8472f")
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _INK,
    "svg.hashsalt": "evaluation",
    "text.parse_math": False,  # a name with dollar signs is a name
}


def all_figures(
    tables: Mapping[str, pd.DataFrame],
    reference: pd.DataFrame,
    metrics: Mapping[str, Mapping[str, Metric]],
) -> dict[str, tuple[Figure, str]]:
    """Every figure that the tables allow, with its caption, by file name.

    Args:
        tables: the per-structure table of each set of crystals.
        reference: the reference's table.
        metrics: the figures of each set, for the intervals.
    """
    with rc_context(_STYLE):
        found = {
            "distributions": (
                _distributions(tables, reference),
                "Probability densities of every readable crystal; grey: the reference. Values beyond the "
                "axis are counted in the last bin.",
            ),
            "symmetry": (
                _symmetry(tables, reference),
                "Crystal systems and space groups at the loose tolerance; a crystal without an answer "
                "counts as triclinic, group 1. Grey, downwards: the reference.",
            ),
            "elements": (
                _elements(tables, reference),
                "Share of crystals that contain an element (reference), and how many times more or less "
                "often each set uses it (log₂; elements with no crystal in a set are crossed out).",
            ),
        }
        energies = {name: t["e_above_hull"].dropna() for name, t in tables.items() if "e_above_hull" in t}
        if energies:
            found["e_above_hull"] = (
                _hull_energies(energies),
                "Energy above the hull after relaxation, relaxed crystals only. Right: share of them at "
                "or below an energy; dashed: 0, 0.08 and 0.1 eV/atom.",
            )
        if len(metrics) > 1:
            found["intervals"] = (
                _intervals(metrics),
                "Figures with their bootstrap intervals. Intervals that overlap may still differ: which sets "
                "can be ranked is decided by the error of the difference, see the comparison.",
            )
    return found


def svg_address(figure: Figure) -> str:
    """A figure as a `data:` address, to put inside a page."""
    stream = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()


def element_shares(formulas: Sequence[str]) -> dict[str, float]:
    """Share of formulas (as `formula_key` writes them) that contain an element."""
    counts = Counter(e for formula in formulas for e in set(re.findall(r"[A-Z][a-z]?", formula)))
    return {element: n / len(formulas) for element, n in counts.items()}


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _distributions(tables: Mapping[str, pd.DataFrame], reference: pd.DataFrame) -> Figure:
    """Ridges: one row per set, one column per quantity, the reference in grey in every row."""
    columns = {
        "density": "density (g/cm³)",
        "volume_per_atom": "volume per atom (Å³)",
        "n_elements": "number of elements",
    }
    figure = _figure(11, 0.8 + max(1.6, 0.75 * len(tables)))
    bins = 60 if min(map(len, tables.values()), default=0) >= 500 else 32
    grid = figure.subplots(max(1, len(tables)), 3, sharex="col", squeeze=False)
    for column, (name, label) in enumerate(columns.items()):
        target = reference[name].dropna().to_numpy(dtype=float)
        upper = float(np.percentile(target, 99.5)) * 1.25 if len(target) else 1.0
        whole = name == "n_elements"
        edges = np.arange(0.5, max(8, upper) + 1) if whole else np.linspace(0, upper, bins)
        for row, (set_name, table) in enumerate(tables.items()):
            axis = grid[row, column]
            values = table[name].to_numpy(dtype=float)
            _steps(axis, target, edges, _REFERENCE, filled=True)
            _steps(axis, values[np.isfinite(values)], edges, _colour(row), filled=False)
            axis.set(yticks=[], xlim=(edges[0], edges[-1]))
            axis.spines["left"].set_visible(False)
            if whole:
                axis.set_xticks(np.arange(1, edges[-1]))
            if column == 0:
                axis.set_ylabel(set_name, rotation=0, ha="right", va="center", color=_colour(row))
        grid[-1, column].set_xlabel(label)
    return figure


def _steps(axis: Axes, values: np.ndarray, edges: np.ndarray, colour: str, filled: bool) -> None:
    if len(values) == 0:
        return
    inside = np.clip(values, edges[0], np.nextafter(edges[-1], edges[0]))
    density, _ = np.histogram(inside, edges, density=True)
    axis.stairs(density, edges, fill=filled, color=colour, lw=0 if filled else 1.5)


def _symmetry(tables: Mapping[str, pd.DataFrame], reference: pd.DataFrame) -> Figure:
    figure = _figure(11, 1.2 + max(1.6, 0.55 * (len(tables) + 1)))
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.6])
    groups = {"reference": reference, **tables}
    shares = {name: _group_shares(table) for name, table in groups.items()}
    for row, share in enumerate(shares.values()):
        start = 0.0
        first = 0
        for last, colour, system in zip(_LAST_GROUP, _SYSTEM_COLOURS, _SYSTEMS, strict=True):
            part = float(share[first:last].sum())
            left.barh(row, part, 0.7, left=start, color=colour, label=system if row == 0 else None)
            start, first = start + part, last
    left.set(yticks=range(len(shares)), xlim=(0, 1), xlabel="share of crystals")
    left.set_yticklabels(list(shares))
    left.invert_yaxis()
    left.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False, fontsize=8)
    highest = max(float(share[1:].max()) for share in shares.values()) or 1.0
    numbers = np.arange(1, 231)
    target = shares["reference"]
    for row, (name, share) in enumerate(list(shares.items())[1:]):
        scale = 0.48 / highest
        base = np.full(230, float(row))
        for values, colour, sign in ((target, "#9aa5b1", 1), (share, _colour(row), -1)):
            heights = base + sign * scale * np.minimum(values, highest)
            right.vlines(numbers, base, heights, color=colour, lw=1.1)
        right.axhline(row, color=_SOFT, lw=0.4)
        right.text(3, row - 0.16, name, ha="left", va="bottom", color=_colour(row), fontsize=8)
    right.set(xlim=(0, 231), ylim=(len(tables) - 0.45, -0.6), yticks=[], xlabel="space group number")
    right.spines["left"].set_visible(False)
    return figure


def _group_shares(table: pd.DataFrame) -> np.ndarray:
    """Share of each space group, 1 to 230; no answer counts as 1."""
    groups = table["space_group_loose"].fillna(1).to_numpy(dtype=int)
    counts = np.bincount(groups, minlength=231)[1:231]
    return counts / max(1, counts.sum())


def _elements(tables: Mapping[str, pd.DataFrame], reference: pd.DataFrame) -> Figure:
    """Periodic tables as heat maps: the reference's shares, then each set's ratio to them."""
    from pymatgen.core import Element

    # Lanthanides and actinides go two rows below the main table.
    elements = [Element.from_Z(z) for z in range(1, 95)]
    places: dict[str, tuple[float, float]] = {e.symbol: (e.group, e.row) for e in elements}
    for number, row in ((57, 8.6), (89, 9.6)):
        for k in range(15):
            if number + k <= 94:
                places[Element.from_Z(number + k).symbol] = (3 + k, row)
    target = element_shares(list(reference["formula"]))
    panels = 1 + len(tables)
    columns = min(2, panels) if panels <= 4 else 3
    rows = -(-panels // columns)
    figure = _figure(11, rows * (11 / columns) * 0.56 + 0.3)
    axes = list(np.atleast_1d(np.asarray(figure.subplots(rows, columns))).ravel())
    size = 5.2 if columns == 3 else 7
    top = max(target.values(), default=1.0)
    _periodic_table(
        axes[0], places, target, "YlGnBu", Normalize(0, top), size, "reference, share of crystals"
    )
    for axis, (name, table) in zip(axes[1:], tables.items(), strict=False):
        own = element_shares(list(table["formula"])) if len(table) else {}
        ratio = {e: float(np.log2(own[e] / target[e])) for e in own if target.get(e)}
        norm = TwoSlopeNorm(0, -2.5, 2.5)
        _periodic_table(
            axis, places, ratio, "RdBu_r", norm, size, f"{name}, log₂ of the ratio", crossed=target
        )
    for axis in axes[panels:]:
        axis.set_visible(False)
    return figure


def _periodic_table(
    axis: Axes,
    places: Mapping[str, tuple[float, float]],
    values: Mapping[str, float],
    colours: str,
    norm: Normalize,
    size: float,
    title: str,
    crossed: Mapping[str, float] | None = None,
) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.patches import Rectangle

    palette = colormaps[colours]
    for element, (x, y) in places.items():
        value = values.get(element)
        face = "#f3f5f7" if value is None else palette(norm(value))
        axis.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=face, edgecolor="white", lw=0.3))
        red, green, blue = (0.95, 0.95, 0.95) if value is None else face[:3]  # type: ignore[misc]
        dark = 0.3 * float(red) + 0.6 * float(green) + 0.1 * float(blue) < 0.5
        missing = crossed is not None and value is None and element in crossed
        ink = "white" if dark else ("#b4bcc5" if value is None else _INK)
        axis.text(x, y, element, ha="center", va="center", fontsize=size, color=ink)
        if missing:
            axis.plot([x - 0.35, x + 0.35], [y + 0.35, y - 0.35], color="#c98a8a", lw=0.6)
    axis.set(xlim=(0.4, 18.6), ylim=(10.2, 0.4), aspect="equal")
    axis.set_title(title, fontsize=size + 2.5, loc="left", color=_INK)
    axis.axis("off")
    mappable = ScalarMappable(norm, palette)
    bar = axis.inset_axes((0.22, 0.90, 0.38, 0.025))
    axis.figure.colorbar(mappable, cax=bar, orientation="horizontal")
    bar.tick_params(labelsize=size - 0.5, length=2, pad=1)
    bar.spines[:].set_visible(False)


def _hull_energies(energies: Mapping[str, Any]) -> Figure:
    figure = _figure(11, 1.4 + 0.7 * len(energies))
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    edges = np.linspace(-0.1, 0.6, 71)
    peak = 1e-9
    for values in energies.values():
        if len(values):
            peak = max(peak, np.histogram(np.clip(values, -0.1, 0.5999), edges)[0].max() / len(values))
    for row, (name, values) in enumerate(energies.items()):
        finite = np.asarray(values, dtype=float)
        if len(finite):
            share = np.histogram(np.clip(finite, -0.1, 0.5999), edges)[0] / len(finite)
            left.stairs(
                row - 0.9 * share / peak, edges, baseline=row, fill=True, color=_colour(row), alpha=0.85
            )
            right.ecdf(finite, color=_colour(row), lw=1.6, label=f" {name} (n = {len(finite)})")
    for axis in (left, right):
        for threshold in (0.0, 0.08, 0.1):
            axis.axvline(threshold, color=_SOFT, lw=0.7, ls="--", zorder=0)
        axis.set(xlim=(-0.1, 0.6), xlabel="energy above hull (eV/atom)")
    left.set(yticks=range(len(energies)), ylim=(len(energies) - 0.9, -1.05))
    left.set_yticklabels(list(energies))
    right.set(ylabel="share of relaxed crystals", ylim=(0, 1))
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _intervals(metrics: Mapping[str, Mapping[str, Metric]]) -> Figure:
    """One small panel per metric: a dot per set with its interval."""
    names = list(dict.fromkeys(name for own in metrics.values() for name in own))
    columns = 4
    rows = -(-len(names) // columns)
    figure = _figure(11, rows * (0.75 + 0.2 * len(metrics)))
    axes = list(np.atleast_1d(np.asarray(figure.subplots(rows, columns, sharey=True))).ravel())
    for panel, (axis, name) in enumerate(zip(axes, names, strict=False)):
        for row, own in enumerate(metrics.values()):
            metric = own.get(name)
            if metric is None or not np.isfinite(metric.value):
                continue
            if metric.low is not None and metric.high is not None:
                axis.plot([metric.low, metric.high], [row, row], color=_colour(row), lw=2, alpha=0.55)
            axis.plot(metric.value, row, "o", color=_colour(row), ms=4.5)
        axis.set_title(name.replace("_", " "), fontsize=8, color=_INK, loc="left")
        axis.tick_params(labelsize=7.5)
        axis.grid(axis="x", color="#eef1f4")
        axis.set_axisbelow(True)
        axis.margins(x=0.12)
        if panel % columns == 0:
            axis.set(yticks=range(len(metrics)), ylim=(len(metrics) - 0.4, -0.6))
            axis.set_yticklabels(list(metrics))
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    return figure
