"""Space-group operations of one crystal as permutations of its atoms, and the projections they give.

Row vectors throughout: an operation (W, w) sends the fractional position x to x Wᵀ + w, and the
Cartesian vector v to v Q with Q = L⁻¹ Wᵀ L for a cell L of row vectors.
"""

from dataclasses import dataclass

import moyopy
import numpy as np

from autoperi.crystals.symmetry import searchable

_EXACT = 1e-6  # fractional; how well the operations map a symmetrised crystal onto itself


@dataclass(frozen=True)
class Operations:
    """Operations of a crystal, the identity among them.

    Attributes:
        rotations: W, integer. [operations, 3, 3]
        translations: w. [operations, 3]
        images: atom that each atom is sent to. [operations, atoms]
        shifts: lattice vector t with x_i Wᵀ + w = x_image + t. [operations, atoms, 3]
    """

    rotations: np.ndarray
    translations: np.ndarray
    images: np.ndarray
    shifts: np.ndarray

    def __len__(self) -> int:
        """Number of operations, centring translations included."""
        return len(self.rotations)

    def proper(self) -> "Operations":
        """Rotations alone, no reflections: a subgroup."""
        kept = np.linalg.det(self.rotations) > 0
        return Operations(self.rotations[kept], self.translations[kept], self.images[kept], self.shifts[kept])

    @classmethod
    def identity(cls, n_atoms: int) -> "Operations":
        """No symmetry kept: the identity alone."""
        return cls(
            np.eye(3, dtype=np.int64)[None],
            np.zeros((1, 3)),
            np.arange(n_atoms)[None],
            np.zeros((1, n_atoms, 3), dtype=np.int64),
        )

    @classmethod
    def of_dataset(
        cls, cell: np.ndarray, frac: np.ndarray, numbers: np.ndarray, dataset: moyopy.MoyoDataset
    ) -> "Operations":
        """Those of a moyopy dataset, as permutations of the atoms it was found on."""
        rotations = np.array(dataset.operations.rotations, dtype=np.int64)
        translations = np.array(dataset.operations.translations, dtype=float)
        images, shifts = [], []
        for rotation, translation in zip(rotations, translations, strict=True):
            image, shift = _permutation(cell, frac, numbers, rotation, translation, dataset.symprec)
            images.append(image)
            shifts.append(shift)
        return cls(rotations, translations, np.array(images), np.array(shifts))

    def symmetrised(self, cell: np.ndarray, frac: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest cell and positions on which the operations act exactly.

        The Gram matrix is averaged over the group and the cell follows it without turning; positions
        are averaged over their images.

        Raises:
            ValueError: when the result is still not mapped onto itself.
        """
        gram = cell @ cell.T
        gram = np.einsum("kji,jl,klm->im", self.rotations, gram, self.rotations) / len(self)
        inverse = np.linalg.inv(cell)
        values, vectors = np.linalg.eigh(inverse @ gram @ inverse.T)
        cell = cell @ (vectors * np.sqrt(values)) @ vectors.T
        frac = self._average(frac)
        sent = np.einsum("kij,aj->kai", self.rotations, frac) + self.translations[:, None] - self.shifts
        off = np.abs(sent - frac[self.images]).max()
        if off > _EXACT:
            raise ValueError(f"operations miss the symmetrised atoms by {off:.1e}: use a smaller symprec")
        return cell, frac

    def cartesian(self, cell: np.ndarray) -> np.ndarray:
        """Q of every operation for a cell they leave alone, [operations, 3, 3]."""
        return np.linalg.inv(cell) @ self.rotations.transpose(0, 2, 1) @ cell

    def _average(self, frac: np.ndarray) -> np.ndarray:
        sent = np.einsum("kij,aj->kai", self.rotations, frac) + self.translations[:, None] - self.shifts
        total = np.zeros_like(frac)
        np.add.at(total, self.images, sent)
        return total / len(self)


@dataclass(frozen=True)
class SymmetricCrystal:
    """A crystal on which its operations act exactly.

    Attributes:
        cell: lattice vectors as rows, Å. [3, 3]
        frac: fractional positions. [atoms, 3]
        numbers: atomic numbers. [atoms]
        operations: all of its space group.
    """

    cell: np.ndarray
    frac: np.ndarray
    numbers: np.ndarray
    operations: Operations


def symmetric_crystal(
    cell: np.ndarray, frac: np.ndarray, numbers: np.ndarray, symprec: float
) -> SymmetricCrystal:
    """Find the operations of a crystal by moyopy and remove its deviations from them.

    The cell and the order of the atoms stay, unless the cell is a supercell whose shape breaks the
    point group (1 × 1 × 2 of a cube, say): then the crystal comes back in its primitive cell, where
    all operations can act.

    Args:
        cell: lattice vectors as rows, Å. [3, 3]
        frac: fractional positions. [atoms, 3]
        numbers: atomic numbers. [atoms]
        symprec: how far atoms may be off, Å.

    Raises:
        ValueError: when moyopy finds no answer or its operations do not permute the atoms.
    """
    dataset = _dataset(cell, frac, numbers, symprec)
    primitive = dataset.prim_std_cell
    small = (np.array(primitive.basis), np.array(primitive.positions), np.array(primitive.numbers))
    small_dataset = _dataset(*small, symprec)
    copies = len(numbers) // len(small[2])
    if len(dataset.operations) < copies * len(small_dataset.operations):
        (cell, frac, numbers), dataset = small, small_dataset
    operations = Operations.of_dataset(cell, frac, numbers, dataset)
    return SymmetricCrystal(*operations.symmetrised(cell, frac), numbers, operations)


@dataclass(frozen=True)
class Projection:
    """Onto the displacements and strains that keep every operation.

    Attributes:
        images: as in `Operations`. [operations, atoms]
        turns: Q of every operation, constant while the symmetry is kept. [operations, 3, 3]
    """

    images: np.ndarray
    turns: np.ndarray

    def vectors(self, vectors: np.ndarray) -> np.ndarray:
        """Invariant part of one vector per atom, f_image ← mean f Q, [atoms, 3]."""
        total = np.zeros_like(vectors)
        np.add.at(total, self.images, vectors @ self.turns)
        return total / len(self.turns)

    def tensor(self, tensor: np.ndarray) -> np.ndarray:
        """Invariant part of a second-rank tensor, mean Qᵀ T Q, [3, 3]."""
        return (self.turns.transpose(0, 2, 1) @ tensor @ self.turns).mean(axis=0)


def _dataset(cell: np.ndarray, frac: np.ndarray, numbers: np.ndarray, symprec: float) -> moyopy.MoyoDataset:
    if not searchable(cell, symprec):
        raise ValueError(f"no cell, or too narrow a one for a search at symprec {symprec} Å")
    try:
        moyo_cell = moyopy.Cell(cell.tolist(), frac.tolist(), [int(z) for z in numbers])
        return moyopy.MoyoDataset(moyo_cell, symprec=symprec)
    except Exception as error:  # moyopy's errors derive from Exception only
        raise ValueError(f"moyopy finds no symmetry at symprec {symprec} Å: {error}") from error


def _permutation(
    cell: np.ndarray,
    frac: np.ndarray,
    numbers: np.ndarray,
    rotation: np.ndarray,
    translation: np.ndarray,
    symprec: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Where one operation sends the atoms, and the lattice vectors by which it overshoots."""
    sent = frac @ rotation.T + translation
    difference = sent[:, None] - frac[None]
    whole = np.round(difference)
    distance = np.linalg.norm((difference - whole) @ cell, axis=-1)
    distance[numbers[:, None] != numbers[None]] = np.inf
    image = distance.argmin(axis=1)
    row = np.arange(len(frac))
    if len(np.unique(image)) != len(frac) or distance[row, image].max() > 10 * symprec:
        raise ValueError(f"an operation found at symprec {symprec} Å does not permute the atoms")
    return image, whole[row, image].astype(np.int64)
