import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autoperi.data.dataset import CrystalDataset
from autoperi.networks.config import ConfigError
from autoperi.training.fit import FitConfig
from autoperi.training.states import read_state
from property_models.graph.site_graph import dataset_graph
from property_models.networks.crystal_gnn import CrystalGNN, CrystalGNNConfig
from property_models.training import fit_ensemble
from property_models.training.fit_ensemble import LabelledGraphs, PropertyRecipe, fit_members, property_loss
from tests.autoperi.small import largest
from tests.property_models.small import TINY, labelled_crystals


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "cache"))


def _set(n: int = 24, targets=("formation_energy", "band_gap")) -> tuple[CrystalGNN, LabelledGraphs]:
    recipe = PropertyRecipe(targets=targets, network=TINY).filled()
    data = LabelledGraphs.from_dataset(CrystalDataset.from_crystals(labelled_crystals(n)), recipe.network)
    torch.manual_seed(0)
    network = CrystalGNN(recipe.network)
    network.standardise(data.labels)
    return network, data


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"targets": ("band_gap",)}, "formation_energy alone: got band_gap"),
        ({"network": replace(TINY, cutoff=6.0, nearest=12)}, "got the nearest 12"),
        ({"start": "formation_energy_judge"}, "got the nearest 12"),
    ],
)
def test_what_cannot_correct_the_potential_is_refused_before_it_is_trained(asked, told):
    with pytest.raises(ConfigError, match=told):
        PropertyRecipe(**asked, potential=True).filled()


def test_missing_labels_say_nothing():
    """A crystal without a label gives that target neither loss nor gradient, whatever its value would be."""
    network, data = _set()
    labels = data.labels.clone()
    labels[::2, 0] = torch.nan
    masked = property_loss(network, LabelledGraphs(data.graphs, labels))
    kept = torch.arange(1, len(data), 2)
    only = property_loss(network, data.select(kept))
    assert float(masked["formation_energy_mae"].detach()) == pytest.approx(
        float(only["formation_energy_mae"].detach()), rel=1e-5
    )
    nothing = property_loss(network, LabelledGraphs(data.graphs, torch.full_like(labels, torch.nan)))
    nothing["total"].backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert max(largest(g) for g in gradients) == 0


def test_rows_without_any_label_are_left_out():
    """Infinite and NaN labels, and those without a logarithm, count as missing."""
    crystals = labelled_crystals(4)
    values = (np.inf, -3.0, np.nan, 50.0)
    crystals = [replace(c, properties={"bulk_modulus": v}) for c, v in zip(crystals, values, strict=True)]
    recipe = PropertyRecipe(targets=("bulk_modulus",), network=TINY).filled()
    data = LabelledGraphs.from_dataset(CrystalDataset.from_crystals(crystals), recipe.network)
    assert data.labels.tolist() == [[pytest.approx(np.log10(50.0))]]
    with pytest.raises(ValueError, match="all 3 rows lack them"):
        LabelledGraphs.from_dataset(CrystalDataset.from_crystals(crystals[:3]), recipe.network)


def test_gate_and_regression_see_what_is_theirs():
    """The regression of a gated target learns from non-zero labels only, the gate from all."""
    network, data = _set()
    zero = data.labels[:, 1] < 1e-3
    assert 0 < int(zero.sum()) < len(data)
    answer = network(data.graphs)
    answer.mean.retain_grad()
    answer.gate.retain_grad()
    network.forward = lambda _: answer
    property_loss(network, data)["error"].backward()
    mean, gate = answer.mean.grad, answer.gate.grad
    assert mean is not None
    assert gate is not None
    assert largest(mean[zero, 1]) == 0
    assert float(mean[~zero, 1].abs().min()) > 0
    assert float(gate[:, 1].abs().min()) > 0
    assert largest(gate[:, 0]) == 0


def test_scale_heads_do_not_bend_the_features():
    """Learning how sure it is changes no value: only the scale head has a gradient of the likelihood."""
    network, data = _set()
    property_loss(network, data)["likelihood"].backward()
    touched = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert touched == {"scale"}


def test_standardise_refuses_constant_labels():
    """A target that never changes cannot be learned: it is named."""
    network, data = _set()
    with pytest.raises(ValueError, match=r"'formation_energy' that differ: got 24 usable ones, all 3"):
        network.standardise(torch.full_like(data.labels, 3.0))
    with pytest.raises(ValueError, match="got 0 usable ones"):
        network.standardise(torch.full_like(data.labels, torch.nan))


