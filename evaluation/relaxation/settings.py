"""When a relaxation has converged and when it is given up; imports nothing, as commands show it as help."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RelaxationSettings:
    """When a relaxation counts as converged, when it gives up, and what it keeps.

    Attributes:
        fmax: longest force left on an atom or a cell vector (ASE's FrechetCellFilter), eV/Å.
        max_steps: FIRE steps after which the relaxation stops unconverged.
        keep_symmetry: keep the space group: the input is symmetrised, and forces and stress are
            projected onto what its operations allow. Faster too, as only one atom, bond and angle
            of each orbit is computed.
        symprec: tolerance at which those operations are found, Å.
        max_seconds: computing time one crystal may take before it is given up as failed.
        trajectory: keep the crystal of every step (`Relaxed.trajectory`).
        pressure: under which the enthalpy is made least, GPa; energies are told without pV.
        keep_cell: move the atoms alone. Those of a structure whose site property ``selective_dynamics`` says
            so stay where they are, which needs a cell that does, and no symmetry that is kept.
    """

    fmax: float = 0.1
    max_steps: int = 500
    keep_symmetry: bool = False
    symprec: float = 0.01
    max_seconds: float = 600.0
    trajectory: bool = False
    pressure: float = 0.0
    keep_cell: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers at which no relaxation could end."""
        if not (0 < self.fmax < math.inf and self.max_steps >= 0 and self.max_seconds >= 0):
            raise ValueError(
                "expected a positive force, and steps and a time limit from 0 up: got fmax "
                f"{self.fmax}, steps {self.max_steps}, time limit {self.max_seconds}"
            )
        if not math.isfinite(self.pressure) or (self.keep_cell and self.pressure):
            raise ValueError(
                f"expected a finite pressure, and none where the cell is kept: got {self.pressure}"
            )

    def __str__(self) -> str:
        """As printed beside every figure."""
        kept = f", space group at {self.symprec} Å kept" if self.keep_symmetry else ""
        moved = "atoms" if self.keep_cell else "atoms and cell"
        pressed = f" at {self.pressure:g} GPa" if self.pressure else ""
        return f"FIRE on {moved}{pressed}, fmax {self.fmax} eV/Å, at most {self.max_steps} steps{kept}"
