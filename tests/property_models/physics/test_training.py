from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from autoperi.data.dataset import CrystalDataset
from autoperi.flow.loss import matching_loss
from autoperi.networks.physics import PhysicsWeights
from autoperi.training.fit import BatchData, FitConfig, fit
from autoperi.training.pipeline import run_stage
from autoperi.training.recipe import Recipe
from autoperi.training.stages import AutoencoderTraining, TrainingSet
from property_models.physics.training import training_physics
from tests.autoperi.small import largest, small_batch, small_crystal, tiny_model

GROUPS = (2, 62, 166, 194)
ONE = FitConfig(epochs=1, cooldown=1, batch_size=4, warmup=2)


@pytest.fixture(scope="module")
def dataset() -> CrystalDataset:
    crystals = [replace(small_crystal(g, 0, sites=2, max_atoms=6), id=str(g)) for g in GROUPS]
    return CrystalDataset.from_crystals([replace(c, properties={"formation_energy": -1.0}) for c in crystals])


@pytest.mark.parametrize("weights", [PhysicsWeights(barrier=2.0), PhysicsWeights(hull=1.0, force=0.1)])
def test_both_networks_learn_from_physics(weights, dataset):
    """The term is added to the total, and its gradient reaches encoder, decoder and velocity."""
    model, batch = (
        tiny_model(torch.float32).train(),
        small_batch(GROUPS, sites=2, max_atoms=6).to(dtype=torch.float32),
    )
    physics = training_physics(weights, dataset)
    generator = torch.Generator().manual_seed
    plain = model.autoencoder.loss(batch, generator(0))
    terms = model.autoencoder.loss(batch, generator(0), physics)
    assert float(terms["physics"]) > 0
    assert largest(terms["total"] - plain["total"] - terms["physics"]) < 1e-3
    terms["physics"].backward()
    for part in (model.autoencoder.encoder, model.autoencoder.decoder):
        assert max(largest(p.grad) for p in part.parameters() if p.grad is not None) > 0

    h = torch.randn(batch.n_sites, 3, generator=generator(0))
    conditions = torch.full((batch.n_crystals, 3), torch.nan)
    plain = matching_loss(model.velocity, batch, h, conditions, generator(1))
    terms = matching_loss(model.velocity, batch, h, conditions, generator(1), physics)
    assert "physics" not in plain
    assert float(terms["physics"]) > 0
    assert largest(terms["total"] - plain["total"] - terms["physics"]) < 1e-3
    terms["physics"].backward()
    assert max(largest(p.grad) for p in model.velocity.parameters() if p.grad is not None) > 0


def test_training_logs_the_term(dataset, tmp_path):
    """One epoch through Lightning, with the weights of the physics outside of the checkpoint."""
    network = tiny_model(torch.float32).autoencoder.train()
    data = BatchData(TrainingSet.from_dataset(dataset, ()), TrainingSet.from_dataset(dataset, ()), 4, 0)
    physics = training_physics(PhysicsWeights(barrier=1.0), dataset)
    fit(AutoencoderTraining(network, ONE, physics), data, ONE, tmp_path)
    logged = pd.concat(pd.read_csv(p) for p in tmp_path.rglob("metrics.csv"))
    assert np.isfinite(logged["train/physics"].dropna()).all()
    assert len(logged["train/physics"].dropna()) == 1


def test_a_recipe_that_weighs_physics_wants_it(tmp_path):
    recipe = Recipe(str(tmp_path), physics=PhysicsWeights(barrier=1.0))
    with pytest.raises(ValueError, match="expected physics to be handed in"):
        run_stage(recipe, tmp_path, "flow", None, lambda *_: {})
