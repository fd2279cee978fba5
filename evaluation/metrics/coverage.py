"""COV-R, COV-P, AMSD, Fréchet and MMD distances on fingerprints of sites and composition."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from autoperi.data.reading import ReadResult
from evaluation.facts.reference import Reference, ReferenceSettings, held_out, load_reference
from evaluation.facts.symmetry import MP20_TOLERANCES, SymmetrySettings
from evaluation.metric import DEFAULT_BOOTSTRAP, BootstrapSettings, Metric, mean_metric, statistic_metric
from evaluation.metrics.divergence import frechet_distance, squared_mmd
from evaluation.metrics.fingerprints import Fingerprints, FingerprintSettings, fingerprints

_MMD_CRYSTALS = 2000  # kernels grow with the square


@dataclass(frozen=True)
class Cutoffs:
    """Distances up to which two crystals count as near (CDVAE, arXiv:2110.06197).

    Attributes:
        structure: Euclidean distance of mean site fingerprints.
        composition: Euclidean distance of standardised composition features.
    """

    structure: float
    composition: float

    @classmethod
    def of(cls, reference: str) -> "Cutoffs":
        """CDVAE's own: 0.2 and 4 for Perov-5 and Carbon-24, 0.4 and 10 for MP-20 and all else."""
        return cls(0.2, 4.0) if reference.startswith(("perov", "carbon")) else cls(0.4, 10.0)


@dataclass(frozen=True)
class CoverageSettings:
    """What coverage is measured on; a site fingerprint costs about 0.1 s a crystal the first time.

    Attributes:
        reference: crystals to cover, a name or a path; None takes the report's reference, or where that
            is a training split the test split beside it, as the literature does.
        samples: crystals drawn from the samples, unreadable ones among them; None takes all.
            COV-R grows with this number and COV-P with the next: compare equal numbers only.
        reference_samples: crystals drawn from the reference; None takes all.
        cutoffs: None takes CDVAE's for the reference.
        seed: of the two draws.
        cache_dir: see `FingerprintSettings`.
    """

    reference: str | Path | None = None
    samples: int | None = 1000
    reference_samples: int | None = None
    cutoffs: Cutoffs | None = None
    seed: int = 0
    cache_dir: Path | None = None


@dataclass(frozen=True)
class NearestDistances:
    """Distance to the nearest crystal of the other set, structure and composition apart.

    Attributes:
        sample_structure: of every sample, [n].
        sample_composition: of every sample, [n].
        reference_structure: of every reference crystal, [m].
        reference_composition: of every reference crystal, [m].
    """

    sample_structure: np.ndarray
    sample_composition: np.ndarray
    reference_structure: np.ndarray
    reference_composition: np.ndarray


def nearest_distances(samples: Fingerprints, reference: Fingerprints) -> NearestDistances:
    """Nearest distances both ways; infinite when the other set is empty.

    As in CDVAE the nearest by structure and the nearest by composition may be two different
    crystals, so a covered crystal need not have one neighbour near in both.
    """
    by_structure = _nearest(samples.structure, reference.structure)
    by_composition = _nearest(samples.composition, reference.composition)
    return NearestDistances(by_structure[0], by_composition[0], by_structure[1], by_composition[1])


def covered(structure: np.ndarray, composition: np.ndarray, cutoffs: Cutoffs) -> np.ndarray:
    """Which crystals have a neighbour within both cut-offs."""
    return (structure <= cutoffs.structure) & (composition <= cutoffs.composition)


def coverage_metrics(
    samples: Fingerprints,
    reference: Fingerprints,
    nearest: NearestDistances,
    cutoffs: Cutoffs,
    label: str,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
) -> list[Metric]:
    """Coverage, mean nearest distances, Fréchet distances and MMD between two sets of fingerprints.

    COV-P is the share of samples, those without a fingerprint included, that are `covered` by the
    reference; COV-R the share of reference crystals covered by the samples. AMSD and AMCD are the
    mean nearest distances in structure and in composition, each way (CDVAE's `compute_cov`).
    Intervals of recalls resample the reference crystals, all others the samples.

    Args:
        samples: of the samples; its failures count as not covered.
        reference: of the crystals to cover.
        nearest: `nearest_distances` of the two.
        cutoffs: when two crystals are near.
        label: how many of which crystals were taken, for the protocol.
        bootstrap: of the intervals.
    """
    hit = covered(nearest.sample_structure, nearest.sample_composition, cutoffs)
    found = covered(nearest.reference_structure, nearest.reference_composition, cutoffs)
    failed = np.zeros(len(samples.failures), dtype=bool)
    rule = f"CDVAE: structure <= {cutoffs.structure:g}, composition <= {cutoffs.composition:g}; {label}"
    drawn, shown, known = "samples drawn", "samples with a fingerprint", "reference crystals"
    metrics = [
        mean_metric("cov_recall", found, known, rule, bootstrap),
        mean_metric("cov_precision", np.concatenate([hit, failed]), drawn, rule, bootstrap),
    ]
    for name, values, who in (
        ("amsd_recall", nearest.reference_structure, known),
        ("amsd_precision", nearest.sample_structure, shown),
        ("amcd_recall", nearest.reference_composition, known),
        ("amcd_precision", nearest.sample_composition, shown),
    ):
        what = "structure" if name.startswith("amsd") else "composition"
        metrics.append(mean_metric(name, values, who, f"mean nearest {what} distance; {label}", bootstrap))
    for what in ("structure", "composition"):
        own, target = getattr(samples, what), getattr(reference, what)
        metrics += [
            statistic_metric(
                f"frechet_{what}",
                own,
                lambda v, target=target: frechet_distance(v, target),
                shown,
                f"Fréchet distance of {what} fingerprints; {label}",
                bootstrap,
            ),
            _mmd_metric(what, own, target, shown, label, bootstrap),
        ]
    return metrics


