"""Structure prediction with several answers: match rate of the best of k, and METRe."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from autoperi.data.workers import mapped
from evaluation.facts.matching import MatchSettings, bare, formula_key
from evaluation.metric import DEFAULT_BOOTSTRAP, BootstrapSettings, Metric, mean_metric, statistic_metric
from evaluation.metrics.reconstruction import CDVAE_MATCH, reconstruction_table


def best_of_k_table(
    predictions: Sequence[Sequence[Structure | None]],
    targets: Sequence[Structure],
    settings: MatchSettings = CDVAE_MATCH,
) -> pd.DataFrame:
    """One row per target: the columns of `reconstruction_table` for its best prediction.

    Best is the matching prediction of least RMSE, one that is `kept` before one that is not, as
    the literature's match rates of 20 samples are taken (DiffCSP, arXiv:2309.04475). A target none
    of whose predictions match is not matched. `k` says how many predictions there were.
    """
    if len(predictions) != len(targets):
        raise ValueError(
            f"expected one list of predictions per target: got {len(predictions)} for {len(targets)}"
        )
    owner = np.repeat(np.arange(len(targets)), [len(p) for p in predictions])
    flat = [prediction for answers in predictions for prediction in answers]
    table = reconstruction_table(flat, [targets[k] for k in owner.tolist()], settings)
    order = table.assign(target=owner).sort_values(
        ["target", "matched", "kept", "rmse"], ascending=[True, False, False, True], kind="stable"
    )
    best = order.groupby("target").first().reindex(range(len(targets)))
    for column in ("matched", "kept"):
        best[column] = best[column].fillna(False).astype(bool)
    best["k"] = np.bincount(owner, minlength=len(targets))
    return best.reset_index(drop=True)


@dataclass(frozen=True)
class EveryMatch:
    """Matches of a set of samples with a set of reference crystals, any with any.

    Attributes:
        rmse: of each reference crystal, that of the sample nearest to it; NaN when none matches.
        sample: position of that sample, or None.
        sample_matched: of each sample, whether it matches any reference crystal.
        pairs_compared: geometric comparisons made.
        failures: comparisons that raised; they count as not matching.
        settings: the matcher.
    """

    rmse: np.ndarray
    sample: tuple[int | None, ...]
    sample_matched: np.ndarray
    pairs_compared: int
    failures: int
    settings: MatchSettings


def match_everyone(
    samples: Sequence[Structure],
    references: Sequence[Structure],
    settings: MatchSettings = CDVAE_MATCH,
    workers: int = 1,
) -> EveryMatch:
    """Compare every sample with every reference crystal of its formula ("match everyone to reference").

    The pairing of METRe (Martirossyan et al., arXiv:2509.12178): which sample was made for which
    reference is ignored, so polymorphs of one formula are each looked for among all samples.
    """
    by_formula: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        by_formula[formula_key(sample)].append(index)
    pairs = [(r, s) for r, reference in enumerate(references) for s in by_formula[formula_key(reference)]]
    arguments = [(samples[s], references[r], settings) for r, s in pairs]
    distances = list(mapped(_distance, arguments, workers, lambda _, reason: reason))
    rmse = np.full(len(references), np.nan)
    nearest: list[int | None] = [None] * len(references)
    sample_matched = np.zeros(len(samples), dtype=bool)
    for (r, s), distance in zip(pairs, distances, strict=True):
        if isinstance(distance, str) or distance is None:
            continue
        sample_matched[s] = True
        if not rmse[r] <= distance:
            rmse[r], nearest[r] = distance, s
    failures = sum(isinstance(d, str) for d in distances)
    return EveryMatch(rmse, tuple(nearest), sample_matched, len(pairs), failures, settings)


def metre_metrics(found: EveryMatch, bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP) -> list[Metric]:
    """METRe, its mean RMSE, and cRMSE, which charges for what is missing (arXiv:2509.12178).

    METRe is the share of reference crystals that some sample matches. `metre_rmse` is the mean over
    those of the least RMSE, in (V/N)^(1/3). cRMSE is the mean over all reference crystals, one that
    no sample matches entering with the matcher's site tolerance `stol`, the largest RMSE a match
    can have: a model cannot lower it by matching the easy crystals only. `sample_match_rate` is the
    share of samples that match some reference crystal.

    Certain, from code that reimplements the paper's metrics: the least RMSE over all samples is kept for
    each reference crystal, the denominator is the reference set, what is missing is charged `stol`, and
    the tolerances are CDVAE's (`CDVAE_MATCH`). That code also charges pairs in the order given (sample i
    for reference i): the mean of `rmse` filled with `stol` in `reconstruction_table`. Not checked against
    the paper's text: that pairs share a reduced formula, as here; the matcher refuses others anyway.
    `sample_match_rate` is of this package.
    """
    matched = np.isfinite(found.rmse)
    compared = f"any sample with any reference crystal, {found.pairs_compared} pairs; {found.settings}"
    charged = np.where(matched, found.rmse, found.settings.stol)
    unit = "(V/N)^(1/3)"
    return [
        mean_metric("metre", matched, "reference crystals", compared, bootstrap),
        statistic_metric(
            "metre_rmse",
            found.rmse[matched],
            lambda v: float(v.mean()),
            "matched reference crystals",
            compared,
            bootstrap,
            bootstrap.resamples,
            unit,
        ),
        mean_metric(
            "crmse",
            charged,
            "reference crystals",
            f"not matched: {found.settings.stol:g}; {compared}",
            bootstrap,
            unit,
        ),
        mean_metric("sample_match_rate", found.sample_matched, "samples", compared, bootstrap),
    ]


def _distance(argument: tuple[Structure, Structure, MatchSettings]) -> float | str | None:
    sample, reference, settings = argument
    try:
        found = settings.matcher().get_rms_dist(bare(sample), bare(reference))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None if found is None else float(found[0])
