"""Adsorbates: molecules of ASE's g2 set, or atoms, and the energy of the gas they come from."""

from dataclasses import dataclass

import numpy as np
from ase.build import molecule
from ase.collections import g2
from ase.data import chemical_symbols, covalent_radii
from pymatgen.core import Lattice, Structure

from evaluation.relaxation.potential import BatchRelaxer
from evaluation.relaxation.relaxation import RelaxationSettings, relax

_DIATOMIC = ("H", "N", "O", "F", "Cl")
"""Atoms whose gas is a molecule of two."""
_ROOM = 14.0
"""Å that a molecule in a box is kept away from its images."""
_BONDED = 1.25
"""Sums of covalent radii up to which atoms are bonded."""


@dataclass(frozen=True)
class Adsorbate:
    """A rigid molecule about its centre of mass.

    Attributes:
        name: as in ASE's g2 set, or an element.
        numbers: atomic. [atoms]
        positions: Å, about the centre of mass. [atoms, 3]
        gas: energy of one in the gas, eV.
    """

    name: str
    numbers: np.ndarray
    positions: np.ndarray
    gas: float

    @property
    def radius(self) -> float:
        """Root mean square distance from the centre, Å; at least 0.5, so that an atom has one too."""
        return max(0.5, float(np.sqrt((self.positions**2).sum(axis=1).mean())))

    def intact(self, cart: np.ndarray) -> bool:
        """Whether positions [atoms, 3], continuous, still hold its bonds."""
        return bool((bonded(self.numbers, cart) >= bonded(self.numbers, self.positions)).all())

    @classmethod
    def of(cls, name: str, relaxer: BatchRelaxer) -> "Adsorbate":
        """A molecule as the potential would have it in the gas; an atom has half the energy of its molecule.

        Raises:
            ValueError: a name that is none of them, or a molecule that the potential cannot relax.
        """
        if name in _DIATOMIC:
            whole = cls.of(f"{name}2", relaxer)
            return cls(name, whole.numbers[:1], np.zeros((1, 3)), whole.gas / 2)
        if name not in g2.names or len(molecule(name)) == 1:
            raise ValueError(
                f"expected an adsorbate of ASE's g2 set (CO, H2O, CH3OH, ...) or one of "
                f"{', '.join(_DIATOMIC)}: got {name}"
            )
        atoms = molecule(name)
        box = Lattice.orthorhombic(*(np.ptp(atoms.positions, axis=0) + _ROOM))
        gas = Structure(box, atoms.symbols, atoms.positions + _ROOM / 2, coords_are_cartesian=True)
        found = relax(gas, RelaxationSettings(fmax=0.02, max_steps=300, keep_cell=True), relaxer=relaxer)
        cart = found.structure.cart_coords
        centre = atoms.get_masses() @ cart / atoms.get_masses().sum()
        return cls(name, atoms.numbers, cart - centre, found.energy_per_atom * len(atoms))


def bonded(numbers: np.ndarray, cart: np.ndarray) -> np.ndarray:
    """Which pairs of atoms are bonded, [atoms, atoms]."""
    radii = covalent_radii[numbers]
    distances = np.linalg.norm(cart[:, None] - cart, axis=-1)
    return (distances < _BONDED * (radii[:, None] + radii)) & ~np.eye(len(cart), dtype=bool)


def symbols(numbers: np.ndarray) -> list[str]:
    """Of atomic numbers."""
    return [chemical_symbols[z] for z in numbers]
