import numpy as np
import pytest

from evaluation.metric import BootstrapSettings
from evaluation.metrics.reconstruction import (
    CDVAE_MATCH,
    match_pair,
    reconstruction_metrics,
    reconstruction_table,
)
from tests.evaluation.crystals import disguised, rocksalt, rutile, zoo


def test_a_disguised_crystal_is_rebuilt_without_error():
    for crystal in (rutile(), zoo()[1]):
        errors = match_pair(disguised(crystal, 5), crystal)
        assert errors is not None
        assert errors.rmse == pytest.approx(0, abs=1e-5)
        assert errors.coordinate_mse == pytest.approx(0, abs=1e-8)
        assert errors.bond_mse == pytest.approx(0, abs=1e-8)
        assert errors.length_mse == pytest.approx(0, abs=1e-8)


def test_a_cell_too_large_shows_in_bonds_and_lengths_but_not_in_the_rmse():
    target, guess = rocksalt(a=5.6), rocksalt(a=5.8)
    errors = match_pair(guess, target)
    assert errors is not None
    assert errors.rmse == pytest.approx(0, abs=1e-6)
    assert errors.bond_mse == pytest.approx(0.1**2, rel=1e-3)
    assert errors.length_mse == pytest.approx((0.2 / np.sqrt(2)) ** 2, rel=1e-3)


def test_rates_are_shares_of_all_targets():
    targets = [rocksalt(), rutile(), rocksalt("Na", "K", 5.0)]
    table = reconstruction_table([targets[0], None, targets[2]], targets)
    assert table["matched"].tolist() == [True, False, True]
    metrics = reconstruction_metrics(table, CDVAE_MATCH, BootstrapSettings(resamples=20))
    assert metrics["match_rate"].value == pytest.approx(2 / 3)
    assert metrics["match_rate"].n == 3
    assert metrics["rmse"].n == 2


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="1 for 0"):
        reconstruction_table([None], [])
