import numpy as np
import pandas as pd
import pytest

from evaluation.metric import Metric
from evaluation.report.figures import all_figures, element_shares, svg_address


def table(n, seed=0, hull=False):
    rng = np.random.default_rng(seed)
    columns = {
        "formula": ["Na1Cl1", "O3Sr1Ti1"] * (n // 2),
        "density": rng.uniform(1, 9, n),
        "volume_per_atom": rng.uniform(8, 40, n),
        "n_elements": [2, 3] * (n // 2),
        "space_group_loose": pd.array([225, None] * (n // 2), dtype="Int16"),
    }
    if hull:
        columns["e_above_hull"] = [np.nan, *rng.normal(0.1, 0.1, n - 1)]
    return pd.DataFrame(columns)


def metrics(value):
    return {"novelty": Metric("novelty", value, value - 0.1, value + 0.1, 40, "all", "rule")}


def test_element_shares_count_crystals_not_atoms():
    assert element_shares(["Na1Cl1", "O3Sr1Ti1", "Na2O1"]) == pytest.approx(
        {"Na": 2 / 3, "Cl": 1 / 3, "O": 2 / 3, "Sr": 1 / 3, "Ti": 1 / 3}
    )


@pytest.mark.parametrize("sets", [1, 4])
def test_any_number_of_sets_gives_every_figure(sets):
    tables = {f"model {k}": table(20, k, hull=k == 0) for k in range(sets)}
    figures = all_figures(tables, table(40, 9), {name: metrics(0.5) for name in tables})
    expected = {"distributions", "symmetry", "elements", "e_above_hull"} | (
        {"intervals"} if sets > 1 else set()
    )
    assert set(figures) == expected
    assert all(caption for _, caption in figures.values())
    assert svg_address(figures["symmetry"][0]).startswith("data:image/svg+xml;base64,")


def test_bars_of_the_crystal_systems_add_up():
    figure, _ = all_figures({"m": table(20)}, table(40), {})["symmetry"]
    bars = figure.axes[0].patches
    widths = {}
    for bar in bars:
        widths[round(bar.get_y(), 3)] = widths.get(round(bar.get_y(), 3), 0) + bar.get_width()
    assert list(widths.values()) == pytest.approx([1, 1])


@pytest.mark.parametrize("name", ["a$x_$", r"$\frac$", "_hidden $1", "<b>"])
def test_a_name_is_never_mathematics(name):
    tables = {name: table(20, hull=True), "other": table(20)}
    figures = all_figures(tables, table(40), {key: metrics(0.5) for key in tables})
    for figure, _ in figures.values():
        assert svg_address(figure)
    assert name in [label.get_text() for label in figures["symmetry"][0].axes[0].get_yticklabels()]


def test_an_empty_set_has_figures_too():
    empty = table(2).iloc[:0]
    assert "elements" in all_figures({"empty": empty}, table(40), {})
