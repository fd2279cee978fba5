import json
import resource
from dataclasses import dataclass, field

import pytest
import torch

from autoperi.flow.sampler import FlowModel
from autoperi.flow.velocity import VelocityConfig
from autoperi.networks.autoencoder import AutoencoderConfig
from autoperi.networks.checkpoint import (
    CheckpointError,
    find_checkpoint,
    half_precision,
    read_config,
    restore,
    write_checkpoint,
)
from tests.autoperi.small import TINY_AUTOENCODER, TINY_VELOCITY, fit_scale


@dataclass(frozen=True)
class _Config:
    autoencoder: AutoencoderConfig = field(default_factory=lambda: TINY_AUTOENCODER)
    velocity: VelocityConfig = field(default_factory=lambda: TINY_VELOCITY)
    groups: tuple[int, ...] = (225, 62)


def _model(seed: int) -> FlowModel:
    torch.manual_seed(seed)
    return FlowModel(TINY_AUTOENCODER, TINY_VELOCITY)


def _of(config: _Config) -> FlowModel:
    return FlowModel(config.autoencoder, config.velocity)


@pytest.fixture
def folder(tmp_path):
    model = _model(0)
    fit_scale(model)
    write_checkpoint(tmp_path / "model", model.state_dict(), _Config(), {"seed": 7})
    return tmp_path / "model"


def test_round_trip(folder):
    """Config, provenance and every weight and buffer come back bit by bit."""
    torch.manual_seed(1)
    configs = []
    model, content = restore(folder, _Config, lambda config: configs.append(config) or _of(config))
    assert configs == [_Config()]
    assert content["about"] == {"seed": 7}
    original = _model(0)
    fit_scale(original)
    for (name, a), (other, b) in zip(model.state_dict().items(), original.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)


def test_half_precision_rounds_matrices_alone(tmp_path):
    model = _model(0)
    fit_scale(model)
    digest = write_checkpoint(tmp_path / "half", half_precision(model), _Config(), {})
    loaded, content = restore(tmp_path / "half", _Config, _of)
    assert content["sha256"] == digest
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
        restore(folder, _Config, _of)


def test_truncated_weights_are_refused(folder):
    """A download that stopped half way is found."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is damaged"):
        restore(folder, _Config, _of)


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


def _edited(folder, edit) -> None:
    content = json.loads((folder / "config.json").read_text())
    edit(content["config"])
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda c: c.update(colour=1), r"config\.json: colour: there is no such field"),
        (
            lambda c: c["velocity"]["network"].update(widht=3),
            r"network\.widht: .*did you mean 'width'",
        ),
        (lambda c: c["velocity"].update(latent="3"), r"velocity\.latent: expected a whole number: got '3'"),
        (lambda c: c["autoencoder"].update(irreps="a lot"), r"config\.json: "),
    ],
)
def test_a_config_that_is_none_of_ours_is_refused(folder, edit, text):
    """Unknown keys, wrong types and values that no network has: the field is named, in one line."""
    _edited(folder, edit)
    with pytest.raises(CheckpointError, match=text) as refused:
        restore(folder, _Config, _of)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("sizes", [{"layers": 10**9}, {"layers": 256, "width": 8192}, {"width": 8192}])
def test_sizes_take_no_more_memory_than_the_weights(folder, sizes):
    """A config that claims a huge network is refused before its memory is taken."""
    _edited(folder, lambda c: c["velocity"]["network"].update(sizes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"layers: expected a number between|numbers of the weights"):
        restore(folder, _Config, _of)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_weights_that_are_not_finite_are_never_written():
    """NaN, or numbers that float16 cannot hold, come from a training that has diverged: named, not saved."""
    model = _model(0)
    with torch.no_grad():
        model.velocity.lattice[0].weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"velocity\.lattice\.0\.weight holds NaN.*a lower lr"):
        half_precision(model)


def test_weights_of_another_size_are_refused(folder):
    """Weights that do not fit the model are refused, with the folder's file named."""
    _edited(folder, lambda c: c["velocity"]["network"].update(width=8))
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit its config\.json"):
        restore(folder, _Config, _of)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder, bad):
    """One such number in a matrix or in a constant of a model: the tensor is named."""
    matrix = next(name for name, tensor in _model(0).state_dict().items() if tensor.ndim > 1)
    for key in ("velocity.scale.spread", matrix):
        weights = {name: tensor.clone() for name, tensor in _model(0).state_dict().items()}
        weights[key].flatten()[0] = bad
        write_checkpoint(folder, weights, _Config(), {})
        with pytest.raises(CheckpointError, match=f"expected finite weights in .* 1 of .*{key}"):
            restore(folder, _Config, _of)


def test_a_limit_that_is_infinite_in_a_new_model_may_stay_so(folder):
    """Such as a cutoff of nothing."""

    def limited(config):
        model = _of(config)
        model.register_buffer("limit", torch.tensor(torch.inf))
        return model

    write_checkpoint(folder, limited(_Config()).state_dict(), _Config(), {})
    model, _ = restore(folder, _Config, limited)
    assert float(model.limit) == torch.inf


def test_shipped_names_come_before_folders(tmp_path, monkeypatch):
    """A folder that happens to be called like a shipped checkpoint does not hide it; a path does mean it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "shipped").mkdir()
    known = {"mine": tmp_path / "shipped"}
    assert find_checkpoint("mine", known) == tmp_path / "shipped"
    assert find_checkpoint("./mine", known).resolve() == tmp_path / "mine"
    assert find_checkpoint(tmp_path / "mine", known) == tmp_path / "mine"
    assert find_checkpoint("shipped", known).resolve() == tmp_path / "shipped"
    with pytest.raises(CheckpointError, match="expected a checkpoint folder or one of mine: got 'nothing'"):
        find_checkpoint("nothing", known)
