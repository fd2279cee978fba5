"""Gaps by a calculator that is not there: who is computed, what is named, what a killed run leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.io import write
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from autoperi.data.run_folder import FolderError
from scripts import dft_gap
from tests.prototypes import prototype

FAKE = """
import os, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).parent

class Fake:
    def get_potential_energy(self, atoms, force_consistent=False):
        self.formula = atoms.get_chemical_formula()
        with (HERE / "calls").open("a") as calls:
            calls.write(self.formula + "\\n")
        if "Cs" in atoms.symbols:
            raise RuntimeError("no setup of Cs\\nand much more")
        if "Fe" in atoms.symbols:
            print("out of memory", file=sys.stderr)
            os._exit(9)
        if "Cu" in atoms.symbols and not (HERE / "fast").exists():
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (HERE / "pids").write_text(f"{os.getpid()} {child.pid}")
            time.sleep(600)
        assert os.listdir() == []
        Path("left").write_text("behind")
        return -1.5 * len(atoms) - float(atoms.get_initial_magnetic_moments().sum())
    def get_ibz_k_points(self):
        return [0, 1]
    def get_number_of_spins(self):
        return 1
    def get_fermi_level(self):
        return 4.6 if self.formula == "Mg2" else 5.0
    def get_eigenvalues(self, kpt, spin):
        gap = {"Mg2": -0.5, "Si2": 2.5}.get(self.formula, 5.0)
        return [3.5, 4.9 - kpt, 4.9 + gap + (1 - kpt) / 2]

def calculator():
    print("chatter that is no answer")
    return Fake()
"""


@pytest.fixture
def compute(tmp_path, monkeypatch):
    """Run the script in an empty folder that holds the calculator."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.chdir(tmp_path)

    def run(path="in.extxyz", **options):
        options = {"python": Path(sys.executable), "calculator": "fake:calculator", **options}
        return dft_gap.main(Path(path), Path("out"), **options)

    return run


def crystals(*names, **labels):
    """Write prototypes, in that order, with labels."""
    for k, name in enumerate(names):
        atoms = prototype(name).to_ase_atoms()
        atoms.info = {"id": name.split()[0], **{label: values[k] for label, values in labels.items()}}
        write("in.extxyz", atoms, append=k > 0)


def calls():
    return Path("calls").read_text().split()


def table(out="out"):
    return pd.read_csv(Path(out, "dft.csv"), index_col="id", keep_default_na=False, na_values={"gap": [""]})


def gone(pid):
    """Whether a process has ended, within ten seconds."""
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_gaps_energies_and_figures(compute, capsys):
    """Of primitive cells; a metal has gap 0; predictions that the crystals carry are compared."""
    crystals("Si diamond", "NaCl", "Mg hcp", predicted_band_gap=[2.0, 5.5, 0.0])
    assert compute(window="2:3") == 0
    found = table()
    assert list(found.columns) == dft_gap.COLUMNS[1:]
    assert found.formula.tolist() == ["Si", "NaCl", "Mg"]
    assert found.atoms.tolist() == [2, 2, 2]
    np.testing.assert_allclose(found.gap, [2.5, 5.0, 0.0])
    np.testing.assert_allclose(found.direct_gap.astype(float), [3.0, 5.5, 0.0])
    np.testing.assert_allclose(found.energy.astype(float), -3.0)
    run = json.loads(Path("out", "run.json").read_text())
    assert run["computed"] == "3 of 3"
    assert run["without a gap"] == "1 of 3"
    assert run["gap within 2 to 3 eV"] == "1 of 3, 33% (6 to 79%)"
    assert run["predicted_band_gap"] == "correlation 0.99, mean absolute error 0.33 eV, n 3"
    assert "judged_band_gap" not in run
    assert run["asked"]["name"] == "Fake"
    assert "1 of 3, 33% (6 to 79%)" in capsys.readouterr().out


def test_predictions_of_a_folder_that_was_discovered(compute, tmp_path):
    """Stand in its table, in any order, with ids that look like numbers."""
    crystals("Si diamond", "NaCl", "Mg hcp")
    folder = tmp_path / "found"
    folder.mkdir()
    text = Path("in.extxyz").read_text()
    for number, name in enumerate(("Si", "NaCl", "Mg")):
        text = text.replace(f"id={name}", f'id="00{number}"')
    (folder / "crystals.extxyz").write_text(text)
    rows = ["id,predicted_band_gap,judged_band_gap", "002,0,1", "001,5,5", "000,2.5,2.5"]
    (folder / "crystals.csv").write_text("\n".join(rows))
    assert compute(path=folder) == 0
    run = json.loads(Path("out", "run.json").read_text())
    assert run["predicted_band_gap"] == "correlation 1.00, mean absolute error 0.00 eV, n 3"
    assert run["judged_band_gap"] == "correlation 0.99, mean absolute error 0.33 eV, n 3"


