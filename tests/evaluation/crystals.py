"""Well-known crystals with published lattice constants, built here so that no test needs data."""

from functools import cache

import numpy as np
from pymatgen.core import Lattice, Structure

FACES = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def centred(offsets):
    """Positions of a face-centred cell, site by site."""
    return [[(f + o) % 1 for f, o in zip(face, offset, strict=True)] for offset in offsets for face in FACES]


def rocksalt(cation="Na", anion="Cl", a=5.64):
    species = [cation] * 4 + [anion] * 4
    return Structure(Lattice.cubic(a), species, centred([[0, 0, 0], [0.5] * 3]))


def perovskite(a_site="Sr", b_site="Ti", a=3.905):
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Structure(Lattice.cubic(a), [a_site, b_site, "O", "O", "O"], sites)


def rutile():
    u, v = 0.3053, 0.1947
    oxygen = [[u, u, 0], [-u, -u, 0], [0.5 + u, v, 0.5], [v, 0.5 + u, 0.5]]
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], *oxygen]
    return Structure(Lattice.tetragonal(4.594, 2.959), ["Ti"] * 2 + ["O"] * 4, sites)


def diamond(element="Si", a=5.431):
    return Structure(Lattice.cubic(a), [element] * 8, centred([[0, 0, 0], [0.25] * 3]))


def wurtzite():
    u = 0.382
    zinc = [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5]]
    oxygen = [[1 / 3, 2 / 3, u], [2 / 3, 1 / 3, 0.5 + u]]
    return Structure(Lattice.hexagonal(3.25, 5.207), ["Zn"] * 2 + ["O"] * 2, zinc + oxygen)


@cache
def _zoo():
    return rocksalt(), perovskite(), rutile(), diamond(), wurtzite(), rocksalt("Mg", "O", 4.21)


def zoo():
    return [crystal.copy() for crystal in _zoo()]


def disguised(structure, seed):
    """The same crystal: rotated, shifted, atoms reordered, in another cell of twice the volume."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    frac = structure.frac_coords + rng.random(3)
    order = rng.permutation(len(structure))
    other = Structure(
        structure.lattice.matrix @ rotation.T,
        [structure.species[k] for k in order],
        frac[order],
        to_unit_cell=True,
    )
    scaling = [[1, int(rng.integers(-1, 2)), 0], [0, 1, 0], [0, int(rng.integers(-1, 2)), 2]]
    return other.make_supercell(scaling, in_place=False)
