import pandas as pd
import pytest
import torch

from autoperi.flow.velocity import VelocityConfig
from autoperi.generator import GeneratorConfig, SampleConfig, load
from autoperi.genes.network import GeneConfig
from autoperi.networks.autoencoder import AutoencoderConfig
from autoperi.networks.orbit_network import OrbitNetworkConfig
from autoperi.training.fit import FitConfig
from autoperi.training.pipeline import run_stage
from autoperi.training.recipe import Recipe
from autoperi.training.states import read_state
from evaluation.metrics.curve import training_figures

TRUNK = OrbitNetworkConfig(width=8, vectors=2, layers=1, cutoff=4.0, radial=6)
ONE = FitConfig(epochs=1, cooldown=1, batch_size=8, warmup=2)


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
    out = folder / "run"
    for stage in ("autoencoder", "genes", "critic", "flow", "assemble"):
        run_stage(recipe, out, stage, None, training_figures)
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
    assert len(generator.sample(2, config=SampleConfig())) == 2


def test_a_stage_out_of_order_says_what_to_run(folder):
    """The flow needs an autoencoder."""
    recipe = Recipe(str(folder), flow=ONE)
    with pytest.raises(FileNotFoundError, match="autoencoder"):
        run_stage(recipe, folder / "empty", "flow", None, training_figures)
