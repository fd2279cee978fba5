"""Slabs cut from a crystal along a plane, by pymatgen; what cannot stand alone is named."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pymatgen.core import Structure
from pymatgen.core.surface import Slab, SlabGenerator, get_symmetrically_distinct_miller_indices
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from autoperi.data.reading import read_structures

LEAST_VACUUM = 8.0
"""Å: with less the two sides of a slab feel each other through most potentials."""


@dataclass(frozen=True)
class SlabSettings:
    """How slabs are cut.

    Attributes:
        thickness: least, Å.
        vacuum: least empty height between a slab and its image, Å.
        width: least distance between a place and its images along the surface, Å; 0 leaves the cell as
            small as it is.
    """

    thickness: float = 10.0
    vacuum: float = 15.0
    width: float = 0.0

    def __post_init__(self) -> None:
        if not (self.thickness > 0 and self.vacuum >= LEAST_VACUUM and self.width >= 0):
            raise ValueError(
                f"expected a thickness above 0 and a vacuum of {LEAST_VACUUM:g} Å or more, as the sides of a "
                f"slab feel each other through less: got {self.thickness:g} and {self.vacuum:g} Å"
            )


def read_structure(path: str | Path) -> Structure:
    """The one crystal or slab of a file, in the cell that is written there.

    Raises:
        FileNotFoundError, ReadError: nothing there, or a kind of file that is not known.
        ValueError: what is no crystal, or several of them.
    """
    read = read_structures(path)
    if len(read.samples) != 1 or read.failures:
        told = "; ".join(failure.reason for failure in read.failures) or f"{len(read.samples)}"
        raise ValueError(f"expected one crystal in {path}: got {told}")
    return read.samples[0].structure


def miller_index(text: str) -> tuple[int, int, int]:
    """A plane from what people write: ``111``, ``1,-1,0``.

    Raises:
        ValueError: anything but three whole numbers, and 0 0 0, which is no plane.
    """
    try:
        h, k, l = (int(part) for part in (text.split(",") if "," in text else text))  # noqa: E741
    except ValueError:
        raise ValueError(f"expected a Miller index such as 111 or 1,-1,0: got {text}") from None
    if h == k == l == 0:
        raise ValueError("expected a Miller index of a plane: got 0 0 0, which is none")
    return h, k, l


def low_planes(bulk: Structure) -> list[tuple[int, int, int]]:
    """Planes of indices up to 1 that symmetry tells apart."""
    conventional = SpacegroupAnalyzer(bulk).get_conventional_standard_structure()
    return get_symmetrically_distinct_miller_indices(conventional, 1)  # type: ignore[return-value]


def cut(
    bulk: Structure, miller: tuple[int, int, int], settings: SlabSettings = SlabSettings()
) -> tuple[dict[int, Slab], list[str]]:
    """Slabs of a plane's terminations by number, of the bulk's composition, and why others are left out.

    Indices are those of the conventional cell. Slabs of formal charges (pymatgen's guess) with a dipole along
    the normal are left out: alone they would have no finite energy (Tasker, J. Phys. C 12, 4977, 1979).

    Raises:
        ValueError: no plane.
    """
    if not any(miller):
        raise ValueError("expected a Miller index of a plane: got 0 0 0, which is none")
    conventional = SpacegroupAnalyzer(bulk).get_conventional_standard_structure()
    conventional.add_oxidation_state_by_guess()
    generator = SlabGenerator(
        conventional, miller, settings.thickness, settings.vacuum, center_slab=True, primitive=True
    )
    found, left_out = {}, []
    for number, slab in enumerate(generator.get_slabs()):
        if slab.is_polar(tol_dipole_per_unit_area=0.01):
            left_out.append(f"termination {number}: polar, {abs(slab.dipole[2]) / slab.surface_area:.2f} e/Å")
            continue
        slab = slab.get_orthogonal_c_slab()
        slab.remove_oxidation_states()
        slab.make_supercell([*_repeats(slab, settings.width), 1])
        found[number] = slab
    return found, left_out


def slab_for_molecules(bulk: Structure, miller: tuple[int, int, int]) -> Slab:
    """A slab of the first termination that can stand alone, wide enough for a small molecule.

    Raises:
        ValueError: there is none.
    """
    found, left_out = cut(bulk, miller, SlabSettings(thickness=6.0, width=4.2))
    if not found:
        told = "; ".join(left_out) or "pymatgen finds no termination"
        raise ValueError(f"expected a slab of {bulk.reduced_formula} {miller} that can stand alone: {told}")
    return next(iter(found.values()))


def vacuum_of(slab: Structure) -> float:
    """Widest empty height along the normal of the first two cell vectors, Å."""
    heights = np.sort(slab.frac_coords[:, 2] % 1.0)
    gaps = np.diff(heights, append=heights[0] + 1.0)
    return float(gaps.max() * slab.volume / area_of(slab))


def area_of(slab: Structure) -> float:
    """Of one side, Å²."""
    a, b, _ = slab.lattice.matrix
    return float(np.linalg.norm(np.cross(a, b)))


def standing(slab: Structure) -> Structure:
    """A slab with its vacuum across the border of the cell: heights of atoms are then in order.

    Raises:
        ValueError: too little vacuum.
    """
    if (vacuum := vacuum_of(slab)) < LEAST_VACUUM:
        raise ValueError(
            f"expected a slab with a vacuum of {LEAST_VACUUM:g} Å or more along c: the widest gap of "
            f"{slab.reduced_formula} is {vacuum:.1f} Å"
        )
    heights = np.sort(slab.frac_coords[:, 2] % 1.0)
    widest = int(np.diff(heights, append=heights[0] + 1.0).argmax())
    first = heights[(widest + 1) % len(heights)]
    frac = slab.frac_coords % 1.0
    frac[:, 2] = (frac[:, 2] - first + 1e-9) % 1.0
    return Structure(slab.lattice, slab.species, frac)


def _repeats(slab: Structure, width: float) -> list[int]:
    a, b, _ = slab.lattice.matrix
    area = np.linalg.norm(np.cross(a, b))
    heights = area / np.linalg.norm([b, a], axis=1)
    return np.maximum(1, np.ceil(width / heights - 1e-6)).astype(int).tolist()
