"""Element and space-group divergences, supply risk, new formulas and prototypes, reach of the reference."""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pandas as pd

from evaluation.facts.chemistry import (
    anonymous_formula,
    chemical_system,
    element_fractions,
    supply_concentration,
)
from evaluation.facts.distribution import chi_square, jensen_shannon
from evaluation.facts.reference import Reference
from evaluation.metric import DEFAULT_BOOTSTRAP, BootstrapSettings, Metric, distance_metric, mean_metric


def breadth_columns(table: pd.DataFrame, reference: Reference) -> pd.DataFrame:
    """Per-crystal facts behind `breadth_metrics`, one row per row of a table of `describe`.

    `chemical_system`; `anonymous_formula`; `prototype`, the gene with the anonymous formula; whether
    formula, anonymous formula and prototype occur in the reference; the two supply concentrations.
    """
    known = reference.table
    anonymous = _unique_map(table["formula"], anonymous_formula)
    prototype = _prototype(table["gene"], anonymous)
    reference_anonymous = _unique_map(known["formula"], anonymous_formula)
    supply = [supply_concentration(formula) for formula in table["formula"]]
    return pd.DataFrame(
        {
            "chemical_system": _unique_map(table["formula"], chemical_system),
            "anonymous_formula": anonymous,
            "prototype": prototype,
            "formula_known": table["formula"].isin(known["formula"]),
            "anonymous_formula_known": anonymous.isin(reference_anonymous),
            "prototype_known": prototype.isin(_prototype(known["gene"], reference_anonymous).dropna()),
            "hhi_production": [production for production, _ in supply],
            "hhi_reserve": [reserve for _, reserve in supply],
        },
        index=table.index,
    )


def breadth_metrics(
    table: pd.DataFrame,
    reference: Reference,
    label: str,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
) -> list[Metric]:
    """Elements, supply risk, new formulas and prototypes, and how much of the reference is reached.

    Shares of what is new need no geometric matcher: a crystal whose formula, anonymous formula or
    prototype (gene with anonymous formula) does not occur in the reference is new by that hash.

    Args:
        table: `describe`, `breadth_columns` and `unique` of every readable crystal.
        reference: what is compared with.
        label: the reference in words.
        bootstrap: of the intervals.
    """
    who = "readable crystals"
    metrics = [
        _elements(table, reference, label, bootstrap),
        _space_groups(table, reference, label, bootstrap),
    ]
    for column, what in (("hhi_production", "production"), ("hhi_reserve", "reserves")):
        values = table[column].to_numpy(dtype=float)
        metrics.append(
            mean_metric(
                column,
                values[np.isfinite(values)],
                "readable crystals with tabulated elements",
                f"Herfindahl-Hirschman index of {what} by mass fraction, 0 to 10,000 (pymatgen)",
                bootstrap,
            )
        )
    for column, what in (
        ("formula", "reduced formula"),
        ("anonymous_formula", "anonymous formula"),
        ("prototype", "gene with anonymous formula"),
    ):
        rows = table[table[column].notna()]
        metrics.append(
            mean_metric(
                f"new_{column}_share",
                ~np.asarray(rows[f"{column}_known"], dtype=bool),
                who if column != "prototype" else "readable crystals with a gene",
                f"{what} not in {label}",
                bootstrap,
            )
        )
    return metrics + _reach(table, reference, label, bootstrap)


def _elements(table: pd.DataFrame, reference: Reference, label: str, bootstrap: BootstrapSettings) -> Metric:
    population = element_fractions(reference.table["formula"])
    target: dict[Hashable, float] = dict(enumerate(population.sum(axis=0)))
    return distance_metric(
        "element_jensen_shannon",
        element_fractions(table["formula"]),
        population,
        lambda rows: jensen_shannon(dict(enumerate(rows.sum(axis=0))), target),
        "readable crystals",
        f"Jensen-Shannon distance (base 2) of atomic fractions, crystals weighed alike, against {label}",
        bootstrap,
    )


def _space_groups(
    table: pd.DataFrame, reference: Reference, label: str, bootstrap: BootstrapSettings
) -> Metric:
    return distance_metric(
        "space_group_chi_square",
        table["space_group_loose"].fillna(1).to_numpy(dtype=int),
        reference.table["space_group_loose"].fillna(1).to_numpy(dtype=int),
        lambda groups: chi_square(Counter(groups.tolist()), reference.space_groups),
        "readable crystals",
        f"Σ (q - p)² / p over the space groups of {label}, after WyFormer (arXiv:2503.02407)",
        bootstrap,
    )


def _reach(
    table: pd.DataFrame, reference: Reference, label: str, bootstrap: BootstrapSettings
) -> list[Metric]:
    """Counts of distinct things, and the share of the reference that they cover.

    All grow with the number of samples: compare equal numbers only. A count has no interval, since a
    resample holds fewer distinct things by construction; a share resamples the reference crystals.
    """
    size = len(table)
    anonymous = _unique_map(reference.table["formula"], anonymous_formula)
    counts = {
        "unique_structures": (int(table["unique"].to_numpy().sum()), "crystals that match no earlier one")
    }
    metrics = []
    for name, samples, target in (
        ("space_group", table["space_group_loose"], reference.table["space_group_loose"]),
        ("gene", table["gene"], reference.table["gene"]),
        ("prototype", table["prototype"], _prototype(reference.table["gene"], anonymous)),
        (
            "chemical_system",
            table["chemical_system"],
            _unique_map(reference.table["formula"], chemical_system),
        ),
    ):
        found, words = list(set(samples.dropna())), name.replace("_", " ")
        counts[f"distinct_{name}s"] = (len(found), f"different {words}s")
        metrics.append(
            mean_metric(
                f"{name}_coverage",
                np.asarray(target.dropna().isin(found), dtype=bool),
                "reference crystals",
                f"{words} occurs among the {size} samples; {label}",
                bootstrap,
            )
        )
    return [
        Metric(name, float(count), None, None, size, "readable crystals", f"count of {what}")
        for name, (count, what) in counts.items()
    ] + metrics


def _prototype(gene: Any, anonymous: Any) -> Any:
    """Gene and anonymous formula as one text; missing where there is no gene."""
    return gene.astype("string") + " " + anonymous.astype("string")


def _unique_map(values: Any, function: Callable[[str], str]) -> Any:
    """A function of text, called once per distinct value."""
    return values.map({value: function(value) for value in values.unique()}).astype("string")
