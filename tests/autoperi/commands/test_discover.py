import json
import re
import shutil

import pandas as pd
import pytest

from autoperi.crystals.labels import Condition
from autoperi.data.files import read_crystals
from autoperi.generator import load, save
from property_models.model import PRETRAINED
from tests.autoperi.shell import command
from tests.browser import shown
from tests.prototypes import prototype


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Options: what is known, and a hull of a few phases."""
    folder = tmp_path_factory.mktemp("sets")
    prototype("NaCl").to(str(folder / "known.cif"))
    (folder / "hull.csv").write_text("composition,formation_energy_per_atom\nNaCl,-2.1\n")
    return ("--known", folder / "known.cif", "--hull", folder / "hull.csv", "--workers", 1)


def test_found_ranked_and_told(tmp_path, capsys, sets):
    """Hard constraints met after relaxation; tables, CIFs, gallery with the funnel on top, record."""
    out = tmp_path / "found"
    wanted = ("--n", 3, "--elements", "K", "Rb", "Cl", "Br", "F", "--atoms", 1, 12, "--bulk-modulus", ":40")
    arguments = ("discover", *wanted, *sets, "--out", out)
    assert command(*arguments) == 0
    said = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in said.splitlines()) <= 100
    assert "returned" in said
    table = pd.read_csv(out / "discovered.csv", dtype={"id": str})
    assert table["rank"].tolist() == [1, 2, 3]
    assert (table["predicted_bulk_modulus"] <= 40).all()
    assert table["judged_bulk_modulus"].notna().all()
    assert (table["atoms"] <= 12).all()
    assert (table["novelty"] != "duplicate").all()
    heights = table[["e_above_hull", "predicted_e_above_hull"]].max(axis=1)
    assert heights.tolist() == sorted(heights)
    crystals = read_crystals(out)
    assert [c.id for c in crystals] == table["id"].tolist()
    assert {z for c in crystals for z in c.species.tolist()} <= {19, 37, 17, 35, 9}
    assert set(shown(out / "index.html")) == set(table["id"])
    assert 'id="funnel"' in (out / "index.html").read_text()
    funnel = json.loads((out / "funnel.json").read_text())
    assert (funnel["stages"][0]["entered"], funnel["stages"][-1]["left"]) == (100, 3)
    assert json.loads((out / "run.json").read_text())["ended"] == "found"


def test_what_is_out_of_reach_ends_with_status_three(tmp_path, capsys, sets):
    """It says where the draws were lost; more draws go on from there."""
    out = tmp_path / "none"
    wanted = ("discover", "--n", 1, "--formula", "NaCl", "--bulk-modulus", "5000:", *sets, "--out", out)
    assert command(*wanted, "--draws", 1) == 3
    said = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in said.splitlines() if "│" in line) <= 100
    said = " ".join(said.replace("│", " ").split())  # a narrow terminal folds it
    assert "as many draws as were allowed" in said
    assert "fewest passed on target (0 of" in said
    assert re.search(r"no crystal came into the range: bulk_modulus by 4\.9\d?e\+03 at least", said)
    assert pd.read_csv(out / "discovered.csv").empty
    assert (out / "shards" / "000000.json").exists()
    assert command(*wanted, "--draws", 1) == 3


def test_the_best_of_several_tries_goes_on(tmp_path, sets):
    """By the shipped potential, as in `sample`."""
    wanted = ("--n", 1, "--formula", "NaCl", "--space-group", 225, "--tries", 2, "--novelty", "duplicate")
    assert command("discover", *wanted, *sets, "--out", tmp_path / "found") == 0
    (found,) = read_crystals(tmp_path / "found")
    assert found.provenance["tries"] == 2


def test_a_condition_and_a_model_of_ones_own(tmp_path, capsys, sets):
    """What a model of one's own predicts chooses; a condition without a model steers, and that is said."""
    conditions = {"stiffness": Condition("GPa", 0.0, 300.0), "beauty": Condition("", 0.0, 1.0)}
    shipped = load("mp_20")
    widened = shipped.with_conditions({**shipped.config.conditions, **conditions})
    save(widened, tmp_path / "mine", {})
    model = shutil.copytree(PRETRAINED / "elastic_guide", tmp_path / "model")
    config = model / "config.json"
    config.write_text(config.read_text().replace("bulk_modulus", "stiffness"))
    words = ("--checkpoint", tmp_path / "mine", "--condition", "stiffness=:60", "beauty=0.5")
    wanted = ("--n", 1, "--elements", "K", "Rb", "Cl", "Br", *words, *sets)
    assert command("discover", *wanted, "--model", model, "--out", tmp_path / "both") == 0
    said = capsys.readouterr().out
    assert "beauty: steered alone, no model predicts it" in said
    (found,) = read_crystals(tmp_path / "both")
    assert found.properties["predicted_stiffness"] <= 60
    assert found.provenance["target_beauty"] == 0.5
    assert found.properties["judged_e_above_hull"] == found.properties["judged_e_above_hull"]
    assert command("discover", *wanted, "--condition", "strength=1:", "--out", tmp_path / "no") == 2
    assert "conditions among ['band_gap', 'beauty'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--band-gap", "inf"), "expected a value (1.3), a range (1.1:1.7) or an inequality"),
        (("--condition", "band_gap"), "--condition as NAME=WINDOW"),
        (("--band-gap", ":1", "--condition", "band_gap=:2"), "each condition once: got 'band_gap' twice"),
        (("--model", "nowhere"), "nowhere"),
        (("--band-gap", "1.3"), "a range of band_gap, e.g. 1.1:1.5"),
        (("--band-gap", "8.5:9"), "band_gap: expected values from 0 to 8 eV"),
        (("--formula", "NaCl", "--exclude", "Na"), "Na"),
        (("--space-group", "231"), "space-group numbers from 1 to 230"),
        (("--budget", "soon"), "a time such as 90s, 30m or 2h"),
        (("--rank", "beauty"), "expected to rank by one of e_above_hull, formation_energy, atoms"),
        (("--hull", "nowhere.csv"), "no hull nowhere.csv"),
        (("--known", "nowhere.cif"), "nowhere.cif"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_drawn(tmp_path, capsys, sets, words, told):
    """In a line; nothing is left behind."""
    assert command("discover", *sets, *words, "--out", tmp_path / "no") == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "no").exists()


def test_another_hull_of_the_same_name_is_another_run(tmp_path, capsys, sets):
    """Shards that were chosen by the old one are not taken over."""
    hull = tmp_path / "hull.csv"
    hull.write_text("composition,formation_energy_per_atom\nNaCl,-2.1\n")
    words = ("discover", "--n", 1, "--formula", "NaCl", "--bulk-modulus", "5000:", "--draws", 1, *sets)
    words = (*words, "--hull", hull, "--out", tmp_path / "out")
    assert command(*words) == 3
    hull.write_text("composition,formation_energy_per_atom\nNaCl,-2.2\n")
    assert command(*words) == 2
    assert "holds another run" in capsys.readouterr().err