def coverage_report(
    read: ReadResult,
    reference: Reference,
    settings: CoverageSettings = CoverageSettings(),
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    data_dir: Path | str | None = None,
    symmetry: SymmetrySettings = MP20_TOLERANCES,
    workers: int = 1,
) -> tuple[pd.DataFrame, list[Metric]]:
    """Draw, fingerprint and compare samples and reference.

    Args:
        read: the samples; unreadable ones are drawn like any other and count as not covered.
        reference: what is covered unless the settings name another.
        settings: how many of which crystals.
        bootstrap: of the intervals.
        data_dir: where a named reference is found.
        symmetry: tolerances a named reference is described with.
        workers: processes.

    Returns:
        a table indexed by id of the samples drawn (`nearest_structure`, `nearest_composition`,
        `covered`, `fingerprint_error`), and the metrics.
    """
    named = settings.reference or held_out(reference.name)
    if named is not None:
        where = ReferenceSettings(Path(data_dir) if data_dir else None, symmetry=symmetry, workers=workers)
        reference = load_reference(named, where)
    cutoffs = settings.cutoffs or Cutoffs.of(reference.name)
    size = len(read.samples) + len(read.failures)
    taken = draw(size, settings.samples, settings.seed)
    chosen = [read.samples[k] for k in taken if k < len(read.samples)]
    targets = draw(len(reference), settings.reference_samples, settings.seed)
    how = FingerprintSettings(settings.cache_dir, workers)
    target = fingerprints([reference.structure(int(k)) for k in targets], how)
    own = fingerprints([sample.structure for sample in chosen], how)
    unread = {len(chosen) + k: "unreadable" for k in range(len(taken) - len(chosen))}
    counted = replace(own, failures={**own.failures, **unread})
    nearest = nearest_distances(counted, target)
    label = f"{len(taken)} samples, {len(targets)} crystals of {reference}"
    metrics = coverage_metrics(counted, target, nearest, cutoffs, label, bootstrap)
    note = (
        f"{len(own.index)} of {size} samples and {len(target.index)} of {len(reference)} reference "
        f"crystals fingerprinted; failed: {len(counted.failures)} and {len(target.failures)}"
    )
    table = pd.DataFrame(
        {
            "nearest_structure": np.nan,
            "nearest_composition": np.nan,
            "covered": False,
            "fingerprint_error": "",
        },
        index=[sample.id for sample in chosen],
    )
    table.iloc[own.index, 0] = nearest.sample_structure
    table.iloc[own.index, 1] = nearest.sample_composition
    table.iloc[own.index, 2] = covered(nearest.sample_structure, nearest.sample_composition, cutoffs)
    for position, reason in own.failures.items():
        table.iloc[position, 3] = reason
    return table, [replace(metric, note=note) for metric in metrics]


def draw(size: int, wanted: int | None, seed: int) -> np.ndarray:
    """Sorted positions of `wanted` of `size` items, drawn without replacement; all for None."""
    if wanted is None or wanted >= size:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).choice(size, wanted, replace=False))


def _mmd_metric(
    what: str, own: np.ndarray, target: np.ndarray, who: str, label: str, bootstrap: BootstrapSettings
) -> Metric:
    own, target = own[:_MMD_CRYSTALS], target[draw(len(target), _MMD_CRYSTALS, bootstrap.seed)]
    protocol = (
        f"unbiased MMD², Gaussian kernel at the median distance of the reference, at most "
        f"{_MMD_CRYSTALS} crystals of each; {label}"
    )
    name = f"mmd_{what}"
    if len(own) < 2 or len(target) < 2:
        return Metric(name, float("nan"), None, None, len(own), who, protocol)
    return statistic_metric(name, np.arange(len(own)), squared_mmd(own, target), who, protocol, bootstrap)


def _nearest(samples: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each row to the nearest of the other set, in blocks of bounded memory."""
    to_reference = np.full(len(samples), np.inf)
    to_samples = np.full(len(reference), np.inf)
    if len(samples) and len(reference):
        for start in range(0, len(samples), 512):
            block = cdist(samples[start : start + 512], reference)
            to_reference[start : start + 512] = block.min(axis=1)
            np.minimum(to_samples, block.min(axis=0), out=to_samples)
    return to_reference, to_samples
