"""Worker of `dft_gap.py`: a task as JSON on standard input, the answer as the last line of standard output.

Runs under any Python with ASE, numpy and the package of the calculator, and imports nothing of this project.
"""

import importlib
import json
import os
import signal
import sys
import threading
import time

import numpy as np
from ase import Atoms


def gpaw() -> object:
    """PBE in plane waves up to 340 eV, 2.5 k-points per Å⁻¹ with Γ; twelve empty bands, eight converged."""
    # GPAW's default is as many bands as atomic orbitals: too few to reach above the gap of CaH2
    from gpaw import GPAW, PW  # pyright: ignore[reportMissingImports]

    kpts, bands = {"density": 2.5, "gamma": True}, {"bands": -4}
    return GPAW(mode=PW(340), xc="PBE", kpts=kpts, nbands=-12, convergence=bands, txt=None)


def band_gaps(eigenvalues: np.ndarray, fermi_level: float) -> tuple:
    """Gap and least gap at one k-point of eigenvalues (spin, k-point, band); 0 of a metal; spins may flip."""
    filled = eigenvalues < fermi_level
    if (filled.sum(axis=2) != filled.sum(axis=2)[:, :1]).any():
        return 0.0, 0.0
    top = np.where(filled, eigenvalues, -np.inf).max(axis=(0, 2))
    bottom = np.where(filled, np.inf, eigenvalues).min(axis=(0, 2))
    if not np.isfinite([top, bottom]).all():
        raise ValueError("expected filled and empty bands: ask the calculator for more bands")
    return max(0.0, float(bottom.min() - top.max())), max(0.0, float((bottom - top).min()))


def moments(numbers: np.ndarray) -> np.ndarray:
    """Where a search for magnetism starts, μB an atom: high spin of d and f elements, little of others."""
    d = np.isin(numbers, [*range(21, 30), *range(39, 48), *range(72, 80)])
    f = np.isin(numbers, [*range(57, 72), *range(89, 104)])
    return np.select([f, d], [7.0, 5.0], 0.6)


def answer(task: dict) -> dict:
    """Gaps and energy (eV) of a crystal; of a task without one, which calculator is asked for."""
    module, _, function = task["calculator"].partition(":")
    calculator = getattr(importlib.import_module(module), function)()
    if task.get("numbers") is None:
        package = sys.modules[type(calculator).__module__.partition(".")[0]]
        return {"name": type(calculator).__name__, "version": getattr(package, "__version__", "")}
    atoms = Atoms(task["numbers"], cell=task["cell"], scaled_positions=task["positions"], pbc=True)
    if task["spin"]:
        atoms.set_initial_magnetic_moments(moments(atoms.numbers))
    atoms.calc = calculator
    energy = float(atoms.get_potential_energy())
    points, spins = range(len(calculator.get_ibz_k_points())), range(calculator.get_number_of_spins())
    eigenvalues = [[calculator.get_eigenvalues(kpt=k, spin=s) for k in points] for s in spins]
    gap, direct = band_gaps(np.array(eigenvalues), calculator.get_fermi_level())
    return {"gap": gap, "direct_gap": direct, "energy": energy}


def end_with(parent: int) -> None:
    """End this process, and what it has started, when the one that asked has ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    task = json.load(sys.stdin)
    sys.path.append(task["folder"])
    try:
        found = answer(task)
    except Exception as error:
        found = {"problem": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
    print("\n" + json.dumps(found), end="", flush=True)
