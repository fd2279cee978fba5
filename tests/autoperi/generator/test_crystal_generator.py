import copy
from dataclasses import replace
from inspect import unwrap

import numpy as np
import pytest
import torch

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.labels import DEFAULT_CONDITIONS, Condition
from autoperi.crystals.symmetry import symmetrise
from autoperi.flow.relatives import Relative, Relatives
from autoperi.flow.settings import FlowSettings, Solver, StartSettings
from autoperi.flow.velocity import VelocityConfig
from autoperi.generator import (
    CrystalGenerator,
    GeneratorConfig,
    SampleConfig,
    config,
    load,
    save,
)
from autoperi.genes.batch import GeneBatch
from autoperi.genes.empirical import EmpiricalGenes
from autoperi.genes.network import GeneConfig, gene_loss
from autoperi.genes.request import GeneRequest
from autoperi.genes.settings import DrawConfig
from autoperi.networks.autoencoder import AutoencoderConfig
from autoperi.networks.checkpoint import CheckpointError
from autoperi.networks.orbit_network import OrbitNetworkConfig
from tests.autoperi.small import small_crystal

TRUNK = OrbitNetworkConfig(width=16, vectors=4, layers=2, cutoff=4.0, radial=6)
QUICK = FlowSettings(solver=Solver(steps=3), batch_size=4)


@pytest.fixture(scope="module")
def crystals(prototypes):
    return [symmetrise(s) for s in prototypes.values()]


@pytest.fixture(scope="module")
def generator(crystals):
    torch.manual_seed(0)
    small = GeneratorConfig(
        AutoencoderConfig(irreps="4x0e+2x1o+1x2e", decoder=TRUNK, cutoff=4.0),
        VelocityConfig(network=TRUNK),
        GeneConfig(width=16, depth=1, heads=2),
    )
    made = CrystalGenerator(small).eval()
    made.empirical.put(EmpiricalGenes.from_crystals(crystals).state_dict())
    scale = CrystalBatch.from_crystals(crystals).to(dtype=torch.float32)
    made.flow.velocity.scale.fit(scale)
    made.flow.autoencoder.decoder.scale.fit(scale)
    return made


@pytest.mark.parametrize("genes", ["learned", "empirical"])
@pytest.mark.parametrize("species", ["prior", "flow"])
def test_every_mode_gives_whole_crystals(generator, genes, species):
    """Each of the four combinations fills species, geometry, id and provenance."""
    drawn = generator.sample(5, 3, config=SampleConfig(genes=genes, species=species, flow=QUICK))
    assert len(drawn) == 5
    for i, crystal in enumerate(drawn):
        assert (crystal.species > 0).all()
        assert np.isfinite(crystal.lattice_coords).all()
        assert crystal.id == f"{i:06d}"
        assert {"seed", "index", "sha256"} <= crystal.provenance.keys()
        assert crystal.to_structure().is_valid(tol=0.0)


def test_workers_do_not_change_the_result(generator):
    """The same seed gives the same crystals with one thread and with two."""
    one = generator.sample(9, 1, config=SampleConfig(flow=QUICK))
    two = generator.sample(9, 1, config=SampleConfig(flow=QUICK, workers=2))
    for a, b in zip(one, two, strict=True):
        assert a.gene == b.gene
        np.testing.assert_array_equal(a.species, b.species)
        np.testing.assert_allclose(a.lattice_coords, b.lattice_coords, atol=1e-4)


def test_the_first_crystals_do_not_depend_on_how_many_follow(generator):
    """Crystal i is the same in a short and in a long draw."""
    short = generator.sample(3, 5, config=SampleConfig(flow=QUICK))
    long = generator.sample(8, 5, config=SampleConfig(flow=QUICK))
    for a, b in zip(short, long, strict=False):
        assert (a.gene, a.formula) == (b.gene, b.formula)
        np.testing.assert_allclose(a.free, b.free, atol=1e-4)


def test_requests_are_met_exactly(generator):
    """Formula and space group hold in every crystal."""
    request = GeneRequest(formula="BaTiO3", space_groups=[221])
    drawn = generator.sample(3, 0, request=request, config=SampleConfig(flow=QUICK))
    assert {(c.formula, c.space_group) for c in drawn} == {("BaTiO3", 221)}


def test_an_impossible_request_is_refused_with_the_reason(generator):
    """Three atoms of Fe2O cannot sit on the orbits of Ia-3d within 20 atoms."""
    with pytest.raises(ValueError, match="230"):
        generator.sample(1, 0, request=GeneRequest(formula="Fe2O", space_groups=[230], n_atoms=(1, 20)))


@pytest.mark.parametrize(("n", "text"), [(0, "at least one"), (-3, "n = -3")])
def test_no_crystals_is_an_error(generator, n, text):
    """A count below one is refused."""
    with pytest.raises(ValueError, match=text):
        generator.sample(n)


