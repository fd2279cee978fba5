"""Match rate, RMSD, and errors of coordinates, bonds and cells of pairs of crystals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from evaluation.facts.matching import MatchSettings, bare
from evaluation.metric import DEFAULT_BOOTSTRAP, BootstrapSettings, Metric, statistic_metric
from evaluation.metrics.validity import smact_valid, structural_validity

CDVAE_MATCH = MatchSettings(ltol=0.3, stol=0.5, angle_tol=10.0)
STRICT_MATCH = MatchSettings(ltol=0.2, stol=0.3, angle_tol=5.0)


@dataclass(frozen=True)
class PairErrors:
    """Squared errors of one prediction laid over its target.

    Attributes:
        rmse: root mean square displacement divided by (volume per atom)^(1/3), as CDVAE gives it.
        coordinate_mse: mean squared displacement of the paired atoms, Å².
        bond_mse: mean squared error of nearest-neighbour distances of the paired atoms, Å².
        length_mse: mean squared error of the sorted Niggli cell lengths, Å².
        angle_mse: mean squared error of the Niggli cell angles in the order of `length_mse`, deg².
    """

    rmse: float
    coordinate_mse: float
    bond_mse: float
    length_mse: float
    angle_mse: float


def match_pair(
    prediction: Structure, target: Structure, settings: MatchSettings = CDVAE_MATCH
) -> PairErrors | None:
    """Errors of a prediction that matches its target; None when it does not.

    RMSE is StructureMatcher's, on primitive cells scaled to equal volume (CDVAE, arXiv:2110.06197).
    The other errors are taken between primitive cells without that scaling, so a wrong volume shows.
    """
    prediction, target = bare(prediction), bare(target)
    matcher = settings.matcher()
    distance = matcher.get_rms_dist(prediction, target)
    if distance is None:
        return None
    goal = target.get_reduced_structure("niggli").get_primitive_structure()
    guess = prediction.get_reduced_structure("niggli").get_primitive_structure()
    nan = float("nan")
    lengths = np.sort(goal.lattice.abc) - np.sort(guess.lattice.abc)
    angles = _sorted_angles(goal) - _sorted_angles(guess)
    overlay = StructureMatcher(
        ltol=settings.ltol, stol=settings.stol, angle_tol=settings.angle_tol, primitive_cell=False
    )
    aligned = overlay.get_s2_like_s1(goal, guess) if len(goal) == len(guess) else None
    coordinate = bond = nan
    if aligned is not None:
        shift = aligned.frac_coords - goal.frac_coords
        shift -= np.round(shift)
        shift -= shift.mean(axis=0)
        coordinate = float((goal.lattice.get_cartesian_coords(shift) ** 2).sum(axis=1).mean())
        bond = float(((_nearest(goal) - _nearest(aligned)) ** 2).mean())
    return PairErrors(
        float(distance[0]), coordinate, bond, float((lengths**2).mean()), float((angles**2).mean())
    )


def reconstruction_table(
    predictions: Sequence[Structure | None],
    targets: Sequence[Structure],
    settings: MatchSettings = CDVAE_MATCH,
) -> pd.DataFrame:
    """One row per target: matched, the errors, and whether prediction and target pass validity.

    A missing or structurally invalid prediction counts as not matching, as in CDVAE and DiffCSP.
    `kept` marks the pairs that DiffCSP (arXiv:2309.04475) lets match at all: prediction and target
    both valid structurally and by SMACT (`smact14`).
    """
    if len(predictions) != len(targets):
        raise ValueError(
            f"expected one prediction per target: got {len(predictions)} for {len(targets)}; put "
            "None where there is no prediction"
        )
    rows = []
    for prediction, target in zip(predictions, targets, strict=True):
        errors = None
        valid = prediction is not None and structural_validity(prediction)
        if prediction is not None and valid:
            try:
                errors = match_pair(prediction, target, settings)
            except Exception:
                errors = None
        kept = (
            prediction is not None
            and valid
            and smact_valid(prediction.composition)
            and structural_validity(target)
            and smact_valid(target.composition)
        )
        rows.append(
            {
                "matched": errors is not None,
                "kept": kept,
                **{name: getattr(errors, name, float("nan")) for name in _ERRORS},
            }
        )
    return pd.DataFrame(rows, columns=["matched", "kept", *_ERRORS])


def reconstruction_metrics(
    table: pd.DataFrame, settings: MatchSettings, bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP
) -> dict[str, Metric]:
    """Match rate unfiltered and filtered, and mean errors over the matched pairs.

    Both rates are shares of all targets. In the filtered one a pair that is not `kept` counts as
    not matched, so MP-20 tops out near its 90.6% of SMACT-valid compositions.
    """
    matched = table[table["matched"]]

    def mean(name: str, values: Any, of: str, unit: str = "") -> Metric:
        return statistic_metric(
            name,
            np.asarray(values, dtype=float),
            lambda v: float(np.nanmean(v)) if np.isfinite(v).any() else float("nan"),
            of,
            str(settings),
            bootstrap,
            bootstrap.resamples,
            unit,
        )

    metrics = [
        mean("match_rate", table["matched"], "all targets"),
        mean("match_rate_filtered", table["matched"] & table["kept"], "all targets"),
        mean("rmse", matched["rmse"], "matched pairs", "(V/N)^(1/3)"),
        mean("coordinate_mse", matched["coordinate_mse"], "matched pairs", "Å²"),
        mean("bond_mse", matched["bond_mse"], "matched pairs", "Å²"),
        mean("length_mse", matched["length_mse"], "matched pairs", "Å²"),
        mean("angle_mse", matched["angle_mse"], "matched pairs", "deg²"),
    ]
    return {metric.name: metric for metric in metrics}


_ERRORS = ("rmse", "coordinate_mse", "bond_mse", "length_mse", "angle_mse")


def _sorted_angles(structure: Structure) -> np.ndarray:
    return np.array(structure.lattice.angles)[np.argsort(structure.lattice.abc, kind="stable")]


def _nearest(structure: Structure) -> np.ndarray:
    """Distance of every atom to its nearest neighbour, own periodic images included, Å."""
    radius = 1.1 * (structure.volume / len(structure)) ** (1 / 3)
    while True:
        centre, _, _, distance = structure.get_neighbor_list(radius)
        if len(set(centre.tolist())) == len(structure):
            nearest = np.full(len(structure), np.inf)
            np.minimum.at(nearest, centre, distance)
            return nearest
        radius *= 1.5
