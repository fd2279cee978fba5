"""Band gaps and energies of crystals from first principles, by any ASE calculator; by default PBE with GPAW.

Install: apt-get install gpaw gpaw-data     (for the system's Python, which runs it; this one needs neither)
Run: python scripts/dft_gap.py found --window 2:3 --out pbe
     python scripts/dft_gap.py crystals.extxyz --python ~/dft/bin/python --calculator my_module:vasp --out dft
A calculator's function takes nothing; its module lies on that Python's path or in this folder. Cells are
primitive, exactly symmetric (within 0.01 Å) and not relaxed; gaps are those on the k-points of the ground
state. The same command goes on where it stood; what failed is tried again with a longer time limit alone.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro
from scipy.stats import binomtest

from autoperi.cli import status_of
from autoperi.commands import console
from autoperi.crystals.labels import Window
from autoperi.crystals.symmetry import SymmetriseConfig, SymmetriseError, symmetrise
from autoperi.data.names import without_formulas
from autoperi.data.reading import Sample, read_structures
from autoperi.data.run_folder import run_folder
from evaluation.relaxation.journal import append, end_last_line, read_journal

COLUMNS = ["id", "formula", "atoms", "gap", "direct_gap", "energy", "seconds", "problem"]


def main(
    path: Annotated[Path, tyro.conf.Positional],
    out: Path,
    python: Path = Path("/usr/bin/python3"),
    calculator: str = "dft_worker:gpaw",
    spin: bool = False,
    window: str | None = None,
    time_limit: float = 3600.0,
    limit: int | None = None,
) -> int:
    """Compute every crystal.

    Args:
        path: crystals in any form.
        out: folder for dft.csv, run.json and the journal.
        python: the interpreter that has the calculator.
        calculator: MODULE:FUNCTION that returns it.
        spin: polarised, from a ferromagnetic start.
        window: gaps that count as hits, eV (2:3).
        time_limit: after which a crystal is given up, seconds.
        limit: the first so many crystals alone.
    """
    wanted = None if window is None else Window.of(window, "eV")
    task = {"calculator": calculator, "spin": spin, "folder": str(Path.cwd())}
    made = told(python, task, time_limit, None)
    if why := made.get("problem"):
        remedy = "apt-get install gpaw gpaw-data, or give a --python and a --calculator that fit"
        console.complain(f"no calculator {calculator} in {python} ({why}): {remedy}")
        return 2
    read = read_structures(path, limit)
    asked = {"command": "dft_gap", "calculator": calculator, "spin": spin, **made}
    with run_folder(out, asked, path) as folder:
        journal = folder.path / "computed.jsonl"
        end_last_line(journal)
        kept = [r for r in read_journal(journal) if not r["problem"] or r["time_limit"] >= time_limit]
        done = {record["id"]: record for record in kept}
        for sample in (sample for sample in read.samples if sample.id not in done):
            done[sample.id] = record = computed(sample, python, task, time_limit, folder.new)
            append(journal, record)
            gap = record["problem"] or f"gap {record['gap']:.2f} eV, direct {record['direct_gap']:.2f} eV"
            console.out.print(f"{sample.id} {record['formula']}: {gap} ({record['seconds']:.0f} s)")
        table = pd.DataFrame([done[sample.id] for sample in read.samples], columns=COLUMNS)
        without_formulas(table).to_csv(folder.new / "dft.csv", index=False)
        labels = pd.DataFrame([sample.labels or {} for sample in read.samples])
        if (sheet := path / "crystals.csv").is_file():  # of sample and discover
            labels = pd.read_csv(sheet, dtype={"id": str}).set_index("id").reindex(table.id)
        found = figures(table, labels, wanted)
        failures = [(f.id, f.where, f.reason) for f in read.failures]
        failures += [(i, made["name"], p) for i, p in zip(table.id, table.problem, strict=True) if p]
        folder.finish({"source": str(path), "time_limit": time_limit, **found, "failures": failures})
    console.summary(f"{made['name']} {made['version']}, {out / 'dft.csv'}", found)
    return console.left_out(failures)


def computed(sample: Sample, python: Path, task: dict[str, Any], time_limit: float, scratch: Path) -> dict:
    """The journal's record of a crystal: gaps in eV, energy in eV a primitive cell."""
    start, found = time.monotonic(), {"formula": sample.structure.reduced_formula, "problem": ""}
    try:
        cell, positions, numbers = symmetrise(sample.structure, SymmetriseConfig(symprec=0.01)).expand()
    except SymmetriseError as error:
        found |= {"atoms": len(sample.structure), "problem": str(error)}
    else:
        crystal = {"cell": cell.tolist(), "positions": positions.tolist(), "numbers": numbers.tolist()}
        found |= {"atoms": len(numbers), **told(python, task | crystal, time_limit, scratch)}
    seconds = round(time.monotonic() - start, 1)
    return dict.fromkeys(COLUMNS) | found | {"id": sample.id, "seconds": seconds, "time_limit": time_limit}


def told(python: Path, task: dict[str, Any], time_limit: float, scratch: Path | None) -> dict[str, Any]:
    """What a worker answers; ``problem`` in place of an answer. All it starts ends with this process."""
    command = [python.expanduser().absolute(), Path(__file__).with_name("dft_worker.py")]
    env = {"OMP_NUM_THREADS": "1", **os.environ}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with TemporaryDirectory(dir=scratch) as own:
        try:
            worker = subprocess.Popen(command, **pipes, text=True, cwd=own, env=env, process_group=0)
        except OSError as error:
            return {"problem": str(error.strerror)}
        try:
            answer, complaint = worker.communicate(json.dumps(task), time_limit)
        except subprocess.TimeoutExpired:
            return {"problem": f"not finished within {time_limit:g} s"}
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
    try:
        return json.loads(answer.rpartition("\n")[2])
    except json.JSONDecodeError:
        last = complaint.strip().rpartition("\n")[2]
        return {"problem": f"the worker ended with status {worker.returncode} and no answer: {last}"}


def figures(table: pd.DataFrame, labels: pd.DataFrame, window: Window | None) -> dict[str, str]:
    """How many have a gap, how many hit the window (Wilson's 95% interval), and how well it was predicted."""
    gaps = table.gap.to_numpy(dtype=float)
    n = int(np.isfinite(gaps).sum())
    found = {"computed": f"{n} of {len(gaps)}", "without a gap": f"{(gaps == 0).sum()} of {n}"}
    if window is not None and n:
        hits = int(window.hits(gaps).sum())
        low, high = binomtest(hits, n).proportion_ci(method="wilson")
        found[f"gap within {window}"] = f"{hits} of {n}, {hits / n:.0%} ({100 * low:.0f} to {high:.0%})"
    for name in labels.columns.intersection(["predicted_band_gap", "judged_band_gap"]):
        predicted = labels[name].to_numpy(dtype=float)
        both = np.isfinite(predicted) & np.isfinite(gaps)
        if both.sum() > 2:
            error, r = np.abs(predicted - gaps)[both].mean(), np.corrcoef(predicted[both], gaps[both])[0, 1]
            found[name] = f"correlation {r:.2f}, mean absolute error {error:.2f} eV, n {both.sum()}"
    return found


if __name__ == "__main__":
    sys.exit(status_of(lambda: tyro.cli(main)))
