"""Conformations of a chain: torsions of its backbone, and the screw or glide that repeats its units."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from autoperi.polymers.parameters import oligomer
from autoperi.polymers.repeat_unit import PolymerError, RepeatUnit

with suppress(ImportError):
    from rdkit import Chem  # type: ignore
    from rdkit.Chem import rdDistGeom, rdMolTransforms  # type: ignore

SHORTEST_RISE = 0.6
"""Å along the chain per bond of the backbone: coils that rise less do not crystallise."""
_TRIED = 36
_ALL = 100_000
"""Sets of torsions: of more than these, those are tried that differ from the likeliest in one place."""
_STRAIGHT, _MIRRORED = np.radians(25), np.radians(145)
"""A unit that is turned less is shifted alone; a reflection, times -1, is a turn of more."""
Angles = tuple[float | None, ...]


@dataclass(frozen=True, eq=False)
class Chain:
    """A conformation of a chain: its units follow each other along z.

    Attributes:
        unit: positions of a unit's atoms around the axis, Å, [atoms, 3].
        rise: of a unit along the axis, Å.
        turn: of a unit around the axis, radians; of a glide 0.
        glide: whether every second unit is reflected, y to -y.
        units: after which it repeats.
        energy: of a unit, kcal/mol.
    """

    unit: np.ndarray
    rise: float
    turn: float
    glide: bool
    units: int = 1
    energy: float = np.inf

    @property
    def period(self) -> float:
        """Å along the axis."""
        return self.units * self.rise

    @property
    def name(self) -> str:
        """Units and turns of a helix, such as 3/1, or glide."""
        turns = round(self.units * self.turn / (2 * np.pi)) % self.units
        return "glide" if self.glide else f"{self.units}/{max(1, min(turns, self.units - turns))}"

    def positions(self) -> np.ndarray:
        """Of the atoms of all units until it repeats, [units, atoms, 3]."""
        x, rise, turn = (torch.as_tensor(v, dtype=torch.float64) for v in (self.unit, self.rise, self.turn))
        return repeated(x, rise, turn, self.glide, range(self.units)).numpy()


def repeated(x: Tensor, rise: Tensor, turn: Tensor, glide: bool, units: range) -> Tensor:
    """Positions of units by number, [units, atoms, 3]."""
    number = torch.tensor(list(units), dtype=x.dtype)[:, None]
    up = x[:, 2] + number * rise
    if glide:
        return torch.stack([x[:, 0] + 0 * up, x[:, 1] * (1 - 2 * (number % 2)), up], dim=2)
    cos, sin = torch.cos(number * turn), torch.sin(number * turn)
    return torch.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1], up], dim=2)


def conformations(unit: RepeatUnit) -> Iterator[Chain]:
    """Chains with their backbone turned to likely torsions, the likeliest first, not relaxed.

    A unit without centres repeats by a screw or by a glide, and mirror images are left out; one with
    centres by a screw alone, which keeps left left.

    Raises:
        PolymerError: RDKit cannot lay the chain out in space.
    """
    mol, table = oligomer(unit, max(4, -(-6 // len(unit.backbone))))
    if rdDistGeom.EmbedMolecule(mol, randomSeed=7, useRandomCoords=True) < 0:
        raise PolymerError(f"expected a unit that RDKit can lay out in space: got {unit.smiles}")
    kept = [atom.GetIdx() for atom in unit.mol.GetAtoms() if atom.GetAtomicNum()]
    heavy = [k for k, i in enumerate(kept) if unit.mol.GetAtomWithIdx(i).GetAtomicNum() > 1]
    backbone = table[:, [kept.index(i) for i in unit.backbone]]
    way = backbone.ravel().tolist()
    values = [_torsions(mol, way[k], way[k + 1]) for k in range(len(unit.backbone))]
    seen: set[Angles] = set()
    tried = 0
    for angles in _sets(values):
        mirrored = tuple(a if a is None else (-a) % 360 for a in angles)
        if not unit.centres and mirrored in seen:
            continue
        seen.add(angles)
        for glide in (False, True)[: 1 if unit.centres else 2]:
            x = _turned(mol, way, angles, glide)
            chain = _along_z(x, table, backbone, heavy, glide)
            if chain is not None and chain.rise > SHORTEST_RISE * len(unit.backbone):
                tried += 1
                yield chain
        if tried >= _TRIED:
            return


def _sets(values: list[Angles]) -> list[Angles]:
    """Sets of torsions, those that depart from the likeliest in fewer places first."""
    if prod(map(len, values)) <= _ALL:
        numbered = product(*(enumerate(v) for v in values))
        ordered = sorted(numbered, key=lambda way: sum(k > 0 for k, _ in way))
        return [tuple(angle for _, angle in way) for way in ordered]
    first = tuple(v[0] for v in values)
    others = [(i, angle) for i, v in enumerate(values) for angle in v[1:]]
    return [first, *((*first[:i], angle, *first[i + 1 :]) for i, angle in others)]


def _torsions(mol: "Chem.Mol", i: int, j: int) -> Angles:
    """Degrees to which a bond of the backbone may be turned, the likeliest first; None for a fixed one."""
    bond, ends = mol.GetBondBetweenAtoms(i, j), (mol.GetAtomWithIdx(i), mol.GetAtomWithIdx(j))
    linear = any(atom.GetHybridization() == Chem.HybridizationType.SP for atom in ends)
    if bond.IsInRing() or bond.GetBondType() != Chem.BondType.SINGLE or linear:
        return (None,)
    flat = [atom for atom in ends if _flat(atom)]
    if len(flat) == 2:
        return (180.0, 0.0, 45.0, 135.0)
    if not flat:
        return (180.0, 60.0, 300.0)
    aromatic, other = flat[0].GetIsAromatic(), ends[0] if flat[0] is ends[1] else ends[1]
    if other.GetSymbol() in ("C", "Si"):
        return (90.0, 270.0, 180.0) if aromatic else (180.0, 120.0, 240.0, 0.0)
    return (45.0, 135.0, 90.0, 180.0) if aromatic else (180.0,)


def _flat(atom: "Chem.Atom") -> bool:
    double = any(bond.GetBondType() == Chem.BondType.DOUBLE for bond in atom.GetBonds())
    return atom.GetIsAromatic() or (double and atom.GetSymbol() in ("C", "N"))


def _turned(mol: "Chem.Mol", way: list[int], angles: Angles, glide: bool) -> np.ndarray:
    """Positions of an oligomer whose units have these torsions, under a glide by turns with either sign."""
    turned, length = Chem.Mol(mol), len(angles)
    for place in range(1, len(way) - 2):
        if (angle := angles[place % length]) is not None:
            sign = -1 if glide and place // length % 2 else 1
            i, j, k, l = way[place - 1 : place + 3]  # noqa: E741
            rdMolTransforms.SetDihedralDeg(turned.GetConformer(), i, j, k, l, sign * angle)
    return turned.GetConformer().GetPositions()


def _along_z(
    x: np.ndarray, table: np.ndarray, backbone: np.ndarray, heavy: list[int], glide: bool
) -> Chain | None:
    """The chain around the axis of the screw or glide that carries unit to unit; None where none does."""
    middle = len(table) // 2 - 1
    here = np.concatenate([x[table[middle, heavy]], x[backbone[:-1].ravel()]])
    there = np.concatenate([x[table[middle + 1, heavy]], x[backbone[1:].ravel()]])
    rotation, shift = _carried(here, there, -1 if glide else 1)
    centre = here.mean(0)
    step = shift + rotation @ centre - centre
    vector = Rotation.from_matrix(-rotation if glide else rotation).as_rotvec()
    turn = float(np.linalg.norm(vector))
    if glide:
        if turn < _MIRRORED:
            return None
        side = vector / turn
        axis = step - (step @ side) * side
        origin, turn = centre + 0.5 * (step @ side) * side, 0.0
    elif turn < _STRAIGHT:
        side, axis, origin, turn = np.eye(3)[np.abs(step).argmin()], step, centre, 0.0
    else:
        axis = vector if step @ vector > 0 else -vector
        turn = turn if step @ vector > 0 else -turn
        across = step - (step @ axis) / (axis @ axis) * axis
        side, origin = (
            np.eye(3)[np.abs(axis).argmin()],
            centre + np.linalg.pinv(np.eye(3) - rotation) @ across,
        )
    rise = float(step @ axis / np.linalg.norm(axis))
    axis = axis / np.linalg.norm(axis)
    side = side - (side @ axis) * axis
    side = side / np.linalg.norm(side)
    frame = np.stack([np.cross(side, axis), side, axis])
    # off the saddle points of symmetry
    shaken = np.random.default_rng(0).normal(scale=0.02, size=(table.shape[1], 3))
    return Chain((x[table[middle]] - origin) @ frame.T + shaken, rise, turn, glide)


def _carried(here: np.ndarray, there: np.ndarray, handed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (or, handed -1, with a reflection) and shift that carry points best (Kabsch 1976)."""
    a, b = here.mean(0), there.mean(0)
    u, _, v = np.linalg.svd((there - b).T @ (here - a))
    rotation = u @ np.diag([1, 1, handed * np.sign(np.linalg.det(u @ v))]) @ v
    return rotation, b - rotation @ a
