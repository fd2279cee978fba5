import json
import subprocess
import sys
from typing import get_args, get_type_hints

import pandas as pd
import pytest
from ase.io import read

from autoperi.commands import console
from autoperi.commands.train import Parts
from autoperi.data.files import read_crystals
from autoperi.training.recipe import Stage
from tests.autoperi.shell import command
from tests.evaluation.classes.test_zeolite import sodalite
from tests.evaluation.crystals import diamond, perovskite
from tests.prototypes import prototype


def run(*arguments):
    """The command line as a user calls it."""
    command = [sys.executable, "-m", "autoperi.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_stage_of_a_recipe_can_be_asked_for():
    """The command line, which imports nothing early, repeats the recipe's stages."""
    assert get_args(get_type_hints(Parts)["stage"]) == ("all", *get_args(Stage))


COMMANDS = [
    "sample",
    "csp",
    "discover",
    "edit",
    "interpolate",
    "optimise",
    "evaluate",
    "benchmark",
    "relax",
    "predict",
    "encode",
    "train",
    "train-property",
    "info",
]
RANDOM = {"sample", "csp", "discover", "edit", "evaluate", "benchmark", "train", "train-property"}


def test_help_lists_the_commands_in_the_order_of_use():
    """One line or two each, their examples left to their own help."""
    shown = run("--help").stdout
    listed = [line.split()[2] for line in shown.splitlines() if "•" in line]
    assert listed == COMMANDS
    assert "Examples" not in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_each_on_a_line_and_a_seed_where_something_is_random(command):
    done = run(command, "--help")
    assert done.returncode == 0
    head, _, options = done.stdout.partition("╭")
    examples = head.partition("Examples\n")[2].strip().splitlines()
    assert examples
    assert all(line.strip().startswith("autoperi ") for line in examples)
    assert any(line.strip().startswith(f"autoperi {command}") for line in examples)
    assert "--out" in options
    assert ("--seed" in options) == (command in RANDOM)


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"info"}))
def test_options_stand_in_groups(command):
    """What is seldom needed stands below in a group of its own, every group with a sentence."""
    shown = run(command, "--help").stdout
    boxes = shown.split("╭─ ")[1:]
    assert any(box.startswith("advanced options") for box in boxes)
    for box in boxes:
        if not box.startswith(("positional", "options")):
            sentence = box.partition("╮")[2].partition("────")[0].strip("│ \n")
            assert sentence.endswith("."), box


def test_help_imports_nothing_that_takes_long():
    heavy = "{'torch', 'pymatgen', 'numpy', 'pandas', 'matplotlib'}"
    code = f"import sys, autoperi.cli; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_names_on_the_terminal_are_text(capsys):
    console.summary("in o[/x]", {"a[/b]": "\x1b[31mred"})
    shown = capsys.readouterr().out
    assert "in o[/x]" in shown
    assert "a[/b]" in shown
    assert "\\x1b[31mred" in shown
    assert "\x1b" not in shown
    console.complain("gene 221:abc: keep [/less]")
    assert capsys.readouterr().err == "gene 221:abc: keep [/less]\n"


