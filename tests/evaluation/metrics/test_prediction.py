import numpy as np
import pytest
from pymatgen.core import Structure

from evaluation.metric import BootstrapSettings
from evaluation.metrics.prediction import best_of_k_table, match_everyone, metre_metrics
from evaluation.metrics.reconstruction import CDVAE_MATCH
from tests.evaluation.crystals import disguised, rocksalt, rutile

QUICK = BootstrapSettings(resamples=20, resamples_distance=5)


def caesium_chloride():
    return Structure(rocksalt().lattice, ["Na", "Cl"], [[0] * 3, [0.5] * 3])


def shaken(structure, seed=0):
    other = structure.copy()
    other.perturb(0.3, seed=seed)
    return other


def test_the_best_of_several_predictions_counts():
    targets = [rutile(), rocksalt(), rocksalt("K", "Br", 6.6)]
    answers = [[caesium_chloride(), shaken(rutile()), disguised(rutile(), 1)], [None], []]
    table = best_of_k_table(answers, targets)
    assert table["matched"].tolist() == [True, False, False]
    assert table["rmse"][0] == pytest.approx(0, abs=1e-5)
    assert table["k"].tolist() == [3, 1, 0]
    one = best_of_k_table([answers[0][:2]], targets[:1])
    assert one["rmse"][0] > 0.01
    with pytest.raises(ValueError, match="1 for 3"):
        best_of_k_table([[]], targets)


def test_samples_made_for_one_polymorph_may_match_another():
    references = [rocksalt(), caesium_chloride(), rutile()]
    samples = [shaken(caesium_chloride()), disguised(caesium_chloride(), 2), rocksalt("K", "Br", 6.6)]
    found = match_everyone(samples, references)
    assert found.sample == (None, 1, None)
    assert found.sample_matched.tolist() == [True, True, False]
    assert found.pairs_compared == 4
    metrics = {metric.name: metric for metric in metre_metrics(found, QUICK)}
    assert metrics["metre"].value == pytest.approx(1 / 3)
    assert metrics["metre"].n == 3
    assert metrics["metre_rmse"].value == pytest.approx(0, abs=1e-5)
    assert metrics["metre_rmse"].n == 1
    assert metrics["crmse"].value == pytest.approx((0 + 2 * CDVAE_MATCH.stol) / 3, abs=1e-5)
    assert metrics["sample_match_rate"].value == pytest.approx(2 / 3)


def test_nothing_predicted_costs_the_whole_tolerance():
    metrics = {m.name: m for m in metre_metrics(match_everyone([], [rocksalt()]), QUICK)}
    assert metrics["metre"].value == 0
    assert metrics["crmse"].value == CDVAE_MATCH.stol
    assert np.isnan(metrics["metre_rmse"].value)
