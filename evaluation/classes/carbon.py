"""Carbon: bonds of carbon's lengths, two to four at every atom."""

import numpy as np
from pymatgen.core import Structure

from evaluation.classes.verdict import Verdict

SHORTEST = 1.18
"""Å, a little below a triple bond."""
LONGEST = 1.85
"""Å: neighbours nearer than this are bonded."""
MOST_ATOMS = 1000


def judge(structure: Structure) -> Verdict:
    """Whether a crystal is of carbon alone, every atom with two to four bonds; how many it has on average."""
    if len(structure) > MOST_ATOMS:
        return Verdict(f"more than {MOST_ATOMS} atoms in the cell, which are too many to be judged")
    if {site.specie.symbol for site in structure} != {"C"}:
        return Verdict("not of carbon alone")
    centre, _, _, distance = structure.get_neighbor_list(LONGEST)
    bonds = np.bincount(centre, minlength=len(structure))
    numbers = {"coordination": float(bonds.mean()), "four_bonds": float((bonds == 4).mean())}
    if len(distance):
        numbers["bond"] = float(distance.mean())
    if (distance < SHORTEST).any():
        return Verdict(f"a bond of {distance.min():.2f} Å, below {SHORTEST} Å", numbers)
    if bonds.min() < 2 or bonds.max() > 4:
        return Verdict(
            f"an atom has {bonds.min() if bonds.min() < 2 else bonds.max()} bonds, not 2 to 4", numbers
        )
    return Verdict("", numbers)
