"""One picture of what a set of crystals is predicted to be."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from property_models.targets import TARGETS

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
        outside = table[f"{target}_out_of_domain"].to_numpy(bool)
        unit = f" ({TARGETS[target].unit})" if target in TARGETS else ""
        edges = np.histogram_bin_edges(value, min(60, max(8, int(np.sqrt(len(value))))))
        colours, labels = (_INSIDE, _OUTSIDE), ("in domain", "out of domain")
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
