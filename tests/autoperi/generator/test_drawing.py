"""Drawings that are interrupted and go on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from autoperi.generator import CrystalGenerator, drawing
from autoperi.generator.drawing import Drawing
from tests.autoperi.shell import command
from tests.autoperi.small import small_crystal

QUICK = ("--steps", 2, "--restarts", 0, "--corrections", 0, "--sweeps", 0, "--workers", 1, "--new-genes", 0)


def _results(folder) -> dict[str, bytes]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "run.json"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture
def _parts_of_four(monkeypatch):
    monkeypatch.setattr(drawing, "PART", 4)


@pytest.mark.usefixtures("_parts_of_four")
def test_parts_are_drawn_once_and_kept_to_the_last_bit(tmp_path):
    """After an interruption only the missing parts are drawn, and nothing of a crystal is lost."""
    crystals = [small_crystal(62, i) for i in range(10)]
    asked = []

    def draw(first, count):
        asked.append((first, count))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return crystals[first : first + count]

    with pytest.raises(KeyboardInterrupt):
        Drawing(tmp_path / "parts", 10).crystals(draw)
    again = Drawing(tmp_path / "parts", 10)
    assert again.left() == 8
    assert again.crystals(draw) == crystals
    assert asked == [(0, 4), (4, 4), (8, 2), (8, 2)]
    again.forget()
    assert not (tmp_path / "parts").exists()


def test_a_drawing_that_came_to_nothing_leaves_its_folder_free(tmp_path, capsys):
    """For other arguments; what was refused before crystals were kept is counted."""
    words = ("sample", "--n", 3, *QUICK, "--seed", 0, "--out", tmp_path / "out")
    assert command(*words, "--stable", -5) == 2
    assert "predicted more than -5 eV/atom above the hull" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert command(*words, "--stable", -0.02) == 0
    refused = json.loads((tmp_path / "out" / "run.json").read_text())["refused"]
    assert refused > 0
    assert f"3 of {3 + refused} draws" in capsys.readouterr().out


def test_a_damaged_part_is_named(tmp_path):
    """With what to do."""
    (tmp_path / "000000000.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"000000000\.jsonl is damaged: delete it"):
        Drawing(tmp_path, 2).crystals(lambda *_: [])


@pytest.mark.usefixtures("_parts_of_four")
def test_an_interrupted_sample_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    """What was drawn is not drawn again; other arguments into that folder are refused; no part is left."""
    arguments = ("sample", "--n", 6, *QUICK, "--out")
    assert command(*arguments, tmp_path / "whole") == 0
    sample, firsts = CrystalGenerator.sample, []

    def interrupted(self, n, *rest, first=0, **named):
        firsts.append(first)
        if len(firsts) == 2:
            raise OSError("the disk is gone")
        return sample(self, n, *rest, first=first, **named)

    monkeypatch.setattr(CrystalGenerator, "sample", interrupted)
    assert command(*arguments, tmp_path / "cut") == 2
    assert [p.name for p in (tmp_path / "cut" / "parts").iterdir()] == ["000000000.jsonl"]
    assert command(*arguments, tmp_path / "cut", "--seed", 1) == 2
    assert command(*arguments, tmp_path / "cut") == 0
    assert firsts == [0, 4, 4]
    assert _results(tmp_path / "cut") == _results(tmp_path / "whole")


def test_a_killed_sample_goes_on(tmp_path):
    """SIGKILL as soon as the first part lies in the folder."""
    code = (
        "import sys, autoperi.generator.drawing as d; d.PART = 2; from autoperi.cli import main; "
        "sys.argv[0] = 'autoperi'; main()"
    )

    def started(out) -> subprocess.Popen:
        arguments = ["sample", "--n", "8", *map(str, QUICK), "--out", str(out)]
        return subprocess.Popen([sys.executable, "-c", code, *arguments], env=dict(os.environ))

    assert started(tmp_path / "whole").wait(300) == 0
    killed, parts = started(tmp_path / "killed"), tmp_path / "killed" / "parts"
    end = time.monotonic() + 300
    while not list(parts.glob("*.jsonl")):
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "crystals.extxyz").exists()
    assert started(tmp_path / "killed").wait(300) == 0
    assert _results(tmp_path / "killed") == _results(tmp_path / "whole")
