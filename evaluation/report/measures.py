"""Figures of a report from its table of crystals."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from evaluation.facts.distribution import jensen_shannon, median_ratio, total_variation, wasserstein
from evaluation.facts.levels import LEVELS
from evaluation.facts.reference import Reference
from evaluation.metric import Metric, distance_metric, mean_metric, padded, statistic_metric
from evaluation.metrics.breadth import breadth_metrics
from evaluation.metrics.sanity import ATOM_DENSITY_RANGE, DENSITY_RANGE
from evaluation.report.stability import stability_metrics
from evaluation.settings import EvaluationSettings

_CHARGE_TOLERANCE = 0.1  # e
_LEVELS = {
    "duplicate": "matches a known crystal",
    "substitution": "no duplicate, but matches one once its elements have exchanged names one to one",
    "known_gene": "neither, but its space group and Wyckoff letters are known, P1 where none are found",
    "new_gene": "its space group and Wyckoff letters are not known either",
}


def measure(
    table: pd.DataFrame,
    reference: Reference,
    unreadable: int,
    settings: EvaluationSettings,
    pairs_compared: Mapping[str, int],
) -> dict[str, Metric]:
    """Every metric of a report by name.

    Args:
        table: one row per readable crystal.
        reference: what the distributions and genes are compared with.
        unreadable: items that were no crystal; invalid in every share of validity.
        settings: the conventions.
        pairs_compared: comparisons behind uniqueness, novelty and its levels.
    """
    metrics = [
        *_validity(table, unreadable, settings),
        *_novelty(table, reference, unreadable, settings, pairs_compared),
        *_distributions(table, reference, settings),
        *_symmetry(table, reference, settings),
        *breadth_metrics(table, reference, str(reference), settings.bootstrap),
    ]
    if settings.stability is not None and "e_above_hull" in table:
        metrics += stability_metrics(table, reference, unreadable, settings)
    return {metric.name: metric for metric in metrics}


def _validity(table: pd.DataFrame, unreadable: int, settings: EvaluationSettings) -> list[Metric]:
    items = "all items, unreadable ones invalid"
    first = settings.smact_rules[0]
    columns = {
        "structural_validity": (
            table["structural_valid"],
            "CDVAE: distances between sites >= 0.5 Å, volume >= 0.1 Å³; own images not checked",
        ),
        "strict_validity": (
            table["contact_ratio"] >= 0.5,
            "contacts >= 0.5 x sum of covalent radii, own images checked",
        ),
    }
    columns["density_sane"] = (
        table["density_sane"],
        f"{DENSITY_RANGE[0]:g} to {DENSITY_RANGE[1]:g} g/cm³ and {ATOM_DENSITY_RANGE[0]:g} to "
        f"{ATOM_DENSITY_RANGE[1]:g} atoms/Å³",
    )
    columns["cif_round_trip"] = (
        table["cif_round_trip"],
        "pymatgen reads back from CIF what it wrote, within 0.01 Å",
    )
    columns["charge_neutrality"] = (
        table["charge_imbalance"] <= _CHARGE_TOLERANCE,
        f"net charge <= {_CHARGE_TOLERANCE} e per reduced formula, oxidation states icsd24, mixed "
        "valence allowed, alloys neutral",
    )
    for rule in settings.smact_rules:
        columns[f"smact_{rule}"] = (
            table[f"smact_{rule}"],
            f"SMACT neutral and Pauling-ordered, oxidation states {rule}, alloys valid",
        )
    columns["valid"] = (table["valid"], f"structural_validity and smact_{first}")
    return [
        mean_metric(name, padded(mask, unreadable), items, protocol, settings.bootstrap)
        for name, (mask, protocol) in columns.items()
    ]


def _novelty(
    table: pd.DataFrame,
    reference: Reference,
    unreadable: int,
    settings: EvaluationSettings,
    pairs_compared: Mapping[str, int],
) -> list[Metric]:
    unique, novel = table["unique"], table["novel"]
    notes = {name: f"the matcher saw {pairs} pairs" for name, pairs in pairs_compared.items()}
    vun = table["valid"] & unique & novel
    match = str(settings.match)
    return [
        replace(
            mean_metric(
                "uniqueness",
                unique.to_numpy(),
                "readable crystals",
                f"no earlier crystal matches; {match}",
                settings.bootstrap,
            ),
            note=notes["duplicates"],
        ),
        replace(
            mean_metric(
                "novelty",
                novel.to_numpy(),
                "readable crystals",
                f"no crystal of {reference} matches; {match}",
                settings.bootstrap,
            ),
            note=notes["reference"],
        ),
        mean_metric(
            "valid_unique_novel",
            padded(vun, unreadable),
            "all items, unreadable ones invalid",
            "valid, uniqueness and novelty together",
            settings.bootstrap,
        ),
        *(
            replace(
                mean_metric(
                    f"novelty_{level}",
                    (table["novelty_level"] == level).to_numpy(),
                    "readable crystals",
                    f"{_LEVELS[level]}; {reference}; {match}",
                    settings.bootstrap,
                ),
                note=notes["templates"],
            )
            for level in LEVELS
        ),
    ]


def _distributions(table: pd.DataFrame, reference: Reference, settings: EvaluationSettings) -> list[Metric]:
    valid = table[table["valid"]]
    if settings.max_distance_samples is not None:
        valid = valid.iloc[: settings.max_distance_samples]
    who = (
        "valid crystals"
        if settings.max_distance_samples is None
        else (f"first {settings.max_distance_samples} valid crystals")
    )
    metrics = []
    for column, unit in (("density", "g/cm³"), ("n_elements", ""), ("volume_per_atom", "Å³")):
        target = np.sort(reference.table[column].to_numpy(dtype=float))
        metrics.append(
            distance_metric(
                f"wasserstein_{column}",
                np.asarray(valid[column], dtype=float),
                target,
                lambda v, target=target: wasserstein(v, target),
                who,
                f"first Wasserstein distance to {reference}",
                settings.bootstrap,
                unit=unit,
            )
        )
    volumes = reference.table["volume_per_atom"].to_numpy(dtype=float)
    metrics.append(
        statistic_metric(
            "median_volume_per_atom_ratio",
            np.asarray(valid["volume_per_atom"], dtype=float),
            lambda v: median_ratio(v, volumes),
            who,
            f"median over the median of {reference}",
            settings.bootstrap,
        )
    )
    return metrics


def _symmetry(table: pd.DataFrame, reference: Reference, settings: EvaluationSettings) -> list[Metric]:
    who = "readable crystals"
    loose, tight = settings.symmetry.loose, settings.symmetry.tight
    metrics = [
        mean_metric(
            f"p1_share_{label}",
            (table[f"space_group_{label}"].fillna(1) == 1).to_numpy(),
            who,
            f"moyopy at symprec {symprec} Å; no answer counts as P1",
            settings.bootstrap,
        )
        for label, symprec in (("loose", loose), ("tight", tight))
    ]
    groups = table["space_group_loose"].fillna(1).to_numpy(dtype=int)
    target = reference.space_groups
    population = reference.table["space_group_loose"].fillna(1).to_numpy(dtype=int)
    label = f"space groups at {loose} Å against {reference}"
    metrics.append(
        distance_metric(
            "space_group_jensen_shannon",
            groups,
            population,
            lambda v: jensen_shannon(Counter(v.tolist()), target),
            who,
            f"Jensen-Shannon distance (base 2) of {label}",
            settings.bootstrap,
        )
    )
    metrics.append(
        distance_metric(
            "space_group_total_variation",
            groups,
            population,
            lambda v: total_variation(Counter(v.tolist()), target),
            who,
            f"total variation of {label}",
            settings.bootstrap,
        )
    )
    with_gene = table[table["gene"].notna()]
    metrics.append(
        mean_metric(
            "new_gene_share",
            ~np.asarray(with_gene["gene_known"], dtype=bool),
            "readable crystals with a gene",
            f"(space group, Wyckoff letters) at {loose} Å not in {reference}",
            settings.bootstrap,
        )
    )
    return metrics
