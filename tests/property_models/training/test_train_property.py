import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.core import Structure

import property_models
from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.networks.checkpoint import CheckpointError
from autoperi.training.fit import FitConfig
from property_models.graph.site_graph import dataset_graph, site_graph
from property_models.model import load
from property_models.networks.crystal_gnn import CrystalGNNConfig
from property_models.networks.ensemble import Ensemble, EnsembleConfig, figures
from property_models.networks.targets import half_of
from property_models.training.fit_ensemble import PropertyRecipe
from property_models.training.train_property import Splits, train_property
from property_models.uses.screen import predict_path
from tests.autoperi.small import small_batch
from tests.property_models.small import TINY, labelled_crystals, write_table

RECIPE = PropertyRecipe(
    family="own",
    members=2,
    network=TINY,
    fit=FitConfig(epochs=2, cooldown=1, batch_size=16, warmup=2, ema=0.5),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model trained on a table with a broken row, empty cells and a NaN."""
    folder = tmp_path_factory.mktemp("table")
    crystals = labelled_crystals(80)
    columns = {
        "toughness": lambda i, c: (
            "" if i % 7 == 3 else ("nan" if i == 9 else c.properties["formation_energy"])
        ),
        "constant": lambda *_: 1.5,
        "remark": lambda *_: "nice",
    }
    write_table(folder / "table.csv", crystals, columns)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("AUTOPERI_CACHE", str(folder / "cache"))
        result = train_property(folder / "table.csv", ["toughness"], folder / "run", RECIPE, workers=1)
        yield folder, crystals, result


def test_trains_on_a_table_of_ones_own(trained):
    """Rows without a label or a crystal are left out and named; the rest is split, learned and measured."""
    folder, crystals, result = trained
    assert [row[0] for row in result.left_out] == ["c0"]
    labelled = sum(i % 7 != 3 and i not in (0, 9) for i in range(len(crystals)))
    assert sum(result.rows) == labelled
    row = result.figures["toughness"]
    assert row["n"] == result.rows[2]
    assert 0 <= row["coverage_90"] <= 1
    card = (folder / "run" / "checkpoint" / "MODEL_CARD.md").read_text()
    assert "| toughness |" in card
    assert f"{result.rows[0]} training crystals" in card


def test_predictions_do_not_depend_on_batches_and_survive_bad_structures(trained):
    """One row each, in order; a disordered structure has a reason instead of a value."""
    folder, crystals, _ = trained
    model = load(folder / "run" / "checkpoint")
    structures = [c.to_structure() for c in crystals[1:7]]
    disordered = Structure(np.eye(3) * 4, [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    table = model.predict([*structures[:3], disordered, *structures[3:]])
    assert list(table.columns) == ["value", "uncertainty", "out_of_domain", "reason", "error"]
    assert table["value"].isna().tolist() == [False] * 3 + [True] + [False] * 3
    assert "fully occupied" in table["error"][3]
    assert table["out_of_domain"].isna().tolist() == [False] * 3 + [True] + [False] * 3
    assert (table["uncertainty"].drop(3) > 0).all()
    alone = model.predict(crystals[1:7], batch_size=1)
    np.testing.assert_allclose(alone["value"], table["value"].drop(3), rtol=1e-4, atol=1e-5)


def test_checkpoint_is_what_was_measured(trained):
    """The figures are those of the half-precision weights on disk."""
    folder, _, result = trained
    again = load(folder / "run" / "checkpoint")
    for name, value in again.ensemble.state_dict().items():
        kept = result.model.ensemble.state_dict()[name]
        assert bool((value == kept).all()), name
    assert again.sha256 == result.model.sha256


def test_predict_path(trained, monkeypatch):
    """A file of crystals becomes a table, and what cannot be read is listed."""
    folder, crystals, result = trained
    monkeypatch.setenv("AUTOPERI_CACHE", str(folder / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        screened = predict_path(folder / "table.csv", ["toughness"], checkpoint=folder / "run" / "checkpoint")
    assert len(screened.table) == len(crystals) - 1
    assert [row[0] for row in screened.failures] == ["c0"]
    assert {"id", "formula", "toughness", "toughness_uncertainty", "toughness_out_of_domain"} <= set(
        screened.table
    )
    assert screened.models["toughness"]["sha256"] == result.model.sha256
    with pytest.raises(ValueError, match="did you mean 'toughness'"):
        predict_path(folder / "table.csv", ["toughnes"], checkpoint=folder / "run" / "checkpoint")


def test_bad_tables_are_refused(trained, tmp_path, monkeypatch):
    """Unknown, textual and constant columns, too few rows and no crystals: what was got, what to do."""
    folder, crystals, _ = trained
    monkeypatch.setenv("AUTOPERI_CACHE", str(folder / "cache"))
    monkeypatch.setattr(warnings, "warn", lambda *_, **__: None)
    with pytest.raises(ValueError, match="did you mean 'toughness'"):
        train_property(folder / "table.csv", ["tuoghness"], tmp_path, RECIPE, workers=1)
    with pytest.raises(ValueError, match="a numeric column of"):
        train_property(folder / "table.csv", ["remark"], tmp_path, RECIPE, workers=1)
    with pytest.raises(ValueError, match=r"usable ones, all 1\.5"):
        train_property(folder / "table.csv", ["constant"], tmp_path, RECIPE, workers=1)
    write_table(tmp_path / "few.csv", crystals[:6], {"y": lambda i, _: i})
    with pytest.raises(ValueError, match="expected at least 30 crystals"):
        train_property(tmp_path / "few.csv", ["y"], tmp_path, RECIPE, workers=1)
    (tmp_path / "none.csv").write_text("material_id,cif,y\na,nothing,1\nb,nothing,2\n")
    with pytest.raises(ValueError, match="none could be used"):
        train_property(tmp_path / "none.csv", ["y"], tmp_path, RECIPE, workers=1)


def test_a_folder_is_not_resumed_with_something_else(trained, monkeypatch):
    """Another recipe or other labels in the folder of a training: refused, with the way out."""
    folder, _, _ = trained
    monkeypatch.setenv("AUTOPERI_CACHE", str(folder / "cache"))
    monkeypatch.setattr(warnings, "warn", lambda *_, **__: None)
    other = replace(RECIPE, members=3)
    with pytest.raises(ValueError, match=r"that .* was begun with: got members = 3 for 2;"):
        train_property(folder / "table.csv", ["toughness"], folder / "run", other, workers=1)
    with pytest.raises(ValueError, match=r"was begun with: got .*targets"):
        train_property(folder / "table.csv", ["constant"], folder / "run", RECIPE, workers=1)


def test_a_folder_is_not_resumed_with_other_structures(trained, tmp_path, monkeypatch):
    """The same names and labels with other cells are other data: the networks have not seen them."""
    folder, crystals, _ = trained
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "cache"))
    begun = (folder / "run" / "checkpoint" / "config.json").read_bytes()
    larger = [replace(c, lattice_coords=np.add(c.lattice_coords, 0.01 * np.eye(6)[5])) for c in crystals]
    columns = {"toughness": lambda i, c: "" if i % 7 == 3 else c.properties["formation_energy"]}
    write_table(tmp_path / "table.csv", larger, columns)
    with pytest.raises(ValueError, match=r"was begun with: got data\.test = "):
        train_property(tmp_path / "table.csv", ["toughness"], folder / "run", RECIPE, workers=1)
    assert (folder / "run" / "checkpoint" / "config.json").read_bytes() == begun


def test_unknown_property_suggests_the_nearest():
    """A misspelt name is answered with the right one; a family that is not shipped, with what is."""
    with pytest.raises(ValueError, match="did you mean 'formation_energy'"):
        property_models.load("formaton_energy")
    with pytest.raises(
        CheckpointError, match="expected shipped weights of 'band_gap' in the family 'nobody'"
    ):
        property_models.load("band_gap", family="nobody")


def test_splits_and_halves_keep_compounds_together():
    """No formula is in two parts, in any order of the rows, and the halves share none."""
    crystals = labelled_crystals(80)
    splits = Splits.by_formula(CrystalDataset.from_crystals(crystals))
    parts = [{c.formula for c in part} for part in (splits.train, splits.val, splits.test)]
    assert len(set.union(*parts)) == sum(len(part) for part in parts)
    assert sum(len(p) for p in (splits.train, splits.val, splits.test)) == 80
    formulas = [c.formula for c in crystals]
    first, second = half_of(formulas, "first"), half_of(formulas, "second")
    assert (first ^ second).all()
    assert 0.3 < first.mean() < 0.7
    with pytest.raises(ValueError, match="more different compounds"):
        Splits.by_formula(CrystalDataset.from_crystals(crystals[:1] * 9))


def test_calibration_covers_ninety_percent(tmp_path, monkeypatch):
    """After calibration nine of ten of its labels lie in their interval, whatever the raw uncertainty was."""
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path))
    torch.manual_seed(0)
    ensemble = Ensemble(EnsembleConfig(TINY, 2)).eval()
    graphs = dataset_graph(CrystalDataset.from_crystals(labelled_crystals(60)), 4.0, progress=False)
    truth = ensemble.predict(graphs).value + 3 * torch.randn(60, 1)
    ensemble.calibrate(graphs, graphs, truth)
    row = figures(ensemble, graphs, truth)["formation_energy"]
    assert row["coverage_90"] == pytest.approx(0.9, abs=0.02)
    assert row["out_of_domain"] <= 0.05
    features = ensemble.members[0](graphs).features.detach()
    leading = features @ torch.linalg.svd(features - features.mean(0)).Vh[:8].T
    nearest = torch.cdist(leading, leading).sort(dim=1).values[:, :3].mean(1)
    assert float((ensemble.predict(graphs).distance - nearest).abs().max()) < 1e-2 * float(features.std())
    first = ensemble.first()
    assert len(first.members) == 1
    assert figures(first, graphs, truth)["formation_energy"]["coverage_90"] == pytest.approx(0.9, abs=0.02)
    alone, member = first.predict(graphs), ensemble.members[0]
    assert torch.allclose(alone.value, member(graphs).mean * member.spread + member.centre)
    assert float(alone.disagreement.max()) == 0
    assert torch.equal(alone.distance, ensemble.predict(graphs).distance)
    far = torch.full_like(truth, torch.nan)
    with pytest.raises(ValueError, match="expected validation labels"):
        ensemble.calibrate(graphs, graphs, far)


@pytest.mark.parametrize("logit", [0.4, -0.4, -2.0])
def test_gated_value_and_uncertainty_are_those_of_the_mixture(logit):
    """The likelier of zero and gap is told, and the uncertainty covers the other one."""
    config = replace(TINY, gated=("formation_energy",))
    ensemble = Ensemble(EnsembleConfig(config, 1)).eval()
    member = ensemble.members[0]
    for head, value in ((member.mean, 0.0), (member.gate, logit), (member.scale, -6.0)):
        torch.nn.init.zeros_(head[2].weight)
        torch.nn.init.constant_(head[2].bias, value)
    member.centre.fill_(2.0)
    answer = ensemble(site_graph(small_batch((225,)).to(dtype=torch.float32), 4.0))
    share = torch.tensor(logit).sigmoid()
    value = 2.0 if logit > 0 else 0.0
    assert float(answer.value.detach()) == pytest.approx(value, abs=0.01)
    around = share * (2 - value) ** 2 + (1 - share) * value**2  # second moment around what is said
    assert float(answer.uncertainty.detach()) == pytest.approx(float(around.sqrt()), rel=1e-2)


def test_training_starts_from_a_checkpoint(trained, tmp_path):
    """Sizes and all but the heads are those of the start; heads too where the target is the same."""
    folder, _, result = trained
    still = replace(
        RECIPE, network=CrystalGNNConfig(), members=3, fit=replace(RECIPE.fit, lr=1e-30, epochs=1)
    )
    start = str(folder / "run" / "checkpoint")
    begun = [m.state_dict() for m in result.model.ensemble.networks()]
    write_table(
        tmp_path / "table.csv", labelled_crystals(80), {"toughness": lambda i, _: i, "size": lambda i, _: -i}
    )
    for target, fresh in (("toughness", set()), ("size", {"mean", "scale", "centre", "spread"})):
        run = tmp_path / target
        made = train_property(tmp_path / "table.csv", [target], run, still, workers=1, start=start)
        assert made.model.ensemble.config.network == replace(TINY, targets=(target,), dropout=0.1)
        for member, network in enumerate(made.model.ensemble.networks()):
            own = begun[member % len(begun)]
            unlike = {n.split(".")[0] for n, x in network.state_dict().items() if not torch.equal(x, own[n])}
            assert unlike == fresh
    with pytest.raises(ValueError, match="expected no search"):
        train_property(tmp_path / "table.csv", ["size"], tmp_path / "new", still, start=start, search=3)
    with pytest.raises(CheckpointError, match=r"a checkpoint folder or one of .*formation_energy_guide"):
        train_property(tmp_path / "table.csv", ["size"], tmp_path / "new", still, start="nothing")


def test_a_column_is_called_as_it_is_written(tmp_path, monkeypatch):
    """The public data sets' names are targets; two columns that mean the same are an error naming both."""
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(warnings, "warn", lambda *_, **__: None)
    table, crystals = tmp_path / "table.csv", labelled_crystals(6)
    columns = {"formation_energy": lambda i, _: i, "energy_above_hull": lambda i, _: i / 10}
    write_table(table, crystals, columns)
    for target in ("formation_energy", "formation_energy_per_atom", "energy_above_hull", "e_above_hull"):
        with pytest.raises(ValueError, match="expected at least 30 crystals with a label of"):
            train_property(table, [target], tmp_path / "run", RECIPE, workers=1)
    write_table(table, crystals, {**columns, "formation_energy_per_atom": lambda i, _: -i})
    labels = load_dataset(table, None, workers=1).labels
    assert labels["formation_energy"].tolist() == [1, 2, 3, 4, 5]
    assert labels["formation_energy_per_atom"].tolist() == [-1, -2, -3, -4, -5]
    for target in ("formation_energy", "formation_energy_per_atom"):
        with pytest.raises(ValueError, match="got 'formation_energy' and 'formation_energy_per_atom'"):
            train_property(table, [target], tmp_path / "run", RECIPE, workers=1)
