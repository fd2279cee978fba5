"""Perovskites ABX3 of five atoms: an octahedron of anions around B, A in the cage between octahedra."""

import numpy as np
from pymatgen.core import Structure

from evaluation.classes.verdict import Verdict
from evaluation.metrics.validity import charge_imbalance, contact_ratio

ANIONS = frozenset({"N", "O", "F", "S"})
"""Of Perov-5 (Castelli et al., Energy Environ. Sci. 5, 9034, 2012)."""
CONTACT = 0.6
"""Least contact as a fraction of the sum of covalent radii."""
STRETCH = 1.7
"""Most by which the longest of six bonds of an octahedron exceeds the shortest; 1.67 occurs in Perov-5."""
ACROSS = 120.0
"""Least angle between bonds to opposite corners, degrees; of crystals of Perov-5 99% have 125 and more."""
_CORNERS = 6


def judge(structure: Structure) -> Verdict:
    """Whether a crystal has two cations and three anions, one cation in an octahedron of these.

    ``neutral`` says whether oxidation states can balance (`charge_imbalance`); it is no rule, since Perov-5
    has every pair of cations with every set of anions.
    """
    primitive = structure.get_primitive_structure() if len(structure) > 5 else structure
    if len(primitive) != 5:
        return Verdict(f"{len(primitive)} atoms in the primitive cell, not five")
    anion = np.array([site.specie.symbol in ANIONS for site in primitive])
    if anion.sum() != 3:
        return Verdict(f"{anion.sum()} of five atoms are {', '.join(sorted(ANIONS))}, not three")
    numbers = {"neutral": float(charge_imbalance(primitive.composition) <= 0.1)}
    ratio = contact_ratio(primitive)
    if ratio < CONTACT:
        return Verdict(f"a contact of {ratio:.2f} of the sum of radii, below {CONTACT}", numbers)
    if not any(_octahedral(primitive, anion, b) for b in np.flatnonzero(~anion).tolist()):
        return Verdict("no cation is in an octahedron of six anions, two of each", numbers)
    return Verdict("", numbers)


def _octahedral(structure: Structure, anion: np.ndarray, site: int) -> bool:
    """Whether the six nearest neighbours of a cation are anions, two of each, in three pairs across it."""
    reach = 1.6 * structure.volume ** (1 / 3)
    near = sorted(structure.get_neighbors(structure[site], reach), key=lambda n: n.nn_distance)[:_CORNERS]
    corners = [n.index for n in near]
    if len(near) < _CORNERS or not all(anion[corners]) or any(corners.count(k) != 2 for k in corners):
        return False
    arrows = np.array([(n.coords - structure[site].coords) / n.nn_distance for n in near])
    across = (arrows @ arrows.T).min(axis=1)
    stretched = near[-1].nn_distance / near[0].nn_distance
    return bool(stretched <= STRETCH and across.max() <= np.cos(np.radians(ACROSS)))
