"""Energy loss and stability loss of predicted against true crystals."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from autoperi.data.element_references import ElementReferences
from evaluation.metric import DEFAULT_BOOTSTRAP, BootstrapSettings, Metric, mean_metric
from evaluation.relaxation.chgnet import CHGNET
from evaluation.stability.hull import ConvexHull

_COLUMNS = ("energy", "target_energy", "e_above_hull", "target_e_above_hull")


def pair_energies(
    predictions: Sequence[Structure],
    targets: Sequence[Structure],
    hull: ConvexHull,
    references: ElementReferences,
    energies_of: Callable[[Sequence[Structure]], Iterator[float]] = CHGNET.static_energies,
) -> pd.DataFrame:
    """One row per pair: energies of both as they stand, and above the hull; eV/atom, NaN where there is none.

    Args:
        predictions: one per target.
        targets: what they should be.
        hull: see `hull_choice.load_hull`.
        references: fitted to the potential.
        energies_of: energies per atom of crystals, NaN where there is none; CHGNet by default.

    Raises:
        ValueError: when they are not as many.
    """
    if len(predictions) != len(targets):
        raise ValueError(f"expected one prediction per target: got {len(predictions)} for {len(targets)}")
    columns: dict[str, list[float]] = {}
    for prefix, structures in (("", predictions), ("target_", targets)):
        energies = list(energies_of(structures))
        columns[f"{prefix}energy"] = energies
        columns[f"{prefix}e_above_hull"] = [
            _above(structure, energy, hull, references)
            for structure, energy in zip(structures, energies, strict=True)
        ]
    return pd.DataFrame(columns)


def energy_metrics(
    table: pd.DataFrame, protocol: str, bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP
) -> dict[str, Metric]:
    """Energy loss, stability loss of the predictions, and stability loss of the targets themselves.

    The energy loss is the mean of |E - E_target|, the stability loss the mean of max(0, E above the hull),
    both over the pairs of which both crystals have an energy, unrelaxed.

    Args:
        table: see `pair_energies`.
        protocol: potential, hull and references in words.
        bootstrap: of the intervals.
    """
    complete = table.dropna()
    energy, target, above, target_above = (complete[c].to_numpy(dtype=float) for c in _COLUMNS)
    columns = {
        "energy_loss": np.abs(energy - target),
        "stability_loss": above.clip(0),
        "target_stability_loss": target_above.clip(0),
    }
    who = "pairs with energies"
    return {
        name: mean_metric(name, values, who, protocol, bootstrap, "eV/atom")
        for name, values in columns.items()
    }


def _above(structure: Structure, energy: float, hull: ConvexHull, references: ElementReferences) -> float:
    if not np.isfinite(energy):
        return float("nan")
    try:
        composition = structure.composition
        return hull.above(composition, references.formation_energy(composition, energy))
    except KeyError:  # an element without a reference
        return float("nan")
