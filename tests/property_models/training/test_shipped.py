import pytest

from property_models.training.fit_ensemble import PropertyRecipe
from property_models.training.shipped import shipped_splits, table_of, train_shipped


def test_requests_that_no_shipped_model_answers_are_refused(tmp_path):
    for targets, words in (
        (["band_gsp"], "did you mean 'band_gap'"),
        (["band_gap", "bulk_modulus"], "expected targets of one data set"),
    ):
        with pytest.raises(ValueError, match=words):
            shipped_splits(targets)
    with pytest.raises(
        ValueError, match="expected labelled draws for formation_energy alone: got formation_energy, band_gap"
    ):
        train_shipped(PropertyRecipe(("formation_energy", "band_gap")), tmp_path, draws=tmp_path)


def test_a_table_that_is_not_there_is_named(tmp_path):
    (tmp_path / "wbm").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected wbm/some\.csv\.gz below the data folder"):
        table_of("wbm/some", tmp_path)
    (tmp_path / "wbm" / "some.csv").touch()
    assert table_of("wbm/some", tmp_path) == tmp_path / "wbm" / "some.csv"
