"""Could it be written down and could it exist: density, volume and a round trip through CIF."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from io import StringIO

import numpy as np
from pymatgen.core import Structure

from evaluation.distribution import density

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

    Written in P1, all sites listed. The same species in the same order, cell lengths and positions
    within 0.01 Å, are expected; sites that a reader merges or rejects as overlapping fail.
    """
    from pymatgen.io.cif import CifParser, CifWriter

    try:
        text = str(CifWriter(structure))
        (back,) = CifParser(StringIO(text)).parse_structures(primitive=False, on_error="raise")
    except Exception:
        return False
    if list(back.atomic_numbers) != list(structure.atomic_numbers):
        return False
    if np.abs(np.subtract(back.lattice.abc, structure.lattice.abc)).max() > _SHIFT:
        return False
    shift = back.frac_coords - structure.frac_coords
    moved = back.lattice.get_cartesian_coords(shift - np.round(shift))
    # Angles are checked through the cell: an angle off by δ moves its far corner by about δ |a|.
    corners = np.abs(_gram(back) - _gram(structure)).max() / max(structure.lattice.abc)
    return bool(np.linalg.norm(moved, axis=1).max() <= _SHIFT and corners <= _SHIFT)


def cif_round_trips(structures: Sequence[Structure], workers: int = 1) -> list[bool]:
    """`cif_round_trip` of every crystal, in order, shared among processes."""
    if workers <= 1:
        return [_quietly(s) for s in structures]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(_quietly, structures, chunksize=32))


def _quietly(structure: Structure) -> bool:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cif_round_trip(structure)


def _gram(structure: Structure) -> np.ndarray:
    return structure.lattice.matrix @ structure.lattice.matrix.T
