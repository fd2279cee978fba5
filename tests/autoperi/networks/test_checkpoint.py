import json
from dataclasses import asdict, dataclass, field

import pytest
import torch

from autoperi.flow.sampler import FlowModel
from autoperi.flow.velocity import VelocityConfig
from autoperi.networks.autoencoder import AutoencoderConfig
from autoperi.networks.checkpoint import (
    CheckpointError,
    build,
    half_precision,
    read_config,
    read_weights,
    write_checkpoint,
)
from autoperi.networks.orbit_network import OrbitNetworkConfig
from tests.autoperi.small import TINY_AUTOENCODER, TINY_VELOCITY, fit_scale


@dataclass(frozen=True)
class _Config:
    autoencoder: AutoencoderConfig = field(default_factory=lambda: TINY_AUTOENCODER)
    velocity: VelocityConfig = field(default_factory=lambda: TINY_VELOCITY)
    groups: tuple[int, ...] = (225, 62)


def _model(seed: int) -> FlowModel:
    torch.manual_seed(seed)
    return FlowModel(TINY_AUTOENCODER, TINY_VELOCITY)


@pytest.fixture
def folder(tmp_path):
    model = _model(0)
    fit_scale(model)
    write_checkpoint(tmp_path / "model", model.state_dict(), _Config(), {"seed": 7})
    return tmp_path / "model"


def test_round_trip(folder):
    """Config, provenance and every weight and buffer come back bit by bit."""
    content = read_config(folder)
    assert content["about"] == {"seed": 7}
    config = build(_Config, content["config"])
    assert config == _Config()
    torch.manual_seed(1)
    model = FlowModel(config.autoencoder, config.velocity)
    read_weights(folder, model, content["sha256"])
    original = _model(0)
    fit_scale(original)
    for (name, a), (other, b) in zip(model.state_dict().items(), original.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)


def test_half_precision_rounds_matrices_alone(tmp_path):
    model = _model(0)
    fit_scale(model)
    digest = write_checkpoint(tmp_path / "half", half_precision(model), _Config(), {})
    loaded = _model(1)
    read_weights(tmp_path / "half", loaded, digest)
    matrices = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    for (name, a), b in zip(loaded.state_dict().items(), model.state_dict().values(), strict=True):
        assert a.dtype == b.dtype
        if name in matrices:
            assert torch.equal(a, b.half().float())
            assert torch.allclose(a, b, rtol=5e-4, atol=1e-7)
        else:
            assert torch.equal(a, b)


def test_writing_twice_gives_the_same_bytes(folder, tmp_path):
    """The digest names the weights: the same model gives the same digest, another model another one."""
    model = _model(0)
    fit_scale(model)
    same = write_checkpoint(tmp_path / "again", model.state_dict(), _Config(), {})
    assert same == read_config(folder)["sha256"]
    assert write_checkpoint(tmp_path / "other", _model(1).state_dict(), _Config(), {}) != same


@pytest.mark.parametrize("place", [8, 5000, -1])
def test_a_flipped_byte_is_refused(folder, place):
    """One bit wrong anywhere in the weights is found, and the message says what to do."""
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[place] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: its sha256.*fetch or train it again"):
        read_weights(folder, _model(0), read_config(folder)["sha256"])


def test_truncated_weights_are_refused(folder):
    """A download that stopped half way is found."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is damaged"):
        read_weights(folder, _model(0), read_config(folder)["sha256"])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    """Half a checkpoint is refused by the name of the file that is not there."""
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        read_config(folder)


def test_a_missing_folder_names_both_files(tmp_path):
    """So is no checkpoint at all."""
    with pytest.raises(CheckpointError, match=r"lacks config\.json and model\.safetensors"):
        read_config(tmp_path / "nothing")


@pytest.mark.parametrize("content", ["", '{"format": 1, "sha', "[]", "3", '{"format": 1}', '{"config": {}}'])
def test_a_damaged_config_is_refused(folder, content):
    """Truncated JSON, JSON of another kind and missing keys are refused, not passed on."""
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_config(folder)


def test_binary_config_is_refused(folder):
    """A config that is no text is refused too."""
    (folder / "config.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_config(folder)


def test_another_format_is_refused(folder):
    """A checkpoint of a later format asks for the matching version."""
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(CheckpointError, match=r"has 99; install the matching version"):
        read_config(folder)


def test_unknown_keys_are_refused():
    """A config with a key that the class lacks is refused, at any depth, with the known ones listed."""
    values = asdict(_Config())
    with pytest.raises(CheckpointError, match=r"_Config has no \['colour'\]; known"):
        build(_Config, {**values, "colour": 1})
    values["velocity"]["network"]["depth"] = 3
    with pytest.raises(CheckpointError, match=r"OrbitNetworkConfig has no \['depth'\]"):
        build(_Config, values)


def test_missing_keys_take_defaults():
    """A config written before a setting existed is still read."""
    assert build(OrbitNetworkConfig, {"width": 64}) == OrbitNetworkConfig(width=64)


def test_weights_of_another_size_are_refused(folder):
    """Weights that do not fit the model are refused, with the folder's file named."""
    wide = FlowModel(TINY_AUTOENCODER, VelocityConfig(latent=3, network=OrbitNetworkConfig(width=32)))
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit its config\.json"):
        read_weights(folder, wide, read_config(folder)["sha256"])
