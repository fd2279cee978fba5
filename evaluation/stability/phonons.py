"""Phonons of a crystal by finite displacements and a potential: dynamic stability, harmonic free energy."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from ase.units import _e, _hplanck, kB
from pymatgen.core import Element, Structure

from autoperi.data.cache import required
from evaluation.relaxation.operations import Operations
from evaluation.relaxation.potential import BatchRelaxer, Potential
from evaluation.relaxation.settings import RelaxationSettings

_QUANTUM = 1e12 * _hplanck / _e  # eV of a THz
_VANISHING = 0.01  # THz


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
            They count at wave vectors that fit into the supercell, and at halves of the reciprocal ones.
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
            f"-{self.tolerance:g} THz at wave vectors that fit into the supercell and at halves"
        )


@dataclass(frozen=True)
class Spectrum:
    """Phonon frequencies of a primitive cell on a mesh of wave vectors.

    Attributes:
        frequencies: THz, those of imaginary phonons negative. [wave vectors, 3 atoms]
        weights: of the wave vectors, which add up to 1. [wave vectors]
        decisive: least frequency, THz, at the wave vectors that fit into the supercell, which the forces
            determine, and at halves of the reciprocal vectors, where octahedra tilt and which odd supercells
            lack. What is imaginary elsewhere alone, near Γ most often, the interpolation may have invented.
    """

    frequencies: np.ndarray
    weights: np.ndarray
    decisive: float

    @property
    def interpolated(self) -> float:
        """The least frequency on the mesh, THz."""
        return float(self.frequencies.min())

    def free_energy(self, temperatures: np.ndarray) -> np.ndarray:
        """Harmonic free energy, zero-point energy included, eV a cell; [temperatures] in K.

        Frequencies that vanish are left out; those that are imaginary count as if they were real.
        """
        rows, _ = kept = np.nonzero(np.abs(self.frequencies) > _VANISHING)
        quanta, weights = _QUANTUM * np.abs(self.frequencies[kept]), self.weights[rows]
        thermal = kB * np.maximum(temperatures, 1e-3)[:, None]  # at 0 K the second term vanishes
        return (quanta / 2 + thermal * np.log1p(-np.exp(-quanta / thermal))) @ weights


def least_frequency(
    structure: Structure, relaxer: BatchRelaxer, settings: PhononSettings = PhononSettings()
) -> float:
    """The least phonon frequency of `spectrum` that decides, THz; negative if imaginary."""
    return spectrum(structure, relaxer, settings).decisive


def spectrum(
    structure: Structure, relaxer: BatchRelaxer, settings: PhononSettings = PhononSettings()
) -> Spectrum:
    """The phonons of a crystal on a mesh of wave vectors.

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
        masses=[
            float(Element(site.specie.symbol).atomic_mass) for site in structure
        ],  # phonopy's table ends with uranium
    )
    times = repeats(structure, settings)
    phonons = Phonopy(cell, np.diag(times), primitive_matrix="P", symprec=1e-3)
    phonons.generate_displacements(distance=settings.displacement)
    supercells = phonons.supercells_with_displacements or []
    phonons.forces = np.array(list(_forces(supercells, relaxer.load("cpu"))))
    phonons.produce_force_constants(show_drift=False)
    phonons.symmetrize_force_constants(show_drift=False)
    mesh = np.maximum(1, np.round(settings.spacing / np.array(structure.lattice.abc))).astype(int)
    phonons.run_mesh(mesh, is_gamma_center=True)
    assert isinstance(phonons.mesh, Mesh)
    frequencies, weights = np.array(phonons.mesh.frequencies), np.array(phonons.mesh.weights, dtype=float)
    phonons.run_qpoints(np.concatenate([_grid(times), _grid(np.full(3, 2))]))
    assert phonons.qpoints is not None
    decisive = float(np.min(phonons.qpoints.frequencies))
    return Spectrum(frequencies, weights / weights.sum(), decisive)


def _grid(divisions: np.ndarray) -> np.ndarray:
    """Wave vectors of a mesh that holds Γ, [wave vectors, 3]."""
    return np.stack(np.meshgrid(*(np.arange(n) / n for n in divisions)), axis=-1).reshape(-1, 3)


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
