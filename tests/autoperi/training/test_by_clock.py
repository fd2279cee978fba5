import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from autoperi.crystals.labels import DEFAULT_CONDITIONS
from autoperi.flow.relatives import Relatives
from autoperi.flow.velocity import VelocityConfig, VelocityNetwork, base_point
from autoperi.networks.autoencoder import Autoencoder
from autoperi.networks.config import build
from autoperi.training.kin import Kin
from scripts.shipped.train_flow_by_clock import carry_on, train
from tests.autoperi.small import TINY_AUTOENCODER, TINY_VELOCITY, largest, small_batch
from tests.autoperi.training.tiny import training_set


def _network(layers: int, seed: int = 0) -> VelocityNetwork:
    torch.manual_seed(seed)
    sizes = replace(TINY_VELOCITY, network=replace(TINY_VELOCITY.network, layers=layers))
    network = VelocityNetwork(sizes).double()
    network.scale.fit(small_batch())
    return network


@torch.no_grad()
def test_new_layers_change_nothing_at_first():
    """They come before those that have learned, and pass on what they are given."""
    older, deeper = _network(2), _network(5, seed=1)
    carry_on(deeper, older)
    batch = small_batch()
    point = base_point(batch, TINY_VELOCITY.latent, torch.Generator().manual_seed(0))
    t = torch.full((batch.n_crystals,), 0.3, dtype=torch.float64)
    nothing = torch.full((batch.n_crystals, 3), torch.nan, dtype=torch.float64)
    before, after = (network(t, point, batch, nothing) for network in (older, deeper))
    assert largest(before.logits - after.logits) < 1e-9
    assert all(largest(a - b) < 1e-9 for a, b in zip(before.velocity, after.velocity, strict=True))


def test_layers_are_not_dropped():
    """Who asks for fewer is told to begin anew."""
    with pytest.raises(ValueError, match="--anew"):
        carry_on(_network(1), _network(2))


def test_training_ends_with_the_clock(tmp_path):
    """And leaves averaged weights of the size asked for, the curve and how they came about."""
    data = training_set(8)
    crystals = data.crystals.to(dtype=torch.float64).to_crystals()
    kin = Kin.of(crystals, Relatives.from_crystals(crystals), themselves=True)
    encoder, velocity = Autoencoder(TINY_AUTOENCODER).encoder, _network(2).float()
    content = {
        "conditions": dict(DEFAULT_CONDITIONS),
        "encoder": (encoder.config, encoder.state_dict()),
        "velocity": (velocity.config, velocity.state_dict()),
        "train": replace(data, kin=kin),
        "val": replace(data, kin=kin),
    }
    torch.save(content, tmp_path / "data.pt")
    train(tmp_path / "data.pt", tmp_path / "out", minutes=0.05, layers=3, batch_size=4, workers=0)
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    network = VelocityNetwork(build(VelocityConfig, settings["config"]))
    network.load_state_dict(load_file(tmp_path / "out" / "velocity.safetensors"))
    assert network.config.network.layers == 3
    last = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == settings["steps"] > 0
    assert 0 < last["val/total"] < 1e4
