"""Distributions of samples beside those of the reference, as PNG."""

import base64
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_SAMPLES, _REFERENCE = "#1b6ca8", "#b0b0b0"


def save_figures(samples: pd.DataFrame, reference: pd.DataFrame, folder: Path) -> None:
    """One PNG per quantity, and all of them together in distributions.png."""
    for name, draw in _PANELS.items():
        figure, axes = _figure(1)
        draw(axes[0], samples, reference)
        figure.savefig(folder / f"{name}.png", dpi=130)
    (folder / "distributions.png").write_bytes(_all_panels(samples, reference))


def figure_png(samples: pd.DataFrame, reference: pd.DataFrame) -> str:
    """All panels as base64, to put inside a page."""
    return base64.b64encode(_all_panels(samples, reference)).decode()


def _all_panels(samples: pd.DataFrame, reference: pd.DataFrame) -> bytes:
    figure, axes = _figure(len(_PANELS))
    for axis, draw in zip(axes, _PANELS.values(), strict=True):
        draw(axis, samples, reference)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=130, format="png")
    return stream.getvalue()


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    """A figure without pyplot, so that no window system and no global state is needed."""
    columns = min(panels, 2)
    rows = -(-panels // columns)
    figure = Figure(figsize=(5.2 * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(np.asarray(figure.subplots(rows, columns))).ravel()
    return figure, list(axes)


def _histogram(column: str, label: str) -> Callable[[Axes, pd.DataFrame, pd.DataFrame], None]:
    def draw(axis: Axes, samples: pd.DataFrame, reference: pd.DataFrame) -> None:
        target = reference[column].to_numpy(dtype=float)
        upper = float(np.percentile(target, 99.5)) * 1.2 if len(target) else 1.0
        edges = np.linspace(0, upper, 50).tolist()
        values = np.clip(samples[column].to_numpy(dtype=float), 0, upper)
        if len(target):
            axis.hist(np.clip(target, 0, upper), edges, density=True, color=_REFERENCE, label="reference")
        if len(values):
            axis.hist(values, edges, density=True, histtype="step", color=_SAMPLES, lw=1.6, label="samples")
        axis.set(xlabel=label, ylabel="probability density")
        axis.legend(frameon=False, loc="upper right")

    return draw


def _bars(axis: Axes, samples: pd.DataFrame, reference: pd.DataFrame) -> None:
    counts = [_shares(t["n_elements"]) for t in (reference, samples)]
    ticks = sorted({n for c in counts for n in c})
    for series, colour, label, offset in zip(
        counts, (_REFERENCE, _SAMPLES), ("reference", "samples"), (-0.2, 0.2), strict=True
    ):
        heights = [series.get(n, 0.0) for n in ticks]
        axis.bar([n + offset for n in ticks], heights, 0.4, color=colour, label=label)
    axis.set(xlabel="number of elements", ylabel="share", xticks=ticks)
    axis.legend(frameon=False, loc="upper right")


def _space_groups(axis: Axes, samples: pd.DataFrame, reference: pd.DataFrame) -> None:
    groups = np.arange(1, 231)
    for table, colour, label, sign in (
        (reference, _REFERENCE, "reference (down)", -1),
        (samples, _SAMPLES, "samples (up)", 1),
    ):
        shares = _shares(table["space_group_loose"])
        heights = [sign * shares.get(int(g), 0.0) for g in groups]
        axis.vlines(groups, 0, heights, color=colour, lw=1.4, label=label)
    axis.axhline(0, color="black", lw=0.6)
    axis.set(xlabel="space group number", ylabel="share")
    axis.legend(frameon=False, loc="upper right")


def _shares(values: Any) -> dict[int, float]:
    counts = Counter(int(v) for v in values.dropna())
    return {value: n / counts.total() for value, n in counts.items()}


_PANELS = {
    "density": _histogram("density", "density (g/cm³)"),
    "n_elements": _bars,
    "volume_per_atom": _histogram("volume_per_atom", "volume per atom (Å³)"),
    "space_groups": _space_groups,
}
