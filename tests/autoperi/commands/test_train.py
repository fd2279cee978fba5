import pytest

from autoperi.training import own_condition
from tests.autoperi.commands.test_cli import run
from tests.autoperi.shell import command
from tests.autoperi.training.test_own_condition import table


def test_a_wrong_recipe_is_one_line_and_status_two(tmp_path, capfd):
    """Before anything is begun."""
    (tmp_path / "bad.toml").write_text("[flow]\nepochs = 'three'\n")
    for name in ("train", "train-property"):
        more = ["table.csv", "--targets", "y"] if name == "train-property" else []
        config = ("--config", tmp_path / "bad.toml", "--out", tmp_path / "run")
        assert command(name, *more, *config) == 2
        told = capfd.readouterr().err.strip()
        assert told.startswith("autoperi: ")
        assert "\n" not in told
        assert "flow" in told
    assert not (tmp_path / "run").exists()


def test_a_stage_that_fails_passes_its_status_on(tmp_path):
    """The stage has said in a line what is wrong; the command adds nothing."""
    (tmp_path / "bad.toml").write_text("data = 'nowhere'\n")
    done = run("train", "--config", tmp_path / "bad.toml", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.strip().startswith("autoperi: data: expected a data set among")
    assert "\n" not in done.stderr.strip()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--condition", "toughness"), "expected --condition and --data together"),
        (("--data", "mine.csv"), "expected --condition and --data together"),
        (("--start", "mp_20"), "expected --condition and --data together"),
        (
            ("--condition", "toughness", "--data", "mine.csv", "--config", "cpu"),
            "expected no recipe, stage or data folder where a condition is added",
        ),
        (("--condition", "toughness", "--data", "mine.csv", "--stage", "genes"), "expected no recipe, stage"),
        (("--condition", "toughness", "--data", "nowhere.csv"), "nowhere.csv"),
        (
            ("--condition", "toughness", "--data", "mine.csv", "--start", "nowhere"),
            "expected a checkpoint folder",
        ),
    ],
)
def test_a_property_of_ones_own_is_asked_for_as_a_whole(tmp_path, monkeypatch, capfd, words, text):
    """What does not go together, or is not there, is refused in a line."""
    monkeypatch.chdir(tmp_path)
    assert command("train", *words, "--out", "run") == 2
    told = capfd.readouterr().err.strip()
    assert told.startswith("autoperi: ")
    assert text in told
    assert "\n" not in told


def test_an_unreadable_row_of_a_property_of_ones_own_is_named(tmp_path, monkeypatch, capfd):
    """The others are learned, and the status is 1."""
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own_condition, "_STEPS", 4)
    rows = table()
    rows.loc[3, "cif"] = "no crystal"
    rows.to_csv(tmp_path / "mine.csv", index=False)
    words = ("--condition", "toughness[GPa]", "--data", tmp_path / "mine.csv", "--out", tmp_path / "run")
    assert command("train", "--start", "mp_20", *words) == 1
    printed = capfd.readouterr()
    assert f"left out: {rows.id[3]}" in printed.err
    assert "toughness" in printed.out
    assert (tmp_path / "run" / "checkpoint" / "MODEL_CARD.md").exists()