def test_overfits_a_few_crystals():
    """Sixty steps on sixteen crystals bring the error below a fifth of the labels' spread."""
    network, data = _set(16, ("formation_energy",))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    first = float(property_loss(network, data)["error"].detach())
    for _ in range(60):
        optimizer.zero_grad()
        property_loss(network, data)["total"].backward()
        optimizer.step()
    assert float(property_loss(network, data)["error"].detach()) < 0.2 * first


def test_members_differ_resume_and_are_not_trained_twice(tmp_path):
    """Members start from seeds of their own; a finished member is read, not trained again."""
    recipe = PropertyRecipe(
        members=2, network=TINY, fit=FitConfig(epochs=2, cooldown=1, batch_size=8, warmup=2, ema=0.5)
    ).filled()
    data = LabelledGraphs.from_dataset(CrystalDataset.from_crystals(labelled_crystals(16)), recipe.network)
    first, second = fit_members(recipe, data, data, tmp_path, workers=2)
    assert largest(first.embed.weight - second.embed.weight) > 1e-3
    logs = sorted(tmp_path.rglob("metrics.csv"))
    again = fit_members(recipe, data, data, tmp_path)[0]
    assert largest(again.embed.weight - first.embed.weight) == 0
    assert sorted(tmp_path.rglob("metrics.csv")) == logs
    longer = replace(recipe, members=1, fit=replace(recipe.fit, epochs=3))
    continued = fit_members(longer, data, data, tmp_path)[0]
    assert largest(continued.embed.weight - first.embed.weight) > 0


def test_recipe_from_toml(tmp_path):
    """A TOML file sets nested fields; log and gate follow the targets; unknown fields are refused."""
    file = tmp_path / "recipe.toml"
    lines = (
        'targets = ["bulk_modulus", "hardness"]',
        'family = "judge"',
        "[network]",
        'convolution = "cgcnn"',
        'edges = "gaussian"',
        "nearest = 12",
        'targets = ["bulk_modulus", "hardness"]',
        'log = ["hardness"]',
        "[fit]",
        "epochs = 7",
    )
    file.write_text("\n".join(lines))
    recipe = PropertyRecipe.read(file)
    assert recipe.network.log == ("bulk_modulus", "hardness")
    assert recipe.network.nearest == 12
    assert recipe.fit.epochs == 7
    file.write_text("epochs = 7\n")
    with pytest.raises(ValueError, match=r"recipe\.toml: epochs: there is no such field"):
        PropertyRecipe.read(file)
    file.write_text("epochs = = 7\n")
    with pytest.raises(ValueError, match="expected TOML"):
        PropertyRecipe.read(file)


def test_graphs_of_selected_rows_are_theirs():
    """Selecting labels and graphs keeps them together."""
    _, data = _set(8)
    part = data.select(torch.tensor([5, 1]))
    assert largest(part.labels - data.labels[[5, 1]]) == 0
    dataset = CrystalDataset.from_crystals(labelled_crystals(8)).select([5, 1])
    assert largest(part.graphs.vector - dataset_graph(dataset, 4.0, progress=False).vector) == 0


def test_the_last_epoch_is_kept_though_it_was_not_the_best(tmp_path):
    """A run whose error never improves is still a finished one."""
    fit = FitConfig(epochs=3, cooldown=1, batch_size=8, lr=1e-30, warmup=0, ema=0.5)
    recipe = PropertyRecipe(members=1, network=TINY, fit=fit).filled()
    data = LabelledGraphs.from_dataset(CrystalDataset.from_crystals(labelled_crystals(8)), recipe.network)
    fit_members(recipe, data, data, tmp_path)
    assert read_state(tmp_path / "member-0" / "last.ckpt")["epoch"] == 2
    assert read_state(tmp_path / "member-0" / "best.ckpt")["epoch"] == 0


