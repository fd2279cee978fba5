"""How commands end before their end: in words, in order, with nothing half written and nobody left."""

import json
import os
import signal
import time
import warnings
from pathlib import Path

import pytest
import torch

from autoperi import cli
from autoperi.commands import console
from autoperi.commands.info import Info
from autoperi.data import cache
from tests.autoperi.shell import command
from tests.prototypes import prototype


def raising(error):
    def run(_):
        raise error

    return run


def refused_by_the_system():
    return Path("/proc/version/below").read_text()


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (lambda _: refused_by_the_system(), "/proc/version/below: Not a directory"),
        (lambda _: Path("/dev/full").write_text("x"), "No space left on device; make room"),
        (raising(MemoryError()), "out of memory"),
        (raising(RuntimeError("Found no NVIDIA driver on your system")), "no CUDA device here"),
        (raising(AssertionError("Torch not compiled with CUDA enabled")), "no CUDA device here"),
        (lambda _: json.loads("{"), "a file is not what it should be"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_status_two(monkeypatch, capsys, run, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Info, "run", run)
    assert command("info") == 2
    complaint = capsys.readouterr().err
    assert told in complaint
    assert complaint.count("\n") == 1


def test_what_the_rooms_warn_of_is_one_line(monkeypatch, capsys):
    def run(_):
        for _ in range(2):
            warnings.warn_explicit("1 of 2 is\nleft out", UserWarning, cli.__file__, 1, registry=seen)
        warnings.warn_explicit("of a library", UserWarning, torch.__file__, 1)
        return 0

    seen = {}
    monkeypatch.setattr(Info, "run", run)
    with pytest.warns(UserWarning, match="of a library"):
        assert command("info") == 0
    assert capsys.readouterr().err == "autoperi: 1 of 2 is left out\n"


@pytest.mark.parametrize(
    ("run", "error"),
    [
        (lambda _: torch.ones(2) @ torch.ones(3), RuntimeError),
        (lambda _: torch.ones(2).reshape(3), RuntimeError),
        (lambda _: int("x"), ValueError),
        (raising(AssertionError("impossible")), AssertionError),
        (lambda _: len(5), TypeError),
    ],
)
def test_faults_of_the_program_are_not_dressed_as_errors_of_the_user(monkeypatch, run, error):
    monkeypatch.setattr(Info, "run", run)
    with pytest.raises(error):
        command("info")


def test_the_debug_switch_shows_where_it_happened(monkeypatch):
    monkeypatch.setattr(Info, "run", lambda _: refused_by_the_system())
    monkeypatch.setenv("AUTOPERI_DEBUG", "1")
    with pytest.raises(NotADirectoryError):
        command("info")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interruption_is_one_line(monkeypatch, capsys, number, status):
    def run(_):
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr(Info, "run", run)
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)]
    assert command("info") == status
    complaint = capsys.readouterr().err
    assert "interrupted" in complaint
    assert complaint.count("\n") == 1
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)] == before


def test_markup_and_escapes_reach_no_terminal(capsys):
    console.summary("[/x] \x1b[31m", {"[bold]": "a [/y] \x1b]0;title\x07 b"})
    told = capsys.readouterr().out
    assert "[/x]" in told
    assert "a [/y]" in told
    assert "\x1b" not in told
    console.complain("two\nlines [/z]")
    assert "two lines [/z]" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "id,cif\n", "[]"])
def test_nothing_is_no_success(tmp_path, capsys, content):
    """An empty folder, a table without rows, an empty list: one line, and no folder is left."""
    source = tmp_path / "in"
    if content:
        source = tmp_path / ("in.json" if content == "[]" else "in.csv")
        source.write_text(content)
    else:
        source.mkdir()
    reference = tmp_path / "reference.cif"
    prototype("NaCl").to(filename=str(reference))
    for name in ("evaluate", "relax", "encode", "predict"):
        assert command(name, source, "--out", tmp_path / "out") == 2, name
        assert capsys.readouterr().err.count("\n") == 1
        assert not (tmp_path / "out").exists()
    models = ("benchmark", f"m={source}", "--reference", reference)
    assert command(*models, "--out", tmp_path / "out") == 2
    assert command(*models, "--limit", -1, "--out", tmp_path / "out") == 2
    assert "at least one crystal" in capsys.readouterr().err


def test_a_folder_holds_the_samples_of_one_request(tmp_path, capsys):
    """The same again is the same; other arguments are refused by what differs; the input is no output."""
    assert command("sample", "--n", 2, "--out", tmp_path) == 0
    first = (tmp_path / "crystals.extxyz").read_bytes()
    assert command("sample", "--n", 2, "--out", tmp_path) == 0
    assert (tmp_path / "crystals.extxyz").read_bytes() == first
    record = (tmp_path / "run.json").read_bytes()
    capsys.readouterr()
    for words, told in (
        (("sample", "--n", 1), "n 2, now 1"),
        (("sample", "--n", 2, "--seed", 1), "seed 0, now 1"),
        (("relax", tmp_path), "outside of the input"),
        (("predict", tmp_path), "outside of the input"),
        (("encode", tmp_path / "crystals.extxyz"), "command sample, now encode"),
    ):
        assert command(*words, "--out", tmp_path) == 2
        assert told in capsys.readouterr().err
    assert (tmp_path / "run.json").read_bytes() == record


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("evaluate", "missing", "--coverage"), "matminer: pip install 'autoperi-gnn[coverage]'"),
        (("benchmark", "m=missing", "--coverage"), "matminer: pip install 'autoperi-gnn[coverage]'"),
        (("train-property", "missing", "--targets", "x", "--search", 2), "'autoperi-gnn[search]'"),
    ],
)
def test_what_is_not_installed_is_said_before_any_work(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.setattr(cache, "find_spec", lambda _: None)
    assert command(*words, "--out", tmp_path / "out") == 2
    complaint = capsys.readouterr().err
    assert told in complaint
    assert complaint.count("\n") == 1
