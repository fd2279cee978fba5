"""Any potential of this room as an ASE calculator: relaxation, dynamics and phonons with ASE's tools."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from autoperi.crystals.crystal import Crystal, CrystalBatch
from property_models.potentials.potential import Potential

_ALONE = 20.0
"""Å of vacuum around what is not periodic: beyond the cutoff of every potential here, so exact."""


class PotentialCalculator(Calculator):
    """Energy (eV) and that of each atom, forces (eV/Å) and stress (eV/Å³, Voigt) of atoms, periodic or not.

    A molecule, or a slab, is put into a cell in which no atom reaches its images; it has no stress.

    Args:
        potential: of this room.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential.eval()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Called by ASE; raises ValueError for elements that the potential does not know."""
        super().calculate(atoms, list(properties), list(system_changes))
        here: Any = self.atoms
        cell = _periodic_cell(here)
        frac = here.get_positions() @ np.linalg.inv(cell)
        crystal = Crystal.without_symmetry(cell, frac, here.numbers)
        # in double precision, which a network of single precision rounds when distances are small numbers
        batch = CrystalBatch.from_crystals([crystal]).to(next(self.potential.parameters()).device)
        with torch.no_grad():
            found = self.potential(batch)
        # rows of the batch's cell are those of ours, turned
        turn = np.linalg.solve(cell, batch.lattice()[0].double().cpu().numpy())
        energies = found.site_energies.double().cpu().numpy()
        energy = float(energies.sum())
        forces = found.forces.double().cpu().numpy() @ turn.T
        self.results = {"energy": energy, "free_energy": energy, "energies": energies, "forces": forces}
        if here.pbc.all():
            stress = turn @ found.stress[0].double().cpu().numpy() @ turn.T
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)


def _periodic_cell(atoms: Atoms) -> np.ndarray:
    """The cell, with room for the atoms and vacuum along what is not periodic."""
    cell = np.array(atoms.cell.complete())
    if atoms.pbc.all():
        return cell
    extent = np.ptp(atoms.get_positions() @ np.linalg.inv(cell), axis=0)
    lengths = np.linalg.norm(cell, axis=1)
    for axis in np.flatnonzero(~atoms.pbc):
        height = 1 / np.linalg.norm(np.linalg.inv(cell)[:, axis])
        cell[axis] *= max(1.0, extent[axis] + _ALONE / height) if lengths[axis] else 1.0
    return cell
