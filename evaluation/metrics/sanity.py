"""Density bounds and CIF round trip."""

import warnings
from collections.abc import Sequence

import numpy as np
from pymatgen.core import Structure

from autoperi.data.workers import mapped
from evaluation.facts.distribution import density

DENSITY_RANGE = (0.01, 25.0)  # g/cm³
ATOM_DENSITY_RANGE = (1e-5, 0.5)  # atoms/Å³
_SHIFT = 0.01  # Å


def density_sane(structure: Structure) -> bool:
    """Whether mass density and atoms per volume lie in the range of solids.

    0.01 to 25 g/cm³ and 10⁻⁵ to 0.5 atoms/Å³, the bounds of LeMat-GenBench (arXiv:2512.04562). All of
    MP-20 passes with room (0.04 to 22.1 g/cm³, at most 0.17 atoms/Å³), so this finds nonsense only.
    """
    volume = structure.volume
    if not np.isfinite(volume) or volume <= 0:
        return False
    atoms = len(structure) / volume
    low, high = DENSITY_RANGE
    return low <= density(structure) <= high and ATOM_DENSITY_RANGE[0] <= atoms <= ATOM_DENSITY_RANGE[1]


def cif_round_trip(structure: Structure) -> bool:
    """Whether pymatgen reads back from a CIF the crystal it wrote there.

    Written in P1, all sites listed. Cell lengths and every site, one to one with a site of the same
    species, are expected within 0.01 Å; sites that a reader merges or rejects as overlapping fail.
    """
    from pymatgen.io.cif import CifParser, CifWriter

    try:
        parser = CifParser.from_str(str(CifWriter(structure)))
        (back,) = parser.parse_structures(primitive=False, on_error="raise")
    except Exception:
        return False
    if len(back) != len(structure):
        return False
    # An angle off by δ moves the far corner of the cell by about δ |a|.
    gram, expected = (s.lattice.matrix @ s.lattice.matrix.T for s in (back, structure))
    if np.abs(gram - expected).max() > _SHIFT * max(structure.lattice.abc):
        return False
    distance = structure.lattice.get_all_distances(structure.frac_coords, back.frac_coords)
    distance[np.not_equal.outer(structure.atomic_numbers, back.atomic_numbers)] = np.inf
    nearest = distance.argmin(axis=1)
    return bool(distance.min(axis=1).max() <= _SHIFT and len(set(nearest)) == len(structure))


def cif_round_trips(structures: Sequence[Structure], workers: int = 1) -> list[bool]:
    """`cif_round_trip` of every crystal, in order, shared among processes."""
    return list(mapped(_quietly, structures, workers, lambda *_: False))


def _quietly(structure: Structure) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cif_round_trip(structure)
