from dataclasses import replace

import pytest

from autoperi.data.dataset import CrystalDataset
from autoperi.training.fit import FitConfig
from property_models.networks.energies import CUTOFF, PotentialEnergy
from property_models.training import search
from property_models.training.fit_ensemble import LabelledGraphs, PropertyRecipe
from tests.property_models.small import TINY, labelled_crystals


def test_corrections_of_the_potential_are_searched_as_they_are_trained(tmp_path, monkeypatch):
    """Trials learn what the potential lacks, and their networks see as far as it does."""
    optuna = pytest.importorskip("optuna")
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path))
    fit = FitConfig(epochs=1, cooldown=0, batch_size=8, warmup=1)
    recipe = PropertyRecipe(network=replace(TINY, cutoff=CUTOFF + 0.5), potential=True, fit=fit).filled()
    data = CrystalDataset.from_crystals(labelled_crystals(12))
    learned = []
    fitted = search.fit_members

    def kept(recipe, train, *others):
        learned.append(train)
        return fitted(recipe, train, *others)

    monkeypatch.setattr(search, "fit_members", kept)
    space = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    suggested = [search._suggested(recipe, space.ask()) for _ in range(20)]
    assert min(s.network.cutoff for s in suggested) == CUTOFF
    search.best_recipe(recipe, data, data, tmp_path / "search", 1)
    whole = LabelledGraphs.from_dataset(data, recipe.network)
    assert (learned[0].labels - whole.beyond(PotentialEnergy()).labels).abs().max() < 1e-5
