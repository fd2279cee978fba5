"""The script that builds polymers: exit status and files."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rdkit", reason="rdkit is not installed")

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_polymer.py"


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_bad_ones_are_named_and_the_rest_is_built(tmp_path):
    done = run("*CC*", "*CC", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "left out: *CC (*CC)" in done.stderr
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written >= {"polymers.csv", "crystals.extxyz", "cif", "run.json", "index.html"}


def test_nothing_to_begin_with_is_two(tmp_path):
    done = run("CC", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.startswith("autoperi: expected a SMILES of a repeat unit")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
