"""Move the atoms of a crystal or of molecules and see whether energy is kept and every atom and bond stays.

Run: python scripts/molecular_dynamics.py --out runs/md                        (rock salt, 10 ps NVE at 300 K)
     python scripts/molecular_dynamics.py --path my.cif --ensemble nvt --temperature 600 --out runs/hot
     python scripts/molecular_dynamics.py --molecules H2O CH4 --timestep 0.5 --temperature 600 --out runs/gas
     ... --potential ours for the potential distilled from CHGNet
Molecules (of ASE's g2 set) begin where the forces vanish: in NVE half of the first velocities' temperature is
left to them. They move side by side, out of each other's reach.
"""

import sys
from pathlib import Path
from typing import Literal

import ase.io
import tyro
from ase import Atoms
from ase.build import bulk

from autoperi.cli import status_of
from autoperi.commands import console
from property_models.potentials.calculator import PotentialCalculator
from property_models.potentials.chgnet_potential import CHGNetPotential
from property_models.potentials.distilled import load
from property_models.uses.dynamics import DynamicsSettings, molecular_dynamics, molecules_at_rest


def main(
    out: Path,
    path: Path | None = None,
    molecules: tuple[str, ...] = (),
    potential: Literal["chgnet", "ours"] = "chgnet",
    ensemble: Literal["nve", "nvt"] = "nve",
    picoseconds: float = 10.0,
    timestep: float = 2.0,
    temperature: float = 300.0,
) -> int:
    """Repeat a crystal's cell to forty atoms or more: an atom should not move together with its images."""
    settings = DynamicsSettings(ensemble, picoseconds, timestep, temperature)
    calculator = PotentialCalculator(CHGNetPotential() if potential == "chgnet" else load())
    if molecules:
        atoms = molecules_at_rest(molecules, calculator)
    else:
        atoms = Atoms(ase.io.read(path, index=-1) if path else bulk("NaCl", "rocksalt", a=5.64, cubic=True))
        while len(atoms) < 40:
            atoms = atoms.repeat([2 if axis == atoms.cell.lengths().argmin() else 1 for axis in range(3)])
    with console.progress() as bar:
        task = bar.add_task("moving", total=settings.steps)
        found = molecular_dynamics(atoms, calculator, out, settings, lambda n: bar.advance(task, n))
    for name, one in zip(molecules, found.molecules or (found,), strict=False):
        console.summary(name, one.summary())
    console.summary(f"{atoms.get_chemical_formula()}: {out}", found.summary())
    return 0


if __name__ == "__main__":
    sys.exit(status_of(lambda: tyro.cli(main)))