def test_genes_without_the_relative_that_is_asked_for_are_drawn_again(generator, crystals):
    """One in a few has one here; what had one at once stays what it was."""
    made = copy.deepcopy(generator)
    made.geometry.put(Relatives.from_crystals(crystals[::3]).state_dict())
    auto = SampleConfig(genes="empirical", flow=QUICK)
    asked = replace(auto, flow=replace(QUICK, start=StartSettings("relative")))
    drawn = {c.id: c for c in made.sample(12, 0, config=asked)}
    assert len(drawn) == 12
    assert {c.provenance["start"] for c in drawn.values()} == {"relative"}
    begun = [c.provenance["start"] for c in made.sample(12, 0, config=auto)]
    assert {"noise", "relative"} <= set(begun)
    for i, crystal in enumerate(made.sample(12, 0, config=auto)):
        if begun[i] == "relative":
            assert (drawn[crystal.id].gene, drawn[crystal.id].formula) == (crystal.gene, crystal.formula)
            np.testing.assert_allclose(drawn[crystal.id].free, crystal.free, atol=1e-4)
    assert (auto.from_noise().flow.start.kind, asked.from_noise()) == ("noise", asked)
    made.geometry.put(Relatives.from_crystals([small_crystal(230, 0)]).state_dict())
    with pytest.raises(ValueError, match=r"what was asked for: no training crystal is its relative: use"):
        made.sample(2, 0, config=asked)


def test_other_starts_leave_those_from_relatives_as_they_are(generator, crystals, monkeypatch):
    """To the last bit: who begins from another crystal's geometry shares no batch with them."""
    made = copy.deepcopy(generator)
    made.geometry.put(Relatives.from_crystals(crystals[::3]).state_dict())
    config = SampleConfig(genes="empirical", flow=replace(QUICK, batch_size=5))
    monkeypatch.setattr(Relatives, "rearranged", lambda *_: None)
    before = made.sample(12, 0, config=config)
    monkeypatch.setattr(Relatives, "rearranged", lambda _, gene: Relative(gene, 0, "other", 0.5))
    after = made.sample(12, 0, config=config)
    begun = [[c.provenance["start"] for c in drawn] for drawn in (before, after)]
    assert set(begun[0]) == {"noise", "relative"}
    assert begun[1] == ["rearranged" if start == "noise" else start for start in begun[0]]
    for a, b in zip(before, after, strict=True):
        if a.provenance["start"] == "relative":
            np.testing.assert_array_equal(a.free, b.free)
            np.testing.assert_array_equal(a.lattice_coords, b.lattice_coords)


def test_checkpoint_round_trip(generator, tmp_path):
    """A saved generator draws the same crystals after loading, and so does what is saved from that."""
    save(generator, tmp_path / "once", {})
    rounded = load(tmp_path / "once")
    save(rounded, tmp_path / "mine", {"command": "test"})
    again = load(tmp_path / "mine")
    assert again.name == "mine"
    assert again.about == {"command": "test"}
    for name, weight in generator.state_dict().items():
        assert torch.allclose(again.state_dict()[name], weight, rtol=1e-3, atol=1e-6, equal_nan=True)
    for genes in ("learned", "empirical"):
        config = SampleConfig(genes=genes, flow=QUICK)
        for a, b in zip(rounded.sample(2, 0, config=config), again.sample(2, 0, config=config), strict=True):
            assert a.formula == b.formula
            np.testing.assert_array_equal(a.free, b.free)


FOURTH = {**DEFAULT_CONDITIONS, "energy_per_atom": Condition("eV/atom", -10.0, 0.0)}


def test_a_condition_of_ones_own_is_trained_saved_loaded_and_sampled(generator, crystals, tmp_path):
    """A fourth condition needs a name, a unit and a range, and no code."""
    torch.manual_seed(0)
    labelled = [replace(c, properties={"energy_per_atom": -i / 4}) for i, c in enumerate(crystals)]
    made = generator.with_conditions(FOURTH)
    batch, network = GeneBatch.from_crystals(labelled, FOURTH), made.gene_network.train()
    before = network.condition.project.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    sum(gene_loss(network, batch, torch.Generator().manual_seed(1)).values()).backward()
    optimizer.step()
    moved = (network.condition.project.detach() - before).abs().amax(dim=(1, 2))
    assert (moved > 0).tolist() == [False, False, False, True]
    made.empirical.put(EmpiricalGenes.from_crystals(labelled, FOURTH).state_dict())
    save(made, tmp_path / "four", {})
    again = load(tmp_path / "four")
    assert again.config.conditions == FOURTH
    energy = {"energy_per_atom": "-3:-1"}
    for genes, asked in (("learned", {**energy, "band_gap": 1.0}), ("empirical", energy)):
        drawn = again.sample(3, 0, conditions=asked, config=SampleConfig(genes=genes, flow=QUICK))
        assert all(-3 <= c.provenance["target_energy_per_atom"] <= -1 for c in drawn)
        assert {c.provenance.get("target_band_gap", 1.0) for c in drawn} == {1.0}
    near = EmpiricalGenes.from_state_dict(again.empirical.state_dict(), FOURTH)
    targets = again.gene_network.condition.targets([{"energy_per_atom": -0.5}] * 20, 100.0)
    assert {c.gene for c in near.sample(range(20), 0, targets=targets)} == {crystals[2].gene}


