"""Move the atoms of a crystal with CHGNet and see whether its energy is kept and every atom stays.

Run: python scripts/molecular_dynamics.py --out runs/md                        (rock salt, 10 ps NVE at 300 K)
     python scripts/molecular_dynamics.py --structure my.cif --ensemble nvt --temperature 600 --out runs/hot
     python scripts/molecular_dynamics.py --sampled 3 --out runs/sampled       (crystal 3 of seed 0)
"""

from dataclasses import dataclass, field
from pathlib import Path

import ase.io
import tyro
from ase import Atoms
from ase.build import bulk
from chgnet.model.dynamics import CHGNetCalculator

import autoperi
from autoperi import console
from property_models.dynamics import DynamicsSettings, molecular_dynamics


@dataclass(frozen=True)
class Arguments:
    """A structure file, or a crystal of the generator, or rock salt."""

    out: Path
    structure: Path | None = None
    sampled: int | None = None
    settings: tyro.conf.OmitArgPrefixes[DynamicsSettings] = field(default_factory=DynamicsSettings)


def main(given: Arguments) -> None:
    """Forty atoms or more, so that an atom does not move together with its own images."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    if given.structure:
        atoms = Atoms(ase.io.read(given.structure, index=-1))
    elif given.sampled is not None:
        atoms = autoperi.load("mp_20").sample(given.sampled + 1, 0)[-1].to_ase()
    while len(atoms) < 40:
        shortest = min(range(3), key=lambda axis: atoms.cell.lengths()[axis])
        atoms = atoms.repeat([2 if axis == shortest else 1 for axis in range(3)])
    with console.progress() as bar:
        task = bar.add_task("moving", total=given.settings.steps)
        calculator = CHGNetCalculator(use_device="cpu", verbose=False)
        found = molecular_dynamics(
            atoms, calculator, given.out, given.settings, lambda steps: bar.advance(task, steps)
        )
    console.summary(f"{atoms.get_chemical_formula()}: {given.out}", found.summary())


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