def test_sample_writes_everything(tmp_path):
    """extxyz, CIF, table and run record agree with each other."""
    done = run("sample", "--n", 6, "--seed", 1, "--steps", 4, "--workers", 1, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    frames = read(tmp_path / "crystals.extxyz", ":")
    table = pd.read_csv(tmp_path / "crystals.csv")
    record = json.loads((tmp_path / "run.json").read_text())
    assert len(frames) == len(table) == len(list((tmp_path / "cif").glob("*.cif"))) == 6
    assert [len(f) for f in frames] == table["atoms"].tolist()
    assert record["seed"] == 1
    assert len(record["checkpoint"]["sha256"]) == 64
    assert [c.formula for c in read_crystals(tmp_path)] == table["formula"].tolist()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--formula", "Fe2O", "--space-group", "230", "--atoms", "1", "20"), "230"),
        (("--elements", "Xx"), "Xx"),
        (("--elements",), "permitted elements: got 0"),
        (("--space-group",), "got none at all"),
        (("--n", "0"), "at least one"),
        (("--checkpoint", "nowhere"), "mp_20"),
        (("--space-group", "231"), "231"),
    ],
)
def test_bad_requests_are_one_line_and_status_two(tmp_path, arguments, text):
    """A user error names what was got; no traceback."""
    done = run("sample", "--out", tmp_path, *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_encode_skips_names_and_fails(tmp_path):
    """A damaged file costs its own row, is named, and the exit status is not zero."""
    folder = tmp_path / "cifs"
    folder.mkdir()
    prototype("NaCl").to(filename=str(folder / "salt.cif"))
    (folder / "broken.cif").write_text("data_x\n_cell_length_a 3\nloop_\n_atom")
    done = run("encode", folder, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "broken" in done.stderr
    table = pd.read_csv(tmp_path / "out" / "latents.csv")
    assert set(table["element"]) == {"Na", "Cl"}


@pytest.mark.parametrize(
    ("checkpoint", "structure", "sites"),
    [
        ("perovskite", perovskite(), ["Ti", "Sr", "O"]),
        ("carbon", diamond("C", 3.567), ["C"]),
        ("zeolite", sodalite(), ["Si"]),
    ],
)
def test_classes_are_encoded_and_others_left_out(tmp_path, capsys, checkpoint, structure, sites):
    """Of frameworks the tetrahedral sites; what is none is named, and alone is an error."""
    (tmp_path / "one").mkdir()
    structure.to(filename=str(tmp_path / "one" / "one.cif"))
    asked = ("--checkpoint", checkpoint, "--out", tmp_path / "out")
    assert command("encode", tmp_path / "one", *asked) == 0
    table = pd.read_csv(tmp_path / "out" / "latents.csv")
    assert sorted(table["element"]) == sorted(sites)
    assert table.filter(like="mean_").notna().all(axis=None)
    if checkpoint == "zeolite":
        prototype("NaCl").to(filename=str(tmp_path / "one" / "salt.cif"))
        assert command("encode", tmp_path / "one", "--checkpoint", checkpoint, "--out", tmp_path / "two") == 1
        assert "salt" in capsys.readouterr().err
        (tmp_path / "one" / "one.cif").unlink()
        assert command("encode", tmp_path / "one", "--checkpoint", checkpoint, "--out", tmp_path / "no") == 2
        assert "expected SiO2 frameworks in" in capsys.readouterr().err


SHIPPED = (
    ("mp_20", "critic of genes"),
    ("perovskite", "perov_5/train"),
    ("carbon", "carbon_24/train"),
    ("zeolite", "zeolites/train"),
    ("band_gap_judge", "gate_accuracy"),
    ("distilled_chgnet", "forces"),
)


def test_info_tells_what_is_shipped_and_what_each_is(tmp_path, capsys):
    """Names of all; of one its hash and, of a property model, its held-out figures; others are refused."""
    done = run("info")
    assert done.returncode == 0
    assert {"mp_20", "formation_energy_guide", "band_gap_judge"} <= set(done.stdout.split())
    for name, about in SHIPPED:
        assert command("info", name, "--out", tmp_path) == 0
        written = json.loads((tmp_path / "info.json").read_text())
        assert len(written["sha256"]) == 64
        assert about in capsys.readouterr().out
    assert command("info", "band_gap") == 2
    assert "band_gap_guide" in capsys.readouterr().err


def test_benchmark_writes_table_and_page_and_names_what_it_could_not_read(tmp_path):
    """Two models from the shell, one with a torn file: the table, the page, exit status 1."""
    for name, crystals in (("one", ["NaCl", "Si diamond"]), ("two", ["SrTiO3 perovskite"])):
        (tmp_path / name).mkdir()
        for crystal in crystals:
            prototype(crystal).to(filename=str(tmp_path / name / f"{crystal.split()[0]}.cif"))
    reference = tmp_path / "one"
    (tmp_path / "two" / "torn.cif").write_text("data_x\n_cell_length_a 3")
    models = [f"one={tmp_path / 'one'}", f"two={tmp_path / 'two'}"]
    done = run("benchmark", *models, "--reference", reference, "--out", tmp_path / "out")
    assert done.returncode == 1, done.stderr
    assert (tmp_path / "out" / "comparison.md").read_text().count("| two |") == 1
    assert "torn" in (tmp_path / "out" / "report.html").read_text()
    assert run("benchmark", "nothing", "--out", tmp_path / "out").returncode == 2


def test_sample_tells_what_is_predicted(tmp_path, capsys):
    """A misspelt property is refused before anything is drawn; a known one is in the table."""
    assert command("sample", "--n", 2, "--predict", "formaton_energy", "--out", tmp_path / "a") == 2
    assert "did you mean 'formation_energy'" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert command("sample", "--n", 2, "--predict", "formation_energy", "--out", tmp_path / "b") == 0
    table = pd.read_csv(tmp_path / "b" / "crystals.csv")
    assert table["predicted_formation_energy"].between(-8, 3).all()
    assert (table["predicted_formation_energy_uncertainty"] > 0).all()
