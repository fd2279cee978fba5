"""Move the atoms of a crystal and see whether its energy is kept and every atom stays.

Run: python scripts/molecular_dynamics.py --out runs/md                        (rock salt, 10 ps NVE at 300 K)
     python scripts/molecular_dynamics.py --path my.cif --ensemble nvt --temperature 600 --out runs/hot
     ... --potential ours for the potential distilled from CHGNet
"""

from pathlib import Path
from typing import Literal

import ase.io
import tyro
from ase import Atoms
from ase.build import bulk
from chgnet.model.dynamics import CHGNetCalculator

from autoperi.commands import console
from property_models.potentials.calculator import PotentialCalculator
from property_models.potentials.distilled import load
from property_models.uses.dynamics import DynamicsSettings, molecular_dynamics


def main(
    out: Path,
    path: Path | None = None,
    potential: Literal["chgnet", "ours"] = "chgnet",
    ensemble: Literal["nve", "nvt"] = "nve",
    picoseconds: float = 10.0,
    timestep: float = 2.0,
    temperature: float = 300.0,
) -> None:
    """Repeat the cell to forty atoms or more: an atom should not move together with its own images."""
    given = ase.io.read(path, index=-1) if path else bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms = Atoms(given)
    while len(atoms) < 40:
        atoms = atoms.repeat([2 if axis == atoms.cell.lengths().argmin() else 1 for axis in range(3)])
    settings = DynamicsSettings(ensemble, picoseconds, timestep, temperature)
    chgnet = potential == "chgnet"
    calculator = CHGNetCalculator(use_device="cpu", verbose=False) if chgnet else PotentialCalculator(load())
    with console.progress() as bar:
        task = bar.add_task("moving", total=settings.steps)
        found = molecular_dynamics(atoms, calculator, out, settings, lambda n: bar.advance(task, n))
    console.summary(f"{atoms.get_chemical_formula()}: {out}", found.summary())


if __name__ == "__main__":
    tyro.cli(main)
