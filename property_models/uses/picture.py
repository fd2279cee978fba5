"""One picture of what a set of crystals is predicted to be."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from property_models.networks.targets import TARGETS

if TYPE_CHECKING:
    import pandas as pd

_INSIDE, _OUTSIDE = "#1b6ca8", "#d1603d"


def predicted_distributions(table: "pd.DataFrame", targets: Sequence[str]) -> Figure:
    """Of each property a row: how its values are distributed, and how uncertain they are.

    Args:
        table: columns ``<target>``, ``<target>_uncertainty`` and ``<target>_out_of_domain``.
        targets: rows of the figure, at least one.
    """
    figure = Figure(figsize=(8, 2.6 * len(targets)), layout="constrained")
    rows = figure.subplots(len(targets), 2, squeeze=False)
    for (left, right), target in zip(rows, targets, strict=True):
        value, sigma = (table[name].to_numpy(float) for name in (target, f"{target}_uncertainty"))
        outside = table[f"{target}_out_of_domain"].fillna(False).to_numpy(bool)
        unit = f" ({TARGETS[target].unit})" if target in TARGETS else ""
        edges = np.histogram_bin_edges(value, min(60, max(8, int(np.sqrt(len(value))))))
        colours, labels = (_INSIDE, _OUTSIDE), ("not flagged", "out of domain")
        left.hist([value[~outside], value[outside]], bins=edges.tolist(), stacked=True, color=colours)
        for mask, colour, label in zip((~outside, outside), colours, labels, strict=True):
            right.scatter(value[mask], sigma[mask], 8, colour, label=f"{label}: {mask.sum()}", alpha=0.7)
        left.set(xlabel=f"{target}{unit}", ylabel="crystals")
        right.set(xlabel=f"{target}{unit}", ylabel=f"uncertainty{unit}", ylim=(0, None))
        right.legend(fontsize="small")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.locator_params(axis="x", nbins=5)
    return figure


def steered_distributions(
    values: Mapping[tuple[float, str], np.ndarray], base: np.ndarray, tolerance: float, name: str
) -> Figure:
    """What crystals asked for a value turned out to be: a row for each value, a column for each way to ask.

    Args:
        values: of the crystals, by (value asked for, how); NaN where a crystal has none.
        base: values of the training crystals, drawn behind.
        tolerance: half the width of the band that counts as a hit.
        name: of the property, with its unit.
    """
    asked, ways = (
        list(dict.fromkeys(value for value, _ in values)),
        list(dict.fromkeys(way for _, way in values)),
    )
    edges = np.linspace(0, max(np.nanmax(v) for v in (*values.values(), base)), 41).tolist()
    shape = len(asked), len(ways)
    figure = Figure(figsize=(2.6 * shape[1], 1.7 * shape[0]), layout="constrained")
    panels = figure.subplots(*shape, squeeze=False, sharex=True, sharey="row")
    for i, value in enumerate(asked):
        for axes, way in zip(panels[i], ways, strict=True):
            found = values[value, way]
            hits = np.mean(np.abs(found - value) <= tolerance)
            axes.axvspan(value - tolerance, value + tolerance, color=_OUTSIDE, alpha=0.3, lw=0)
            for drawn, style in ((base, {"color": "#bbbbbb"}), (found, {"color": _INSIDE})):
                real = drawn[np.isfinite(drawn)]
                weights = np.full(len(real), 1 / len(drawn))
                axes.hist(real, bins=edges, weights=weights, histtype="step", lw=1.5, **style)
            axes.set_title(f"asked {value:g}, {way}: {hits:.0%}", fontsize="small")
            axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(name)
    figure.supylabel("share of crystals (grey: training set)")
    return figure
