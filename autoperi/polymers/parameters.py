"""Parameters of an infinite chain: of MMFF94, from RDKit, for a unit within an oligomer, and of DREIDING."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from autoperi.polymers.repeat_unit import PolymerError, RepeatUnit, joined

with suppress(ImportError):
    from rdkit import Chem  # type: ignore
    from rdkit.Chem import rdForceFieldHelpers  # type: ignore

_DREIDING = {
    1: (3.195, 0.0152),
    6: (3.8983, 0.0951),
    7: (3.6621, 0.0774),
    8: (3.4046, 0.0957),
    9: (3.4720, 0.0725),
    14: (4.27, 0.3100),
    15: (4.1500, 0.3200),
    16: (4.0300, 0.3440),
    17: (3.9503, 0.2833),
    35: (3.9500, 0.3700),
    53: (4.1500, 0.5100),
}
"""Distance (Å) and depth (kcal/mol) of the 12-6 potential by element (Mayo, Olafson and Goddard, J. Phys.
Chem. 94, 8897, 1990); those of two elements are geometric means."""
REACH = 5
"""Backbone atoms on either side on which parameters of an atom may depend."""


@dataclass(frozen=True, eq=False)
class Parameters:
    """Terms of one unit of a chain, each term once, in kcal/mol, Å and degrees.

    Atoms of a term are numbered through this unit and those that follow: unit times `n_atoms` plus atom.

    Attributes:
        numbers, masses, charges: of the unit's atoms, [atoms].
        bonds: [bonds, 2] with constant and length, [bonds, 2].
        angles: [angles, 3] with constant, angle, whether linear, both stretch-bend constants and both bond
            lengths, [angles, 7].
        planes: out of plane: end, centre, end, and the atom that leaves it, [planes, 4], [planes, 1].
        torsions: [torsions, 4] with V1, V2, V3, [torsions, 3].
        radius, depth: of the van der Waals term between atoms three bonds apart, [atoms, atoms].
        far_radius, far_depth: of atoms that are farther apart, or of two chains, [atoms, atoms].
        near: bonds between an atom of this unit and one of the unit so many further, 4 for more;
            [2 span + 1, atoms, atoms], this unit in the middle.
        span: units that terms reach beyond this one.
    """

    numbers: np.ndarray
    masses: np.ndarray
    charges: np.ndarray
    bonds: tuple[np.ndarray, np.ndarray]
    angles: tuple[np.ndarray, np.ndarray]
    planes: tuple[np.ndarray, np.ndarray]
    torsions: tuple[np.ndarray, np.ndarray]
    radius: np.ndarray
    depth: np.ndarray
    far_radius: np.ndarray
    far_depth: np.ndarray
    near: np.ndarray
    span: int

    @property
    def n_atoms(self) -> int:
        """Of a unit."""
        return len(self.numbers)


def oligomer(unit: RepeatUnit, units: int) -> tuple["Chem.Mol", np.ndarray]:
    """A chain of units with hydrogen at its ends, and its atoms, [units, atoms]."""
    chain = joined([unit.mol] * units)
    kept = [atom.GetIdx() for atom in unit.mol.GetAtoms() if atom.GetAtomicNum()]
    place = {number: k for k, number in enumerate(kept)}
    table = np.zeros((units, len(kept)), int)
    for atom in chain.GetAtoms():
        if atom.GetAtomicNum() == 0:
            atom.SetAtomicNum(1)
            atom.SetAtomMapNum(0)
        else:
            table[atom.GetIntProp("unit"), place[atom.GetIntProp("atom")]] = atom.GetIdx()
    Chem.SanitizeMol(chain)
    return chain, table


def parameters(unit: RepeatUnit) -> Parameters:
    """Parameters of a chain of units.

    Raises:
        PolymerError: surroundings of an atom that MMFF94 does not know, or a unit that it charges.
    """
    span = -(-REACH // len(unit.backbone))
    chain, table = oligomer(unit, 2 * span + 1)
    field = rdForceFieldHelpers.MMFFGetMoleculeProperties(chain)
    if field is None:
        raise PolymerError(f"expected surroundings of atoms that MMFF94 knows: got {unit.smiles}")
    found = _Reader(chain, table, field, span).parameters()
    if abs(found.charges.sum()) > 0.01:
        raise PolymerError(
            f"expected surroundings of atoms that MMFF94 knows: it gives {unit.smiles} a charge of "
            f"{found.charges.sum():.1f}"
        )
    return found


class _Reader:
    def __init__(self, chain: "Chem.Mol", table: np.ndarray, field: Any, span: int) -> None:
        self.chain, self.table, self.field, self.span = chain, table, field, span
        self.n = table.shape[1]
        self.flat = np.full(chain.GetNumAtoms(), -1)
        self.flat[table.ravel()] = np.arange(table.size)
        self.linked = [[n.GetIdx() for n in atom.GetNeighbors()] for atom in chain.GetAtoms()]

    def own(self, atoms: tuple[int, ...]) -> list[int] | None:
        """The numbers of a term's atoms; None for a term of another unit, or with an end of the chain."""
        numbers = self.flat[list(atoms)]
        first = numbers.min() // self.n
        return None if numbers.min() < 0 or first != self.span else (numbers - self.span * self.n).tolist()

    def table_of(self, rows: Sequence[tuple[list[int], Sequence[float]]], atoms: int, numbers: int):
        index = np.array([row[0] for row in rows], int).reshape(-1, atoms)
        return index, np.array([row[1] for row in rows], float).reshape(-1, numbers)

    def length(self, i: int, j: int) -> tuple[float, float]:
        return self.field.GetMMFFBondStretchParams(self.chain, i, j)[1:]

    def parameters(self) -> Parameters:
        middle, span = self.table[self.span], self.span
        pairs = [[self.field.GetMMFFVdWParams(int(i), int(j))[2:] for j in self.table[-1]] for i in middle]
        radius, depth = np.moveaxis(np.array(pairs), 2, 0)
        far = Chem.GetDistanceMatrix(self.chain)[np.ix_(middle, self.table.ravel())]
        near = np.minimum(far, 4).reshape(self.n, 2 * span + 1, self.n).transpose(1, 0, 2)
        atoms = [self.chain.GetAtomWithIdx(int(i)) for i in middle]
        own = np.array([_DREIDING[atom.GetAtomicNum()] for atom in atoms])
        return Parameters(
            numbers=np.array([atom.GetAtomicNum() for atom in atoms]),
            masses=np.array([atom.GetMass() for atom in atoms]),
            charges=np.array([self.field.GetMMFFPartialCharge(int(i)) for i in middle]),
            bonds=self.bonds(),
            angles=self.angles(),
            planes=self.planes(),
            torsions=self.torsions(),
            radius=radius,
            depth=depth,
            far_radius=np.sqrt(np.multiply.outer(own[:, 0], own[:, 0])),
            far_depth=np.sqrt(np.multiply.outer(own[:, 1], own[:, 1])),
            near=near.astype(int),
            span=span,
        )

    def bonds(self):
        ends = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in self.chain.GetBonds()]
        return self.table_of([(own, self.length(*e)) for e in ends if (own := self.own(e))], 2, 2)

    def angles(self):
        rows = []
        for j, linked in enumerate(self.linked):
            for i, k in combinations(linked, 2):
                if own := self.own((i, j, k)):
                    _, constant, angle = self.field.GetMMFFAngleBendParams(self.chain, i, j, k)
                    mixed = self.field.GetMMFFStretchBendParams(self.chain, i, j, k) or (0, 0.0, 0.0)
                    lengths = self.length(i, j)[1], self.length(j, k)[1]
                    rows.append((own, [constant, angle, angle > 179.9, *mixed[1:], *lengths]))
        return self.table_of(rows, 3, 7)

    def planes(self):
        rows = []
        for j, linked in enumerate(self.linked):
            if len(linked) != 3:
                continue
            for l in linked:  # noqa: E741
                i, k = (other for other in linked if other != l)
                constant = self.field.GetMMFFOopBendParams(self.chain, i, j, k, l)
                if constant and (own := self.own((i, j, k, l))):
                    rows.append((own, [constant]))
        return self.table_of(rows, 4, 1)

    def torsions(self):
        rows = []
        for bond in self.chain.GetBonds():
            j, k = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            for i in self.linked[j]:
                for l in self.linked[k]:  # noqa: E741
                    if len({i, j, k, l}) == 4 and (own := self.own((i, j, k, l))):
                        found = self.field.GetMMFFTorsionParams(self.chain, i, j, k, l)
                        if found is not None and any(found[1:]):
                            rows.append((own, found[1:]))
        return self.table_of(rows, 4, 3)
