from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.core import Lattice, Structure

from autoperi.crystals.labels import Condition
from autoperi.crystals.symmetry import symmetrise
from autoperi.data.run_folder import FolderError
from autoperi.flow.settings import FlowSettings, Restart, Solver
from autoperi.flow.velocity import VelocityConfig
from autoperi.generator import CrystalGenerator, GeneratorConfig, SampleConfig, load, save
from autoperi.genes.batch import GeneBatch
from autoperi.genes.empirical import EmpiricalGenes
from autoperi.genes.network import GeneConfig
from autoperi.networks.autoencoder import AutoencoderConfig
from autoperi.networks.config import ConfigError
from autoperi.networks.orbit_network import OrbitNetworkConfig
from autoperi.training import own_condition
from autoperi.training.fit import FitConfig
from autoperi.training.own_condition import ConditionTraining, add_conditions
from tests.autoperi.small import small_crystal

PAIRS = [
    *product(("Li", "Na", "K", "Rb", "Cs"), ["F", "Cl", "Br", "I"]),
    *product(["Mg", "Ca", "Sr", "Ba"], ["O", "S", "Se"]),
]


def table() -> pd.DataFrame:
    """Salts in two structures; fluorides are tough, and rock salt is light."""
    rows = []
    half = [[0, 0, 0], [0.5, 0.5, 0.5]]
    cells = {225: Lattice(2.8 * (1 - np.eye(3))), 221: Lattice.cubic(3.6)}
    for (cation, anion), (group, cell) in product(PAIRS, cells.items()):
        salt = Structure(cell, [cation, anion], half)
        tough = (20.0 if anion == "F" else 2.0) + len(rows) / 100
        light = np.nan if anion == "I" else 1.0 + (group == 225)
        cif = salt.to(fmt="cif")
        rows.append({"id": f"{cation}{anion} {group}", "toughness": tough, "light": light, "cif": cif})
    return pd.DataFrame(rows)


@pytest.fixture
def mine(tmp_path, monkeypatch, tmp_path_factory):
    """The table; what was read of it once is read by all."""
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path_factory.getbasetemp() / "own"))
    monkeypatch.setattr(own_condition, "_STEPS", 4)
    table().to_csv(tmp_path / "mine.csv", index=False)
    return tmp_path / "mine.csv"


@pytest.fixture(scope="module")
def start(tmp_path_factory, prototypes):
    """A small checkpoint that has learned nothing."""
    trunk = OrbitNetworkConfig(width=8, vectors=2, layers=1, cutoff=4.0, radial=6)
    autoencoder = AutoencoderConfig(irreps="4x0e+2x1o+1x2e", decoder=trunk, cutoff=4.0)
    genes = GeneConfig(width=16, depth=1, heads=2)
    torch.manual_seed(0)
    generator = CrystalGenerator(GeneratorConfig(autoencoder, VelocityConfig(network=trunk), genes))
    known = EmpiricalGenes.from_crystals([symmetrise(s) for s in list(prototypes.values())[:8]])
    generator.empirical.put(known.state_dict())
    folder = tmp_path_factory.mktemp("start") / "small"
    save(generator, folder, {})
    return str(folder)


def test_a_labelled_table_steers_and_changes_nothing_else(mine, tmp_path, monkeypatch):
    """Fluorides are labelled tough: asked for, they come; else every crystal is that of the start."""
    monkeypatch.setattr(own_condition, "_STEPS", 60)
    added = add_conditions("mp_20", ["toughness[MPa m^0.5]", "light"], mine, tmp_path / "run")
    shipped, made = load("mp_20"), load(added.checkpoint)
    assert list(made.config.conditions) == [*shipped.config.conditions, "toughness", "light"]
    assert made.config.conditions["light"] == Condition("", 0.95, 2.05)
    toughness = made.config.conditions["toughness"]
    assert toughness.unit == "MPa m^0.5"
    assert 0 < toughness.low < 2.1
    assert 20 < toughness.high < 22
    old, new = shipped.state_dict(), made.state_dict()
    assert old.keys() == new.keys()
    for name, weight in old.items():
        own = new[name]
        if name.endswith(("condition.project", "condition.null", "conditions.project", "conditions.null")):
            own, more = own[:3], own[3:]
            assert bool(more.any()) == (name == "gene_network.condition.project")
        elif name == "empirical.properties":
            own, more = own[:, :3], own[:, 3:]
            assert bool(more.isnan().all())
        assert torch.equal(torch.nan_to_num(own, -9), torch.nan_to_num(weight, -9)), name
    for conditions in (None, {"band_gap": "2:", "e_above_hull": 0.0}):
        config = SampleConfig(guidance=2.0, flow=FlowSettings(Solver(steps=2), Restart(rounds=1)))
        pairs = zip(
            *(g.sample(6, 1, conditions=conditions, config=config) for g in (shipped, made)), strict=True
        )
        for a, b in pairs:
            for part in ("wyckoff", "species", "free", "lattice_coords"):
                np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
    prior = made.learned_genes()
    shares = []
    for asked in ({}, {"toughness": 20.0}, {"toughness": 2.0}):
        targets = prior.network.condition.targets([asked] * 60, 2.0)
        drawn = prior.sample(range(60), 0, targets=targets)
        shares.append(np.mean([9 in c.species for c in drawn]))
    assert shares[1] > 2 * max(shares[0], shares[2])
    (crystal,) = made.sample(1, conditions={"toughness": "10:", "light": 2.0})
    assert 10 <= crystal.provenance["target_toughness"] <= toughness.high
    assert made.about["start"]["sha256"] == shipped.sha256
    card = (added.checkpoint / "MODEL_CARD.md").read_text()
    assert "toughness" in card
    assert "| epoch | group |" in card
    assert "minutes" in card


