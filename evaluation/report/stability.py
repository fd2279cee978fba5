"""Figures of stability: shares under every protocol, by each potential, and how far potentials agree."""

from dataclasses import replace

import numpy as np
import pandas as pd

from evaluation.facts.distribution import wasserstein
from evaluation.facts.reference import Reference
from evaluation.metric import Metric, distance_metric, mean_metric, padded, statistic_metric
from evaluation.relaxation.batch import LARGE
from evaluation.settings import EvaluationSettings
from evaluation.stability.protocols import PROTOCOLS, named_protocol, stable_by_level, sun_metrics
from evaluation.stability.stability import StabilitySettings, suffix

_ITEMS = "all items, failed relaxations not stable"


def stability_metrics(
    table: pd.DataFrame, reference: Reference, unreadable: int, settings: EvaluationSettings
) -> list[Metric]:
    """A failed relaxation is not stable; it has no energy, and is left out of the median alone."""
    stability = settings.stability
    assert stability is not None
    first, *others = stability.each()
    protocol = first.protocol()
    metrics = _sun(table, first, reference, unreadable, settings)
    for other in others:
        metrics += _second_opinion(table, first, other, reference, unreadable, settings)
    energies = table["e_above_hull"].to_numpy(dtype=float)
    relaxed = table["error"].fillna("missing") == ""
    metrics += [
        _median(energies, protocol, settings),
        mean_metric(
            "relaxation_converged",
            padded(table["converged"] & relaxed, unreadable),
            _ITEMS,
            protocol,
            settings.bootstrap,
        ),
        mean_metric(
            "relaxed_matches_raw",
            table.loc[relaxed, "matches_raw"].to_numpy(dtype=bool),
            "relaxed crystals",
            f"{stability.match}, atom by atom above {LARGE} atoms; {protocol}",
            settings.bootstrap,
        ),
    ]
    if len(known := np.sort(reference.formation_energies)):
        formation = table["formation_energy"].to_numpy(dtype=float)
        metrics.append(
            distance_metric(
                "wasserstein_formation_energy",
                formation[np.isfinite(formation)],
                known,
                lambda v: wasserstein(v, known),
                "relaxed crystals",
                f"first Wasserstein distance to the labels of {reference}; {protocol}",
                settings.bootstrap,
                unit="eV/atom",
            )
        )
    return metrics


def disagreements(table: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Crystals that one potential calls stable under a protocol and another does not, furthest apart first.

    Columns id, formula and the energies above the hull by each, eV/atom; empty where one potential judges
    alone.
    """
    columns = [c for c in table.columns if c.startswith("e_above_hull")]
    energies = table[columns].astype(float)
    stable: np.ndarray = named_protocol(protocol).stable(energies.to_numpy().T)
    split = stable.any(axis=0) & ~stable.all(axis=0) & np.isfinite(energies.to_numpy()).all(axis=1)
    apart = (energies.max(axis=1) - energies.min(axis=1))[split].sort_values(ascending=False)
    return table.loc[apart.index, ["id", "formula", *columns]]


def _sun(
    table: pd.DataFrame,
    stability: StabilitySettings,
    reference: Reference,
    unreadable: int,
    settings: EvaluationSettings,
) -> list[Metric]:
    """Of every protocol with the settings' matcher: duplicates and novelty were matched once, by one rule."""
    metrics: list[Metric] = []
    for named in PROTOCOLS.values():
        if named.matcher == settings.match:
            full = named.measured(stability.relaxed_by(), str(stability.hull), str(reference), settings.match)
            metrics += sun_metrics(table, full, unreadable, settings.bootstrap)
            if named.name == settings.protocol:
                metrics += stable_by_level(table, full, settings.bootstrap)
    return metrics


def _median(energies: np.ndarray, protocol: str, settings: EvaluationSettings) -> Metric:
    return statistic_metric(
        "median_e_above_hull",
        energies[np.isfinite(energies)],
        lambda v: float(np.median(v)),
        "relaxed crystals",
        protocol,
        settings.bootstrap,
        settings.bootstrap.resamples,
        "eV/atom",
    )


def _second_opinion(
    table: pd.DataFrame,
    first: StabilitySettings,
    other: StabilitySettings,
    reference: Reference,
    unreadable: int,
    settings: EvaluationSettings,
) -> list[Metric]:
    """Figures of another potential by their names with its suffix, and its agreement with the first."""
    end = suffix(other.relaxer)
    own = table.assign(e_above_hull=table[f"e_above_hull{end}"])
    energies = own["e_above_hull"].to_numpy(dtype=float)
    metrics = [
        *_sun(own, other, reference, unreadable, settings),
        _median(energies, other.protocol(), settings),
    ]
    both = np.stack([table["e_above_hull"].to_numpy(dtype=float), energies], axis=1)
    both = both[np.isfinite(both).all(axis=1)]
    pair = f"{first.protocol()}; against {other.protocol()}"
    headline = named_protocol(settings.protocol)
    agree = headline.stable(both[:, 0]) == headline.stable(both[:, 1])
    who = f"crystals relaxed by both, {headline.bound} eV/atom"
    metrics.append(mean_metric("potentials_agree", agree, who, pair, settings.bootstrap))
    metrics.append(
        statistic_metric(
            "potentials_rank_correlation",
            both,
            _rank_correlation,
            "crystals relaxed by both",
            f"Spearman, energies above the hull; {pair}",
            settings.bootstrap,
            settings.bootstrap.resamples,
        )
    )
    return [replace(metric, name=metric.name + end) for metric in metrics]


def _rank_correlation(pairs: np.ndarray) -> float:
    """Spearman's, NaN where one of both is constant."""
    ranks = pd.DataFrame(pairs).rank().to_numpy()
    return float(np.corrcoef(ranks.T)[0, 1]) if ranks.std(axis=0).all() else float("nan")