def test_a_partial_recipe_keeps_its_sisters(tmp_path):
    """One field of a section leaves the others as the default recipe has them, not as the class has them."""
    file = tmp_path / "recipe.toml"
    file.write_text("[fit]\nlr = 3e-3\n[network]\nlayers = 2\n")
    recipe, default = PropertyRecipe.read(file), PropertyRecipe.read(None)
    assert recipe.fit == replace(default.fit, lr=3e-3)
    assert recipe.network == replace(default.network, layers=2)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('half = "other"', "half: expected 'all' or 'first' or 'second': got 'other'"),
        ("members = 0", "members: expected a number between 1 and 1024: got 0"),
        ("[network]\nwidth = 0", "network.width: expected a number between 2 and 8192: got 0"),
        ("[fit]\ndevices = 4", "fit.devices: expected 1, a member's device: got 4"),
        ("[fit]\nlr = 0", "fit.lr: expected a number above 0: got 0.0"),
        ("targets = []", "targets: expected at least one name: got none"),
    ],
)
def test_absurd_recipes_are_refused(tmp_path, content, text):
    file = tmp_path / "recipe.toml"
    file.write_text(content)
    with pytest.raises(ValueError, match=re.escape(text)):
        PropertyRecipe.read(file)


def test_the_complete_recipe_is_the_default_one():
    """The recipe beside the code names every field, with its default."""
    file = Path(fit_ensemble.__file__).with_name("recipe.toml")
    recipe = PropertyRecipe.read(file)
    assert replace(recipe, fit=replace(recipe.fit, devices="auto")) == PropertyRecipe.read(None)
    written = tomllib.loads(file.read_text())
    assert set(written) == {f.name for f in fields(PropertyRecipe)} - {"start"}
    assert set(written["network"]) == {f.name for f in fields(CrystalGNNConfig)} - {"nearest"}
    assert set(written["fit"]) == {f.name for f in fields(FitConfig)}


def test_members_and_seeds_see_their_own_order(tmp_path, monkeypatch):
    """The seed decides the order of the crystals: no two members have the same, nor has another seed."""
    orders = []

    def record(_, data, *__, **___) -> None:
        orders.append([i for batch in data.train_dataloader().batch_sampler for i in batch])

    monkeypatch.setattr(fit_ensemble, "fit", record)
    monkeypatch.setattr(fit_ensemble, "_member", lambda *_: CrystalGNN(recipe.network))
    recipe = PropertyRecipe(members=2, network=TINY).filled()
    data = LabelledGraphs.from_dataset(CrystalDataset.from_crystals(labelled_crystals(16)), recipe.network)
    for seed in (0, 7):
        fit_members(replace(recipe, fit=replace(recipe.fit, seed=seed)), data, data, tmp_path)
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_a_member_that_cannot_be_trained_is_named_and_the_others_are(tmp_path, monkeypatch):
    """Whether it raises or its process is killed; run again, only that one is trained."""

    def failing(training, data, config, folder, **how):
        if config.seed == 0:
            raise OSError("no space left")
        if config.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return fit(training, data, config, folder, **how)

    fit = fit_ensemble.fit
    monkeypatch.setattr(fit_ensemble, "fit", failing)
    recipe = PropertyRecipe(members=3, network=TINY, fit=FitConfig(epochs=1, cooldown=1, warmup=0)).filled()
    data = LabelledGraphs.from_dataset(CrystalDataset.from_crystals(labelled_crystals(8)), recipe.network)
    with pytest.raises(RuntimeError, match=r"member 0: no space left; member 1: the process .*SIGKILL"):
        fit_members(recipe, data, data, tmp_path, workers=2)
    assert [p.name for p in tmp_path.iterdir() if (p / "last.ckpt").exists()] == ["member-2"]


_TRAINING = """
import time
from pathlib import Path
from property_models.training import fit_ensemble
from property_models.training.fit_ensemble import PropertyRecipe, fit_members

def held(training, data, config, folder, **how):
    print(flush=True)
    time.sleep(600)

fit_ensemble.fit = held
from autoperi.data.dataset import CrystalDataset
from tests.property_models.small import TINY, labelled_crystals
recipe = PropertyRecipe(members=2, network=TINY).filled()
crystals = CrystalDataset.from_crystals(labelled_crystals(8))
data = fit_ensemble.LabelledGraphs.from_dataset(crystals, recipe.network)
fit_members(recipe, data, data, Path("nowhere"), workers=2)
"""


def test_members_end_with_the_process_that_trains_them():
    """Killed while both train, it leaves no process: the pipe that they share with it comes to its end."""
    words = [sys.executable, "-c", _TRAINING]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as training:
        assert [training.stdout.readline() for _ in range(2)] == ["\n", "\n"]
        training.kill()
        assert training.stdout.read() == ""
