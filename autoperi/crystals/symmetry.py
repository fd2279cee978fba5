"""Symmetrise: a structure as its gene, species and free coordinates, and back."""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from moyopy import Cell, MoyoDataset, Setting

from autoperi.crystals.crystal import MAX_Z, Crystal
from autoperi.crystals.lattice import constrain_lattice, coords_from_lattice
from autoperi.crystals.wyckoff import wyckoff_table

if TYPE_CHECKING:
    from pymatgen.core import Structure


# moyo warns of every supercell and of every atom that it moves, which is what it is asked to do here
logging.getLogger("moyo").setLevel(logging.ERROR)


class SymmetriseError(ValueError):
    """A structure that cannot be written as gene and free coordinates; the text says why."""


_WIDTHS, _NEEDLE = 12.0, 1.4
"""Shortest vector over the tolerance, and longest times the tolerance over the shortest squared, within which
searches end; they have been seen to go on from 1.8."""


@dataclass(frozen=True)
class SymmetriseConfig:
    """Tolerances of the symmetry search.

    Attributes:
        symprec: first tolerance in Å; 0.1 is what the field uses on MP-20.
        tightening: factor by which it shrinks while the symmetrised crystal does not match the input.
        max_move: largest displacement of an atom by symmetrisation that still counts as a match, in Å.
        min_distance: two atoms closer than this (Å) are an overlap and an error.
    """

    symprec: float = 0.1
    tightening: float = 0.3
    max_move: float = 0.3
    min_distance: float = 0.4


def symmetrise(structure: "Structure", config: SymmetriseConfig | None = None) -> Crystal:
    """Gene, species, free and lattice coordinates of an ordered structure.

    A structure without symmetry becomes space group 1 with every atom its own site. The tolerance that
    was really used is in ``provenance["symprec"]``.

    Raises:
        SymmetriseError: partial occupancy, unknown element, overlapping atoms, no atoms, a cell without
            volume, or no tolerance at which the rebuilt crystal matches the input.
    """
    config = config or SymmetriseConfig()
    lattice, positions, numbers = _arrays(structure)
    _refuse_overlaps(structure, config.min_distance)
    symprec, failure = config.symprec, ""
    while symprec > 1e-5:
        try:
            crystal, move = _at_tolerance(lattice, positions, numbers, symprec)
            if move <= config.max_move:
                return replace(crystal, provenance={"symprec": symprec})
            failure = f"atoms would move by {move:.2f} Å"
        except _NoMatchError as error:
            failure = str(error)
        symprec *= config.tightening
    raise SymmetriseError(f"no tolerance from {config.symprec} to 1e-5 Å gives a matching crystal: {failure}")


def as_found(crystal: Crystal, symprecs: tuple[float, ...] = (1e-4, 1e-2)) -> Crystal:
    """The crystal under the space group and in the primitive cell that it really has.

    It is the same one where a symmetry search finds its own group and cell at every tolerance (Å). Where it
    finds another, most often a supergroup or a smaller cell, the crystal is symmetrised at that tolerance.

    Raises:
        SymmetriseError: the other group does not give the crystal back.
    """
    lattice, positions, numbers = crystal.expand()
    for symprec in symprecs:
        if not searchable(lattice, symprec):
            raise SymmetriseError(f"the cell is too narrow for a symmetry search at {symprec} Å")
        try:
            found = MoyoDataset(Cell(lattice.tolist(), positions.tolist(), numbers.tolist()), symprec=symprec)
        except (ValueError, RuntimeError) as error:
            raise SymmetriseError(f"symmetry search failed at {symprec} Å ({error})") from error
        if (found.number, len(found.prim_std_cell.numbers)) != (crystal.space_group, crystal.n_atoms):
            other = symmetrise(crystal.to_structure(), SymmetriseConfig(symprec=symprec))
            kept = {**crystal.provenance, "declared_gene": crystal.gene}
            return replace(other, id=crystal.id, properties=crystal.properties, provenance=kept)
    return crystal


def searchable(lattice: np.ndarray, symprec: float) -> bool:
    """Whether a symmetry search in a cell (rows, Å) ends: moyopy's goes on for ever in a needle.

    That is a reduced cell with a vector near the tolerance, or one so long that a turn by the tolerance
    across the shortest vector moves its end by about that vector.
    """
    lengths, volume = np.linalg.norm(lattice, axis=1), abs(np.linalg.det(lattice))
    if not volume > 0:
        return False
    # a lattice vector is never shorter than the lowest height of the cell: most need no reduction
    heights = volume / lengths.prod() * lengths.min()
    if _ends(heights, lengths.max(), symprec):
        return True
    from pymatgen.core import Lattice

    reduced = Lattice(lattice).get_lll_reduced_lattice().abc
    return _ends(min(reduced), max(reduced), symprec)


def _ends(shortest: float, longest: float, symprec: float) -> bool:
    return bool(shortest >= _WIDTHS * symprec and symprec * longest <= _NEEDLE * shortest**2)


class _NoMatchError(Exception):
    pass


def _arrays(structure: "Structure") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(structure) == 0:
        raise SymmetriseError("expected a structure with atoms: got none")
    if not structure.is_ordered:
        site = next(s for s in structure if not s.is_ordered)
        raise SymmetriseError(
            f"expected fully occupied sites: got {site.species_string} at {np.round(site.frac_coords, 3)}; "
            "order the structure first (pymatgen OrderDisorderedStructureTransformation)"
        )
    numbers = np.array([getattr(s.specie, "Z", 0) for s in structure])
    if numbers.min() < 1 or numbers.max() > MAX_Z:
        bad = next(s for s, z in zip(structure, numbers, strict=True) if not 1 <= z <= MAX_Z)
        raise SymmetriseError(f"expected elements with Z from 1 to {MAX_Z}: got {bad.species_string!r}")
    lattice = np.array(structure.lattice.matrix)
    if not (np.isfinite(lattice).all() and abs(np.linalg.det(lattice)) > 0.1):
        raise SymmetriseError(f"expected a cell of at least 0.1 Å³: got lattice {lattice.tolist()}")
    positions = np.array(structure.frac_coords)
    if not np.isfinite(positions).all():
        raise SymmetriseError("expected finite coordinates: got NaN or infinity")
    return lattice, positions, numbers


