from dataclasses import replace

import pandas as pd
import pytest
import torch

from autoperi.data.run_folder import FolderError
from autoperi.flow.velocity import VelocityConfig
from autoperi.generator import GeneratorConfig, SampleConfig, load
from autoperi.genes.network import GeneConfig
from autoperi.networks.autoencoder import AutoencoderConfig
from autoperi.networks.config import ConfigError, merged_from_toml
from autoperi.networks.orbit_network import OrbitNetworkConfig
from autoperi.training import pipeline
from autoperi.training.assemble import refuse_other_scales
from autoperi.training.fit import FitConfig
from autoperi.training.folder import claim
from autoperi.training.pipeline import refuse_another_recipe, run_stage
from autoperi.training.recipe import Recipe
from autoperi.training.states import read_state
from evaluation.metrics.curve import training_figures

TRUNK = OrbitNetworkConfig(width=8, vectors=2, layers=1, cutoff=4.0, radial=6)
ONE = FitConfig(epochs=1, cooldown=1, batch_size=8, warmup=2)
TWO = replace(ONE, epochs=2)


@pytest.fixture
def folder(prototypes, tmp_path, monkeypatch):
    """A user's data: two CSV files with a CIF column and one property."""
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "cache"))
    rows = [
        {"material_id": name, "cif": s.to(fmt="cif"), "band_gap": i / 10}
        for i, (name, s) in enumerate(prototypes.items())
    ]
    for split, part in (("train", rows[:16]), ("val", rows[16:22]), ("test", rows[22:24])):
        pd.DataFrame(part).to_csv(tmp_path / f"{split}.csv", index=False)
    return tmp_path


def test_own_data_from_csv_to_crystals(folder):
    """Every stage runs on a user's CSV files and the assembled checkpoint samples."""
    sizes = GeneratorConfig(
        AutoencoderConfig(irreps="4x0e+2x1o+1x2e", decoder=TRUNK, cutoff=4.0),
        VelocityConfig(network=TRUNK),
        GeneConfig(width=16, depth=1, heads=2),
    )
    recipe = Recipe(str(folder), 6, 2, 1, generator=sizes, autoencoder=ONE, genes=ONE, critic=ONE, flow=ONE)
    (folder / "partial.toml").write_text("[flow]\ndevices = 1\n")
    recipe = merged_from_toml(recipe, folder / "partial.toml")
    out = folder / "run"
    for stage in ("autoencoder", "genes", "critic", "flow", "assemble"):
        run_stage(recipe, out, stage, None, training_figures)
    assert read_state(out / "flow" / "last.ckpt")["global_step"] == 2  # 16 crystals, 8 a step as before
    for part, figure in (("genes", "sample/valid_and_new"), ("flow", "sample/prior/valid_and_new")):
        logged = pd.concat(pd.read_csv(p) for p in (out / part).rglob("metrics.csv"))
        assert logged[figure].between(0, 1).any()
    generator = load(out / "checkpoint")
    assert generator.about["crystals"] == "16"
    card = (out / "checkpoint" / "MODEL_CARD.md").read_text()
    assert "### flow" in card
    assert "valid_and_new" in card
    parts = {
        "genes/chosen": generator.gene_network,
        "critic/best": generator.critic,
        "flow/chosen": generator.flow.velocity,
    }
    for file, network in parts.items():
        chosen = read_state(out / f"{file}.ckpt")["state_dict"]
        weights = network.state_dict()
        for name, value in chosen.items():  # rounded to float16 on disk
            assert torch.allclose(weights[name.removeprefix("network.")], value, rtol=1e-3, atol=1e-6)
    refuse_other_scales(generator)
    kept = replace(ONE, epochs=0)
    again = Recipe(str(folder), start=str(out / "checkpoint"), generator=sizes, flow=kept, critic=kept)
    again = replace(again, genes=kept, autoencoder=kept)
    run_stage(again, folder / "again", "assemble", None, training_figures)
    start = load(folder / "again" / "checkpoint").about["start"]
    assert start["sha256"] == generator.sha256
    assert start["kept"] == ["autoencoder", "genes", "critic", "flow"]
    assert start["about"] == generator.about
    assert len(generator.sample(2, config=SampleConfig())) == 2


def test_a_stage_out_of_order_says_what_to_run(folder):
    """The flow needs an autoencoder."""
    recipe = Recipe(str(folder), flow=ONE)
    with pytest.raises(FileNotFoundError, match="autoencoder"):
        run_stage(recipe, folder / "empty", "flow", None, training_figures)


def test_a_stage_is_not_gone_on_with_another_recipe_or_other_data(folder):
    """What differs is named, and the weights stay those of the training that was begun."""
    sizes = GeneratorConfig(genes=GeneConfig(width=16, depth=1, heads=2))
    recipe = Recipe(str(folder), 6, 2, 1, generator=sizes, genes=ONE)
    out = folder / "run"
    run_stage(recipe, out, "genes", None, training_figures)
    before = (out / "genes" / "last.ckpt").read_bytes()
    for change, text in (
        ({"seed": 1}, r"genes\.seed = 1 for 0"),
        ({"lr": 1e-5}, r"genes\.lr = 1e-05 for 0\.001"),
    ):
        with pytest.raises(FolderError, match=text):
            run_stage(replace(recipe, genes=replace(ONE, **change)), out, "genes", None, training_figures)
    table = pd.read_csv(folder / "train.csv")
    table[1:].to_csv(folder / "train.csv", index=False)
    with pytest.raises(FolderError, match=r"got train data = "):
        run_stage(recipe, out, "genes", None, training_figures)
    assert (out / "genes" / "last.ckpt").read_bytes() == before


def test_a_recipe_that_a_later_stage_refuses_is_refused_before_the_first(tmp_path):
    """Stages not begun may change; one that others have learned from may not grow."""
    recipe = Recipe(autoencoder=ONE, genes=ONE, critic=ONE, flow=ONE)
    for stage in ("autoencoder", "flow"):
        claim(tmp_path / stage, {**pipeline._of_recipe(recipe, stage, None), "train data": "a"})
    for accepted in (recipe, replace(recipe, genes=FitConfig(epochs=5)), replace(recipe, flow=TWO)):
        refuse_another_recipe(accepted, tmp_path)
    for changed, text in (
        (
            replace(recipe, flow=replace(ONE, lr=1e-5)),
            r"flow was begun with: got flow\.lr = 1e-05 for",
        ),
        (replace(recipe, autoencoder=TWO), r"got autoencoder\.epochs = 2 for 1"),
    ):
        with pytest.raises(FolderError, match=text):
            refuse_another_recipe(changed, tmp_path)


def test_missing_data_names_the_field(tmp_path):
    with pytest.raises(ConfigError, match=r"data: expected .*nowhere"):
        run_stage(Recipe("nowhere"), tmp_path, "genes", None, training_figures)