def test_what_fails_is_named_and_the_others_finish(compute, capsys):
    """An exception, a process that dies, one that does not end with all it has started; overlaps."""
    crystals("CsCl", "Fe bcc", "Cu fcc", "Si diamond")
    with Path("in.extxyz").open("a") as file:
        file.write(
            '2\nLattice="4 0 0 0 4 0 0 0 4" id=twice\nNa 0 0 0\nNa 0 0 0.01\n1\nno lattice here=1\nH 0 0 0\n'
        )
    assert compute(time_limit=4) == 1
    found = table()
    assert found.problem["CsCl"] == "RuntimeError: no setup of Cs"
    assert found.problem["Fe"] == "the worker ended with status 9 and no answer: out of memory"
    assert found.problem["Cu"] == "not finished within 4 s"
    assert "expected atoms at least 0.4 Å apart" in found.problem["twice"]
    assert found.problem["Si"] == ""
    assert np.isfinite(found.gap).tolist() == [False, False, False, True, False]
    complaints = capsys.readouterr().err
    assert [
        name for name in ("CsCl", "Fe", "Cu", "twice", "in-5") if f"left out: {name} " not in complaints
    ] == []
    assert all(gone(pid) for pid in Path("pids").read_text().split())


def test_goes_on_where_it_stood(compute):
    """Nothing is computed twice, except what failed, with a longer time limit."""
    crystals("Si diamond", "Cu fcc", "NaCl")
    assert compute(limit=2, time_limit=3) == 1
    assert compute(time_limit=3) == 1
    assert calls() == ["Si2", "Cu", "ClNa"]
    assert compute(time_limit=2) == 1
    assert len(calls()) == 3
    Path("fast").touch()
    assert compute(time_limit=20) == 0
    assert calls() == ["Si2", "Cu", "ClNa", "Cu"]
    assert table().gap.tolist() == [2.5, 5.0, 5.0]
    with pytest.raises(FolderError, match="spin"):
        compute(spin=True)


def test_survives_sigkill(compute):
    """The worker ends with the script; the record that was cut off is made again, the one before is kept."""
    crystals("Si diamond", "Cu fcc")
    command = [sys.executable, dft_gap.__file__, "in.extxyz", "--out", "out", "--python", sys.executable]
    process = subprocess.Popen([*command, "--calculator", "fake:calculator"], env=os.environ)
    for _ in range(600):
        if Path("pids").exists() and Path("pids").read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert all(gone(pid) for pid in Path("pids").read_text().split())
    with Path("out", "computed.jsonl").open("a") as journal:
        journal.write('{"id": "Cu", "gap":')
    Path("fast").touch()
    assert compute() == 0
    assert calls() == ["Si2", "Cu", "Cu"]
    assert table().gap.tolist() == [2.5, 5.0]
    assert sorted(path.name for path in Path("out").iterdir()) == ["computed.jsonl", "dft.csv", "run.json"]


def test_spin_starts_magnetic(compute):
    """Told by the calculator, which takes the moments from the energy: 0.6 μB an atom of silicon."""
    crystals("Si diamond")
    assert compute(spin=True) == 0
    np.testing.assert_allclose(table().energy.astype(float), [-3.0 - 1.2])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"python": Path("nowhere/python")}, "No such file or directory"),
        ({"python": Path("/bin/true")}, "no answer"),
        ({"calculator": "fake:nothing"}, "AttributeError: module 'fake' has no attribute 'nothing'"),
        ({"calculator": "missing:calculator"}, "ModuleNotFoundError: No module named 'missing'"),
    ],
)
def test_a_missing_calculator_is_refused(compute, capsys, options, said):
    """In one line that says what to install, before anything is made."""
    crystals("Si diamond")
    assert compute(**options) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert "apt-get install gpaw gpaw-data" in complaint
    assert complaint.count("\n") == 1
    assert not Path("out").exists()


def test_user_errors_are_one_line(compute):
    """Of the command: exit status 2, no traceback."""
    crystals("Si diamond")
    command = [sys.executable, dft_gap.__file__, "in.extxyz", "--out", "out", "--window", "3:2"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "expected low <= high" in ended.stderr
    assert compute() == 0
    Path("out", "run.json").write_text("{")
    ended = subprocess.run(
        [*command[:-2], "--python", sys.executable, "--calculator", "fake:calculator"],
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)


GPAW = subprocess.run(["/usr/bin/python3", "-c", "import gpaw"], capture_output=True, text=True)


@pytest.mark.skipif(
    GPAW.returncode != 0, reason="/usr/bin/python3 has no GPAW: apt-get install gpaw gpaw-data"
)
def test_silicon_and_an_element_without_setup(tmp_path, monkeypatch):
    """By PBE silicon has 0.6 to 0.7 eV; bands of CaH2 reach above its small gap; gadolinium has no setup."""
    monkeypatch.chdir(tmp_path)
    crystals("Si diamond")
    hydride = Structure.from_spacegroup(225, Lattice.cubic(5.396), ["Ca", "H"], [[0, 0, 0], [0.25] * 3])
    write("in.extxyz", AseAtomsAdaptor.get_atoms(hydride, info={"id": "CaH2"}), append=True)
    atoms = prototype("NaCl").to_ase_atoms()
    atoms.symbols[atoms.symbols == "Na"] = "Gd"
    atoms.info = {"id": "GdCl"}
    write("in.extxyz", atoms, append=True)
    assert dft_gap.main(Path("in.extxyz"), Path("out")) == 1
    found = table()
    assert 0.55 < found.gap["Si"] < 0.8
    assert 0.05 < found.gap["CaH2"] < 0.3
    assert 'Could not find required PAW dataset file "Gd.PBE"' in found.problem["GdCl"]