def _refuse_overlaps(structure: "Structure", min_distance: float) -> None:
    first, second, _, distances = structure.get_neighbor_list(min_distance)
    if len(distances):
        i, j = int(first[0]), int(second[0])
        raise SymmetriseError(
            f"expected atoms at least {min_distance} Å apart: got {structure[i].species_string} (site {i}) "
            f"and {structure[j].species_string} (site {j}) {distances[0]:.2f} Å apart; remove duplicate atoms"
        )


def _at_tolerance(
    lattice: np.ndarray, positions: np.ndarray, numbers: np.ndarray, symprec: float
) -> tuple[Crystal, float]:
    """The crystal found at one tolerance and how far symmetrisation moved the atoms, in Å."""
    if not searchable(lattice, symprec):
        raise _NoMatchError(f"the cell is too narrow for a search at {symprec:g} Å")
    try:
        data = MoyoDataset(
            Cell(lattice.tolist(), positions.tolist(), numbers.tolist()),
            symprec=symprec,
            setting=Setting.standard(),
        )
    except (ValueError, RuntimeError) as error:
        raise _NoMatchError(f"symmetry search failed ({error})") from error
    table = wyckoff_table()
    number = data.number
    cell = table.primitive[number].numpy()
    std = np.array(data.std_cell.basis)
    prim = data.prim_std_cell
    # atoms of the primitive cell in our own primitive basis
    conventional = np.array(prim.positions) @ np.array(prim.basis) @ np.linalg.inv(std)
    atoms = conventional @ np.linalg.inv(cell).T
    species = np.array(prim.numbers)
    orbit_of = np.zeros(len(atoms), int)
    letter_of = [""] * len(atoms)
    # each attribute of the data set is a new list: take it once
    primitive_atom, orbits, letters = data.mapping_std_prim, data.orbits, data.wyckoffs
    for i, j in enumerate(primitive_atom):
        orbit_of[j] = primitive_atom[orbits[i]]
        letter_of[j] = letters[i]
    sites = []
    for orbit in np.unique(orbit_of):
        members = np.flatnonzero(orbit_of == orbit)
        position = table.index(number, letter_of[members[0]])
        free = _free_coordinates(position, atoms[members], cell.T @ std)
        sites.append((position, int(species[members[0]]), free))
    sites.sort(key=lambda site: (site[0], site[1], *site[2]))
    raw = coords_from_lattice(_tensor(std)[None])
    coords = constrain_lattice(raw, table.family[number : number + 1])
    crystal = Crystal(
        space_group=number,
        wyckoff=np.array([p for p, _, _ in sites]),
        species=np.array([z for _, z, _ in sites]),
        free=np.array([s for _, _, s in sites]),
        lattice_coords=coords[0].numpy(),
    )
    if crystal.n_atoms != len(atoms):
        raise _NoMatchError(f"orbits give {crystal.n_atoms} atoms, the cell has {len(atoms)}")
    return crystal, _displacement(data, positions, lattice, symprec)


def _tensor(array: np.ndarray):
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def _free_coordinates(position: int, members: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The s of the first atom of an orbit that lies on the representative set; checks the whole orbit."""
    table = wyckoff_table()
    dim = int(table.dim[position])
    y = (members - table.origin[position].numpy()) @ table.to_free[position].numpy().T
    off = np.abs(y - np.round(y))[:, dim:].max(axis=1, initial=0.0)
    best = int(off.argmin())
    free = np.zeros(3)
    free[:dim] = y[best, :dim] % 1.0
    rows = slice(*table.orbit_start[position : position + 2].tolist())
    site = table.origin[position].numpy() + table.basis[position].numpy() @ free
    orbit = table.orbit_rotation[rows].numpy() @ site + table.orbit_shift[rows].numpy()
    difference = orbit[:, None] - members[None]
    distances = np.linalg.norm((difference - np.round(difference)) @ cell, axis=-1)
    worst = distances.min(axis=1).max() if len(orbit) == len(members) else np.inf
    if worst > 1e-2:
        raise _NoMatchError(f"an orbit is rebuilt with an error of {worst:.3f} Å")
    return free


def _displacement(data: MoyoDataset, positions: np.ndarray, lattice: np.ndarray, symprec: float) -> float:
    """Largest move of an atom between input and refined cell, up to a common shift, in Å."""
    linear, shift = np.array(data.prim_std_linear), np.array(data.prim_std_origin_shift)
    selected = (positions - shift) @ np.linalg.inv(linear).T
    refined = np.array(data.prim_std_cell.positions)[data.mapping_std_prim]
    difference = selected - refined
    difference -= np.round(difference)
    cell = linear.T @ lattice
    strain = np.abs(
        np.linalg.norm(np.array(data.prim_std_cell.basis), axis=1) / np.linalg.norm(cell, axis=1) - 1
    )
    if strain.max() > 0.05:
        raise _NoMatchError(f"cell lengths would change by {100 * strain.max():.1f}% at symprec {symprec}")
    return float(np.linalg.norm(difference @ cell, axis=1).max())