def test_other_conditions_leave_what_was_learned(generator):
    """Without the new condition the widened generator draws what the old one drew."""
    made = generator.with_conditions(FOURTH).eval()
    config = SampleConfig(flow=QUICK, guidance=2.0, draw=DrawConfig(new_genes=0.0))
    for conditions in (None, {"band_gap": 2.0}):
        old, new = (g.sample(4, 3, conditions=conditions, config=config) for g in (generator, made))
        assert [c.formula for c in old] == [c.formula for c in new]
        for a, b in zip(old, new, strict=True):
            np.testing.assert_allclose(a.lattice_coords, b.lattice_coords, atol=1e-4)


def test_targets_are_drawn_from_windows_by_seed_and_number(generator):
    """Crystal i has one target, whatever n, batch and workers; a value is met by all."""
    config = SampleConfig(flow=QUICK, guidance=2.0, likely=0.0)  # else chosen by the window
    asked = {"band_gap": (1.0, 3.0)}
    whole = generator.sample(6, 4, conditions=asked, config=config)
    targets = [c.provenance["target_band_gap"] for c in whole]
    assert all(1 <= t <= 3 for t in targets)
    assert len(set(targets)) == 6
    part = generator.sample(3, 4, conditions=asked, config=replace(config, workers=2))
    assert [c.provenance["target_band_gap"] for c in part] == targets[:3]
    assert [c.formula for c in part] == [c.formula for c in whole[:3]]
    (alone,) = generator.sample(1, 4, conditions={"band_gap": targets[0]}, config=config)
    assert (alone.gene, alone.formula) == (whole[0].gene, whole[0].formula)
    np.testing.assert_allclose(alone.lattice_coords, whole[0].lattice_coords, atol=1e-4)


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ({"colour": 1.0}, r"expected conditions among .*band_gap.*: got 'colour'"),
        ({"band_gap": float("nan")}, "band_gap: expected a value"),
        ({"band_gap": float("inf")}, "band_gap: expected a value"),
        ({"e_above_hull": "0.4:0.6"}, "e_above_hull: expected values from 0 to 0.5 eV/atom"),
    ],
)
def test_conditions_that_cannot_be_are_refused(generator, conditions, text):
    """Names and values beyond what the model was made for are errors in words."""
    with pytest.raises(ValueError, match=text):
        generator.sample(1, conditions=conditions)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"genes": "typo"}, "genes among"),
        ({"species": "typo"}, "species among"),
        ({"guidance": float("nan")}, "finite guidance"),
        ({"guidance": float("inf")}, "finite guidance"),
        ({"workers": 0}, "worker"),
        (
            {"species": "flow", "flow": FlowSettings(start=StartSettings("relative"))},
            "species from the prior",
        ),
    ],
)
def test_misspelt_and_absurd_settings_are_refused(fields, text):
    """No other thing is done than what was asked for."""
    begin = unwrap(SampleConfig.__init__)  # without the checker of annotations
    with pytest.raises(ValueError, match=text):
        begin(object.__new__(SampleConfig), **fields)


def test_what_is_remembered_of_genes_is_kept_until_the_weights_change(generator):
    """One prior from call to call, another one for other weights, none of its memory in a copy."""
    first = generator.learned_genes()
    first.sample(range(3), 0)
    assert generator.learned_genes() is first
    assert first._letters
    assert not copy.deepcopy(first)._letters
    with torch.no_grad():
        generator.gene_network.to_stop.bias += 0
    assert generator.learned_genes() is not first


def test_unknown_checkpoint_names_the_known_ones():
    """The error lists what is shipped."""
    with pytest.raises(CheckpointError, match="mp_20"):
        load("no_such_checkpoint")


def test_a_folder_of_that_name_does_not_hide_the_shipped_checkpoint(tmp_path, monkeypatch):
    """A data folder holds mp_20/: started in it, the generator is still the shipped one."""
    (tmp_path / "mp_20").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load().name == "mp_20"


def test_shipped_checkpoint_samples():
    """The weights in the package draw crystals with no data folder."""
    drawn = load("mp_20").sample(4, 0, config=SampleConfig(flow=QUICK))
    assert [c.id for c in drawn] == ["000000", "000001", "000002", "000003"]


def test_shipped_weights_name_their_own_conditions(monkeypatch):
    """Whatever the defaults become, they stand in the checkpoint that was trained with them."""
    more = {**DEFAULT_CONDITIONS, "energy_per_atom": Condition("eV/atom", -10.0, 0.0)}
    monkeypatch.setattr(config, "DEFAULT_CONDITIONS", more)
    assert list(load().config.conditions) == ["band_gap", "formation_energy", "e_above_hull"]
