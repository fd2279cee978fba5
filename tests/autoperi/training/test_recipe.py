import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

from autoperi.crystals.labels import DEFAULT_CONDITIONS, Condition
from autoperi.generator import load
from autoperi.networks.config import ConfigError
from autoperi.training.fit import FitConfig
from autoperi.training.recipe import FITTED, RECIPES, Recipe, read_recipe, starting_generator

DEVICES = {"cpu": (2, 1, 1, 2), "one_gpu": (1, 1, 1, 1), "four_gpus": (4, 4, 1, 4)}


def _read(tmp_path, content: str, seed: int | None = None) -> Recipe:
    file = tmp_path / "recipe.toml"
    file.write_text(content)
    return read_recipe(file, seed)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("flow", "devices", 1),
        ("flow", "devices", 4),
        ("autoencoder", "devices", 4),
        ("genes", "epochs", 3),
        ("critic", "lr", 0.01),
    ],
)
def test_a_partial_section_keeps_its_sisters(tmp_path, section, field, value):
    """Only the field that is named differs from the default recipe."""
    recipe = _read(tmp_path, f"[{section}]\n{field} = {value}\n")
    assert recipe == replace(Recipe(), **{section: replace(getattr(Recipe(), section), **{field: value})})


def test_a_partial_network_keeps_its_width(tmp_path):
    recipe = _read(tmp_path, "[generator.velocity.network]\nlayers = 7\n")
    velocity = Recipe().generator.velocity
    assert recipe.generator.velocity == replace(velocity, network=replace(velocity.network, layers=7))


def test_the_seed_is_of_all_stages(tmp_path):
    recipe = _read(tmp_path, "data = 'here'\n[flow]\nepochs = 3\n", seed=7)
    assert (recipe.data, recipe.flow.epochs) == ("here", 3)
    assert {recipe.fit(stage).seed for stage in FITTED} == {7}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("dta = 'here'", "dta: there is no such field; did you mean 'data'"),
        ("[flow]\nepocs = 3", "flow.epocs: there is no such field; did you mean 'epochs'"),
        ("[flow]\nepochs = 'three'", "flow.epochs: expected a whole number: got 'three'"),
        ("[flow]\nepochs = -1", "flow.epochs: expected a number of at least 0: got -1"),
        ("[flow]\nlr = inf", "flow.lr: expected a number above 0: got inf"),
        ("[flow]\nema = 2", "flow.ema: expected a number between 0 and 1: got 2"),
        ("[flow]\ndevices = 'all'", "flow.devices: expected a whole number or 'auto': got 'all'"),
        (
            "[generator.genes]\ndepth = 1000000000",
            "genes.depth: expected a number between 1 and 256",
        ),
        ("[generator.genes]\nheads = 7", "generator.genes.heads: expected a divisor of width = 128: got 7"),
        (
            "[generator.velocity]\nlatent = 7",
            "velocity.latent: expected the autoencoder's, 8: got 7",
        ),
        ("[physics]\nforce = -1", "physics.force: expected a number of at least 0: got -1"),
        ("sampled = 0", "sampled: expected a number of at least 1: got 0"),
        ("[flow]\nepochs = 0", "start: expected a checkpoint that has flow"),
        ("start = 'nowhere'", "start: expected a checkpoint folder or one of"),
        ("start = 'mp_20'\n[generator.genes]\ndepth = 2", "generator: expected the sizes of mp_20"),
        ("data = ", "expected TOML in"),
    ],
)
def test_wrong_recipes_are_refused_in_a_line(tmp_path, content, text):
    """Unknown names, wrong types, numbers out of range: section and field, what was got and expected."""
    with pytest.raises(ConfigError) as refused:
        _read(tmp_path, content)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_recipe_names_the_shipped_ones():
    with pytest.raises(ConfigError, match=r"a recipe among .*cpu, four_gpus, one_gpu.*: got nowhere"):
        read_recipe(Path("nowhere"))


@pytest.mark.parametrize("name", DEVICES)
def test_shipped_recipes_are_complete_and_train_the_shipped_sizes(name):
    """Every field is written; but for devices all are the default's, and the sizes the checkpoint's."""
    recipe = read_recipe(Path(name))
    assert recipe.generator == replace(load("mp_20").config, stability=None, targets=None)  # fitted apart
    assert tuple(recipe.fit(stage).devices for stage in FITTED) == DEVICES[name]
    alike = {stage: replace(recipe.fit(stage), devices="auto") for stage in FITTED}
    assert replace(recipe, **alike) == Recipe()
    written = tomllib.loads(RECIPES[name].read_text())
    assert set(written) == {f.name for f in fields(Recipe)} - {"start"}
    assert _names(written["generator"]) == _names(asdict(recipe.generator)) - {"stability", "targets"}
    for stage in FITTED:
        assert set(written[stage]) == {f.name for f in fields(FitConfig)}


@pytest.mark.parametrize("critic", ["stability", "targets"])
def test_critics_that_no_stage_fits_are_refused(critic, tmp_path):
    """Without a start they would be shipped as they were initialised."""
    file = tmp_path / "mine.toml"
    file.write_text(f"[generator.{critic}]\nwidth = 8\n")
    with pytest.raises(ConfigError, match=f"generator.{critic}: no stage fits it"):
        read_recipe(file)


def _names(values: dict) -> set[str]:
    inner = {f"{k}.{n}" for k, v in values.items() if isinstance(v, dict) for n in _names(v)}
    return inner | {name for name, value in values.items() if not isinstance(value, dict)}


@pytest.mark.parametrize(("gpus", "processes"), [(0, 1), (1, 1), (4, 4)])
def test_the_default_recipe_fits_any_machine(monkeypatch, gpus, processes):
    """All GPUs, or one process without; more GPUs than there are is refused; on the CPU any number goes."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert {Recipe().fit(stage).processes() for stage in FITTED} == {processes}
    if gpus == 1:
        with pytest.raises(ConfigError, match="devices: expected at most 1, the GPUs of this machine: got 4"):
            FitConfig(devices=4).processes()
    if gpus != 1:
        assert FitConfig(devices=4).processes() == 4


def test_every_process_needs_a_crystal():
    with pytest.raises(ConfigError, match="batch_size: expected a crystal for each of 2 processes"):
        FitConfig(devices=2, batch_size=1).processes()


def test_a_new_condition_joins_those_of_the_start(tmp_path):
    """A recipe names it; what the shipped networks have learned of the others is kept."""
    section = "[generator.conditions.energy_per_atom]\nunit = 'eV/atom'\nlow = -10.0\nhigh = 0.0\n"
    recipe = _read(tmp_path, f"start = 'mp_20'\n{section}")
    assert list(recipe.generator.conditions) == [*DEFAULT_CONDITIONS, "energy_per_atom"]
    assert recipe.generator.conditions["energy_per_atom"] == Condition("eV/atom", -10.0, 0.0)
    shipped, started = load("mp_20"), starting_generator(recipe)
    for old, new in zip(
        (shipped.gene_network.condition, shipped.flow.velocity.conditions),
        (started.gene_network.condition, started.flow.velocity.conditions),
        strict=True,
    ):
        assert torch.equal(new.project[:3], old.project)
        assert torch.equal(new.null[:3], old.null)
        assert not new.null[3].any()