def test_goes_on_where_it_stood_and_refuses_other_labels(mine, tmp_path, start):
    """A finished run ends with the same weights; other labels need another folder."""
    first = add_conditions(start, ["light"], mine, tmp_path / "run")
    again = add_conditions(start, ["light"], mine, tmp_path / "run")
    assert load(first.checkpoint).sha256 == load(again.checkpoint).sha256
    table().assign(light=lambda t: 3 - t.light).to_csv(mine, index=False)
    with pytest.raises(FolderError, match=r"got data = "):
        add_conditions(start, ["light"], mine, tmp_path / "run")


def test_a_second_condition_joins_the_first(mine, tmp_path, start):
    """A widened checkpoint is a start like any other, and what it has learned stays."""
    first = add_conditions(start, ["light"], mine, tmp_path / "one")
    both = add_conditions(str(first.checkpoint), ["toughness"], mine, tmp_path / "two")
    before, after = (load(added.checkpoint).gene_network.condition for added in (first, both))
    assert list(after.conditions)[3:] == ["light", "toughness"]
    assert torch.equal(after.project[:4], before.project)
    with pytest.raises(
        ConfigError, match="condition: expected a name that checkpoint has not learned: got 'light'"
    ):
        add_conditions(str(first.checkpoint), ["light"], mine, tmp_path / "three")


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (["hardness"], "expected a numeric column of .*mine.csv among light, toughness: got 'hardness'"),
        (["band_gap"], "expected a numeric column of"),
        (["toughness[MPa"], r"expected NAME or NAME\[unit\], e.g. hardness\[GPa\]: got 'toughness\[MPa'"),
        (["light", "light[g]"], "expected each condition once: got 'light' twice"),
        (["few"], "expected at least 50 crystals with a number for 'few': got 49"),
        (["same"], "expected labels that differ: got 'same' of 7 only"),
        (["word"], "expected a numeric column of"),
        (["e_above_hull"], "expected a name that small has not learned: got 'e_above_hull'"),
    ],
)
def test_columns_that_cannot_be_learned_are_refused(mine, tmp_path, start, columns, text):
    rows = table()
    if columns[0] not in ("light", "hardness"):
        rows = rows.assign(same=7, few=[*range(49), *[None] * (len(rows) - 49)], word="tough")
    if columns[0] == "e_above_hull":
        rows["e_above_hull"] = 0.1
    rows.to_csv(mine, index=False)
    with pytest.raises(ConfigError, match=text):
        add_conditions(start, columns, mine, tmp_path / "run")
    assert not (tmp_path / "run" / "condition").exists()


def test_one_compound_is_not_enough(mine, tmp_path, start):
    """Nothing could be held out."""
    salt = table().iloc[0]
    rows = [{**salt, "id": str(i), "toughness": i} for i in range(60)]
    pd.DataFrame(rows).to_csv(mine, index=False)
    with pytest.raises(ConfigError, match="expected 'toughness' of different compounds"):
        add_conditions(start, ["toughness"], mine, tmp_path / "run")


def test_what_is_unreadable_or_too_large_is_left_out(mine, tmp_path, start):
    """The one is named, the other counted; the rest is learned."""
    rows = table()
    sites = np.random.default_rng(0).random((25, 3)) / 9 + np.indices((5, 5, 1)).reshape(3, -1).T / 5
    large = Structure(Lattice.orthorhombic(14, 15, 4), ["Na"] * 25, sites)
    rows.loc[0, "cif"], rows.loc[1, "cif"] = "no crystal", large.to(fmt="cif")
    rows = rows.astype({"toughness": object})
    rows.loc[2, "toughness"] = "12,5"
    rows.to_csv(mine, index=False)
    added = add_conditions(start, ["toughness"], mine, tmp_path / "run")
    assert [row[0] for row in added.failures] == [rows.id[0]]
    assert added.about["left out"] == (
        f"1 unreadable, 1 without a label ({rows.id[2]}), 1 of more than 20 atoms ({rows.id[1]})"
    )


@pytest.fixture
def crystals_of_two_labels(start):
    generator = load(start)
    names = {**generator.config.conditions, "one": Condition("", 0, 1), "two": Condition("", 0, 1)}
    crystals = [
        replace(small_crystal(225, i, sites=2), properties={"one": 0.5, **({"two": 0.2} if i else {})})
        for i in range(33)
    ]
    return generator.with_conditions(names).gene_network, GeneBatch.from_crystals(crystals, names)


def test_a_single_label_is_told_always_and_several_in_part(crystals_of_two_labels, monkeypatch):
    """What is hidden tells nothing: so each of several can be asked for alone, in training only."""
    network, batch = crystals_of_two_labels
    training = ConditionTraining(network, FitConfig())
    told = []

    def loss(_, batch, *__, **___):
        told.append(batch.conditions.isnan())
        return {"total": torch.zeros(())}

    monkeypatch.setattr(own_condition, "gene_loss", loss)
    training.train()
    training.loss(batch, torch.Generator().manual_seed(0))
    hidden = told[0]
    assert not hidden[0, 3]  # the only label of its crystal
    assert 0.2 < float(hidden[1:, 3:].double().mean()) < 0.8
    assert {p for p, own in network.named_parameters() if own.requires_grad} == {"condition.project"}
    told.clear()
    training.eval()
    training.loss(batch, torch.Generator().manual_seed(0))
    assert not told[0][1:, 3:].any()
