from tests.autoperi.commands.test_cli import run
from tests.autoperi.shell import command


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
