import pytest

from property_models.training import shipped
from property_models.training.fit_ensemble import PropertyRecipe
from property_models.training.hypothetical import WBM
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


def test_gaps_are_learned_from_wbm_as_well(tmp_path, monkeypatch):
    """They and nothing else: energies take WBM where draws are given."""

    class AskedError(Exception):
        pass

    def train(_recipe, splits, *_):
        raise AskedError(splits)

    for name in ("shipped_splits", "table_of"):
        monkeypatch.setattr(shipped, name, lambda *given: given[0])
    monkeypatch.setattr(shipped, "with_hypothetical", lambda splits, wbm, *_: (*splits, wbm))
    monkeypatch.setattr(shipped, "train_ensemble", train)
    for target, data in (("band_gap", ("band_gap", WBM)), ("bulk_modulus", ("bulk_modulus",))):
        with pytest.raises(AskedError) as told:
            train_shipped(PropertyRecipe((target,)), tmp_path)
        assert told.value.args == (data,)


def test_a_table_that_is_not_there_is_named(tmp_path):
    (tmp_path / "wbm").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected wbm/some\.csv\.gz below the data folder"):
        table_of("wbm/some", tmp_path)
    (tmp_path / "wbm" / "some.csv").touch()
    assert table_of("wbm/some", tmp_path) == tmp_path / "wbm" / "some.csv"
