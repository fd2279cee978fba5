"""README: short, its example runs, its commands are those of the package, its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_is_read_in_three_minutes():
    """At most 110 lines and 900 words."""
    assert len(TEXT.splitlines()) <= 110
    assert len(TEXT.split()) <= 900


def test_python_example_runs(tmp_path, monkeypatch):
    """As printed, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    names = {}
    exec(compile(example, str(README), "exec"), names)
    assert len(names["crystals"]) == len(names["redrawn"]) == 10
    assert {c.formula for c in names["titanates"]} == {"BaTiO3"}
    assert len(names["gaps"]) == 10


def test_first_command_draws_its_crystals(tmp_path):
    """What follows the installation, as printed."""
    command = re.search(r"^pip install \. && (autoperi sample .*)$", TEXT, re.M)
    assert command is not None
    arguments = shlex.split(command[1])[1:]
    subprocess.run([sys.executable, "-m", "autoperi.cli", *arguments], check=True, cwd=tmp_path)
    written = {path.name for path in (tmp_path / "samples").iterdir() if not path.name.startswith(".")}
    assert written >= {"crystals.extxyz", "cif", "crystals.csv", "run.json", "index.html"}


ROWS = [row for row in TEXT.splitlines() if row.startswith("|") and "`autoperi " in row]


@pytest.mark.parametrize("row", ROWS)
def test_commands_of_the_table_are_understood(row):
    """Every option of a row is one that its command knows."""
    name = re.findall(r"`autoperi ([\w-]+)", row)[0]
    help_text = subprocess.run(
        [sys.executable, "-m", "autoperi.cli", name, "--help"], check=True, capture_output=True, text=True
    ).stdout
    assert [option for option in re.findall(r"--[a-z][\w-]*", row) if option not in help_text] == []


def test_links_lead_somewhere():
    """Relative ones exist."""
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []
