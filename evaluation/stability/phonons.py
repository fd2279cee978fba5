"""Dynamic stability: the least phonon frequency of a crystal by finite displacements and a potential."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from pymatgen.core import Structure

from autoperi.data.cache import required
from evaluation.relaxation.operations import Operations
from evaluation.relaxation.potential import BatchRelaxer, Potential
from evaluation.relaxation.settings import RelaxationSettings


@dataclass(frozen=True)
class PhononSettings:
    """How phonons are computed, and when a crystal counts as dynamically stable.

    Attributes:
        relaxation: before it; forces that are left would pass for springs.
        extent: least height of the supercell, Å.
        most_atoms: of the supercell; the extent gives way to it.
        displacement: of an atom, Å.
        spacing: of the mesh of wave vectors: its divisions are a cell vector's share of this length, Å.
        tolerance: frequencies below minus this are imaginary, THz; what is above may be noise of the forces.
    """

    relaxation: RelaxationSettings = field(
        default_factory=lambda: RelaxationSettings(fmax=0.005, max_steps=1000, keep_symmetry=True)
    )
    extent: float = 9.0
    most_atoms: int = 240
    displacement: float = 0.03
    spacing: float = 40.0
    tolerance: float = 0.1

    def stable(self, frequency: float) -> bool:
        """Whether a least frequency (THz) is not imaginary."""
        return frequency >= -self.tolerance

    def __str__(self) -> str:
        """As printed beside every figure."""
        return (
            f"phonons by displacements of {self.displacement:g} Å in supercells of {self.extent:g} Å, "
            f"{self.most_atoms} atoms at most, after {self.relaxation}; imaginary below "
            f"-{self.tolerance:g} THz"
        )


def least_frequency(
    structure: Structure, relaxer: BatchRelaxer, settings: PhononSettings = PhononSettings()
) -> float:
    """The least phonon frequency on a mesh of wave vectors, THz; that of an imaginary one is negative.

    Force constants are made symmetric and free of drift (acoustic sum rule) by phonopy (Togo,
    J. Phys. Soc. Jpn. 92, 012001, 2023); no correction for long-ranged electric fields is made.

    Args:
        structure: a relaxed primitive cell.
        relaxer: whose forces are taken.
        settings: how.

    Raises:
        ImportError: without phonopy, which the extra ``phonons`` installs.
        ValueError: a supercell that the potential cannot represent.
    """
    required("phonopy", "phonons")
    from phonopy import Phonopy
    from phonopy.phonon.mesh import Mesh
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(
        symbols=[site.specie.symbol for site in structure],
        cell=structure.lattice.matrix,
        scaled_positions=structure.frac_coords,
    )
    phonons = Phonopy(cell, np.diag(repeats(structure, settings)), primitive_matrix="P", symprec=1e-3)
    phonons.generate_displacements(distance=settings.displacement)
    supercells = phonons.supercells_with_displacements or []
    phonons.forces = np.array(list(_forces(supercells, relaxer.load("cpu"))))
    phonons.produce_force_constants(show_drift=False)
    phonons.symmetrize_force_constants(show_drift=False)
    mesh = np.maximum(1, np.round(settings.spacing / np.array(structure.lattice.abc))).astype(int)
    phonons.run_mesh(mesh, is_gamma_center=True)
    assert isinstance(phonons.mesh, Mesh)
    return float(phonons.mesh.frequencies.min())


def repeats(structure: Structure, settings: PhononSettings) -> np.ndarray:
    """How often each cell vector is repeated: to the extent asked for, or as far as the atoms allow."""
    normals = np.linalg.inv(structure.lattice.matrix).T
    heights = 1 / np.linalg.norm(normals, axis=1)
    times = np.ones(3, dtype=int)
    while (heights * times).min() < settings.extent:
        longer = times + (np.arange(3) == np.argmin(heights * times))
        if longer.prod() * len(structure) > settings.most_atoms:
            break
        times = longer
    return times


def _forces(supercells: list, potential: Potential) -> Iterator[np.ndarray]:
    """Forces on the atoms of each displaced supercell, eV/Å, without the mean of each."""
    for one in supercells:
        cart, lattice = np.array(one.positions), np.array(one.cell)
        graph = potential.graph(lattice, cart, np.array(one.numbers), Operations.identity(len(cart)))
        forces = -potential([graph], [cart], [lattice]).gradients
        yield forces - forces.mean(axis=0)
