"""Crystals of a polymer: chains wound, packed and relaxed, with what is wrong with each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.vdw import vdw_radii
from pymatgen.core import Lattice, Structure

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.symmetry import symmetrise
from autoperi.polymers.conformations import Chain
from autoperi.polymers.packing import VOLUMES, Packing, packings
from autoperi.polymers.parameters import Parameters, parameters
from autoperi.polymers.relaxed import ROUNDS, Relaxed, near_pairs, relaxed
from autoperi.polymers.repeat_unit import PolymerError, RepeatUnit
from autoperi.polymers.winding import chains

_BONDED = 1.25
"""Atoms nearer than this times the sum of their covalent radii are bonded."""
_CLASH = 0.7
"""Atoms of two chains, or far along one, nearer than this times the sum of their radii clash."""
_HYDROGEN_BOND = 1.5
"""Å, the same for hydrogen and nitrogen, oxygen or fluorine."""
_LOOSE = 1.25
"""Times the volume that its atoms have in molecular crystals: what takes more is no crystal."""
_PACKINGS, _KEPT = 6, 4
"""Packings of a chain whose descent is begun, and those of least energy that are brought to rest."""
_SAME = 0.01
"""kcal/mol of a unit: packings of a chain whose energies are nearer are one, that of the smaller cell."""


@dataclass(frozen=True, eq=False)
class PolymerCrystal:
    """A crystal that was built.

    Attributes:
        crystal: its gene and free coordinates, in the standard cell of its space group.
        base: a, b (Å) and gamma (degrees) of its smallest rectangular or else reduced base, across the
            chains; a is the longer.
        period: along the chains, Å.
        chain: units and turns of the helix, or glide.
        packing: how the chains of its cell come from one another.
        energy: of a repeat unit above the best crystal of the polymer, kcal/mol.
        density: g/cm³.
    """

    crystal: Crystal
    base: tuple[float, float, float]
    period: float
    chain: str
    packing: str
    energy: float
    density: float

    def row(self) -> dict[str, str | int | float]:
        """For a table."""
        a, b, gamma = self.base
        return {
            "id": self.crystal.id,
            "smiles": str(self.crystal.provenance["smiles"]),
            "chain": self.chain,
            "packing": self.packing,
            "a": round(a, 3),
            "b": round(b, 3),
            "c": round(self.period, 3),
            "gamma": round(gamma, 1),
            "density": round(self.density, 4),
            "space_group": self.crystal.space_group,
            "atoms": self.crystal.n_atoms,
            "energy": round(self.energy, 3),
        }


def polymer_crystals(name: str, smiles: str, helix: str = "") -> list[PolymerCrystal]:
    """Crystals of a polymer that are whole and without clashes, lowest first.

    Args:
        name: begins their ids.
        smiles: a repeat unit with two attachment points; see `RepeatUnit.of`.
        helix: units and turns, of the shortest unit that repeats, where they are known; see `chains`.

    Raises:
        PolymerError: no repeat unit, or no crystal of it; the text says why.
    """
    unit = RepeatUnit.of(smiles)
    field = parameters(unit)
    found: list[_Found] = []
    faults: list[str] = []
    for chain in chains(unit, field, helix):
        packed = packings(chain, field, not unit.chiral, _PACKINGS)
        begun = [_Found(chain, packing, relaxed(packing, field, ROUNDS[:1])) for packing in packed]
        for one in _distinct([one.finished(field) for one in _distinct(begun)[:_KEPT]]):
            if fault := fault_of(one.at_rest, one.packing, field):
                faults.append(f"{chain.name}, {one.packing.arrangement}: {fault}")
            else:
                found.append(one)
    if not found:
        raise PolymerError(f"expected a crystal of {smiles}: got none, first {faults[0]}")
    found.sort(key=lambda one: one.energy)
    least, about = found[0].energy, {"polymer": name, "smiles": unit.smiles, "made": "built"}
    return [one.crystal(f"{name}-{k}", field, least, about) for k, one in enumerate(found, start=1)]


@dataclass(frozen=True, eq=False)
class _Found:
    chain: Chain
    packing: Packing
    at_rest: Relaxed

    @property
    def energy(self) -> float:
        return self.at_rest.energy

    def finished(self, field: Parameters) -> "_Found":
        begun = replace(self.packing, cell=self.at_rest.cell, positions=self.at_rest.positions)
        return replace(self, at_rest=relaxed(begun, field))

    def crystal(self, name: str, field: Parameters, least: float, about: Mapping[str, str]) -> PolymerCrystal:
        cell, x = self.at_rest.cell, self.at_rest.positions
        numbers = np.tile(field.numbers, x[..., 0, 0].size).tolist()
        structure = Structure(Lattice(cell), numbers, x.reshape(-1, 3), coords_are_cartesian=True)
        crystal = symmetrise(structure)
        return PolymerCrystal(
            replace(crystal, id=name, provenance={**crystal.provenance, **about}),
            base_of(cell),
            float(np.linalg.norm(cell[2])),
            self.chain.name,
            self.packing.arrangement,
            self.energy - least,
            float(structure.density),
        )


def _distinct(found: list[_Found]) -> list[_Found]:
    """Those whose energies differ, lowest first; of equal ones that of the smallest cell."""
    kept: list[_Found] = []
    for one in sorted(found, key=lambda one: (round(one.energy, 2), len(one.at_rest.positions))):
        if all(abs(one.energy - other.energy) > _SAME for other in kept):
            kept.append(one)
    return kept


def fault_of(at_rest: Relaxed, packing: Packing, field: Parameters) -> str:
    """What is wrong with a crystal: bonds other than the repeat unit has, a clash, a void; else nothing."""
    chain_count, units, atoms, _ = at_rest.positions.shape
    first, second, image = near_pairs(at_rest.cell, at_rest.positions.reshape(-1, 3), 4.0)
    place = np.indices((chain_count, units, atoms)).reshape(3, -1)
    apart = (
        place[1, second]
        + units * image[:, 2] * np.array(packing.directions)[place[0, first]]
        - place[1, first]
    )
    same = (place[0, first] == place[0, second]) & (image[:, :2] == 0).all(1) & (abs(apart) <= field.span)
    index = np.clip(apart, -field.span, field.span) + field.span
    bonds = np.where(same, field.near[index, place[2, first], place[2, second]], 4)
    x = at_rest.positions.reshape(-1, 3)
    distance = np.linalg.norm(x[second] + image @ at_rest.cell - x[first], axis=1)
    a, b = field.numbers[place[2, first]], field.numbers[place[2, second]]
    near = distance < _BONDED * (covalent_radii[a] + covalent_radii[b])
    told = lambda k: f"{chemical_symbols[a[k]]} and {chemical_symbols[b[k]]} at {distance[k]:.2f} Å"  # noqa: E731
    if (wrong := np.flatnonzero(near != (bonds == 1))).size:
        return f"{told(wrong[0])} {'are' if bonds[wrong[0]] == 1 else 'are not'} bonded in the repeat unit"
    if (bonds == 1).sum() != len(field.bonds[0]) * chain_count * units:
        return "a bond of the repeat unit is longer than 4 Å"
    polar = ((a == 1) & np.isin(b, (7, 8, 9))) | ((b == 1) & np.isin(a, (7, 8, 9)))
    least = np.where(polar, _HYDROGEN_BOND, _CLASH * (vdw_radii[a] + vdw_radii[b]))
    clash = np.flatnonzero((bonds > 3) & (distance < least))
    if clash.size:
        return f"{told(clash[0])} clash"
    volume = float(abs(np.linalg.det(at_rest.cell))) / (chain_count * units)
    usual = sum(VOLUMES[int(z)] for z in field.numbers)
    loose = f"a unit takes {volume:.0f} Å³, where its atoms usually take {usual:.0f}"
    return loose if volume > _LOOSE * usual else ""


def base_of(cell: np.ndarray) -> tuple[float, float, float]:
    """Lengths (Å), the longer first, and angle (degrees) of a cell seen along its last vector.

    Reduced; where a rectangle of twice the area has the same points at its corners and centre, that one.
    """
    axis = cell[2] / np.linalg.norm(cell[2])
    flat = cell[:2] - np.outer(cell[:2] @ axis, axis)
    ways = [np.array(w) for w in product(range(-4, 5), repeat=2) if w != (0, 0)]
    lengths = sorted(ways, key=lambda w: round(float(np.linalg.norm(w @ flat)), 6))
    a = lengths[0]
    b = next(w for w in lengths if abs(a[0] * w[1] - a[1] * w[0]) == 1)
    for one, other in ((a, b), (a + b, a - b), (a, 2 * b - a), (a, 2 * b + a)):
        u, v = one @ flat, other @ flat
        if abs(u @ v) < np.sin(np.radians(1)) * np.linalg.norm(u) * np.linalg.norm(v):
            return (*sorted((float(np.linalg.norm(u)), float(np.linalg.norm(v))), reverse=True), 90.0)  # type: ignore[return-value]
    u, v = a @ flat, b @ flat
    angle = float(np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))))
    return float(np.linalg.norm(v)), float(np.linalg.norm(u)), max(angle, 180 - angle)
