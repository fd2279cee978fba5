"""Commands that are killed in the middle: nobody is left, and the same command ends with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pandas as pd
import pytest

from tests.prototypes import prototype

_LAUNCHER = """
import signal
from pathlib import Path
import {module} as module

original, calls = module.{function}, 0

def held(*arguments, **named):
    global calls
    calls += 1
    if calls == {call}:
        Path({mark!r}).touch()
        signal.pause()
    return original(*arguments, **named)

module.{function} = held
if __name__ == "__main__":  # processes that are spawned import this file too
    from autoperi.cli import main
    main()
"""
_FOREVER = 600
"""Seconds after which a test gives up to wait; what it waits for takes no certain time, but comes."""
_LABOURED = {".unfinished", "models", "relaxations.jsonl", "baselines", "parts", "shards"}
"""What a run leaves behind to go on with, and in which order things happened."""


@dataclass(frozen=True)
class Case:
    """A command that is held in one call of one of its functions, by one of its processes, and killed there.

    Attributes:
        words: its arguments; TABLE stands for the crystals.
        function: of a module, dotted.
        call: how many times that process has called it.
        end: the signal.
        workers: whether other processes work for it then.
        timed: files beside the record that tell how long things took.
    """

    words: str
    function: str
    call: int
    end: signal.Signals = signal.SIGKILL
    workers: bool = True
    timed: tuple[str, ...] = ()


CASES = {
    "encode": Case("encode TABLE", "autoperi.data.preprocess._row", 20, signal.SIGTERM),
    "relax": Case("relax TABLE --steps 3", "evaluation.relaxation.batch._record", 5),
    "csp": Case("csp KMgF3 NaBr MgO TiO2 --candidates 4", "evaluation.relaxation.batch._record", 3),
    "discover": Case(
        "discover --n 60 --draws 200 --known TABLE --hull HULL",
        "evaluation.relaxation.batch._record",
        40,
        timed=("index.html", "funnel.json"),
    ),
    "evaluate": Case("evaluate TABLE --reference TABLE", "evaluation.facts.description.describe", 20),
    "stability": Case(
        "evaluate TABLE --reference TABLE --stability --hull HULL --steps 3",
        "evaluation.relaxation.batch._record",
        5,
    ),
    "benchmark": Case(
        "benchmark a=TABLE b=TABLE --reference TABLE",
        "evaluation.report.benchmark.evaluate",
        2,
        workers=False,
    ),
    "benchmark stability": Case(
        "benchmark a=TABLE b=TABLE --reference TABLE --limit 12 --stability --hull HULL --steps 3",
        "evaluation.relaxation.batch._record",
        4,
    ),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Of seventy-five crystals, enough for `encode` to share them among processes; a hull beside it."""
    rows = []
    for k in range(25):
        for name in ("NaCl", "Si diamond", "CsCl"):
            crystal = prototype(name)
            crystal.perturb(0.02, seed=k)
            rows.append((f"{name} {k}", crystal.to(fmt="cif")))
    file = tmp_path_factory.mktemp("tables") / "crystals.csv"
    hull = pd.DataFrame({"composition": ["NaCl", "CsCl"], "formation_energy_per_atom": [-2.1, -2.2]})
    hull.to_csv(file.with_name("hull.csv"), index=False)
    pd.DataFrame(rows, columns=["id", "cif"]).to_csv(file, index=False)
    return file


def results(out, case):
    """Content of all files of a run by name, without those that have the time in them."""
    files = (p for p in out.rglob("*") if p.is_file() and p.relative_to(out).parts[0] not in _LABOURED)
    return {
        p.relative_to(out).as_posix(): p.read_bytes()
        for p in files
        if p.name not in ("run.json", *case.timed)
    }


def run(program, case, table, out, cache, **more):
    words = (
        case.words.replace("TABLE", str(table)).replace("HULL", str(table.with_name("hull.csv"))).split(" ")
    )
    arguments = [sys.executable, *program, *words, "--workers", "2", "--out", str(out)]
    environment = {**os.environ, "AUTOPERI_CACHE": str(cache)}
    return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True, **more)


def alive(session):
    """Ids of the processes of a session that still run."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True, text=True, check=False
    )
    return [line.split()[0] for line in listed.stdout.splitlines() if not line.split()[1].startswith("Z")]


def until(condition):
    patience = time.monotonic() + _FOREVER
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_killed_in_the_middle_the_same_command_ends_with_the_same_bytes(table, tmp_path, name):
    """No process is left, no file has its final name; the rerun equals a run that was left in peace."""
    case, out, mark = CASES[name], tmp_path / "killed", tmp_path / "held"
    module, _, function = case.function.rpartition(".")
    launcher = tmp_path / "held.py"
    launcher.write_text(_LAUNCHER.format(module=module, function=function, call=case.call, mark=str(mark)))
    with run([str(launcher)], case, table, out, tmp_path / "cache", start_new_session=True) as killed:
        until(lambda: mark.exists() or killed.poll() is not None)
        assert mark.exists(), killed.communicate()[1]
        assert len(alive(killed.pid)) > (2 if case.workers else 0)
        os.kill(killed.pid, case.end)
        _, complaint = killed.communicate()
        until(lambda: not alive(killed.pid))
    assert "Traceback" not in complaint
    assert killed.returncode == (-case.end if case.end == signal.SIGKILL else 128 + case.end)
    assert results(out, case) == {}
    whole = tmp_path / "whole"
    for folder, cache in ((out, "cache"), (whole, "other")):
        with run(["-m", "autoperi.cli"], case, table, folder, tmp_path / cache) as done:
            _, complaint = done.communicate()
        assert done.returncode == 0, complaint
    expected = results(whole, case)
    assert len(expected) > 0
    assert results(out, case) == expected
