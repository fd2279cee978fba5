"""Does spglib find the declared space group, or a supergroup, in every sampled crystal?

Run: autoperi sample --n 1000 --out samples && python scripts/checks/sampled_symmetry.py samples
"""

from pathlib import Path

import numpy as np
import spglib
import tyro
from moyopy import operations_from_number
from rich.progress import track

from autoperi.data.files import read_crystals


def main(path: tyro.conf.Positional[Path], symprec: float = 0.01) -> None:
    """A supergroup holds every operation of the declared group: their number must divide the found one's."""
    same = higher = 0
    crystals = read_crystals(path)
    for crystal in track(crystals, "symmetry"):
        lattice, positions, species = (array.tolist() for array in crystal.expand())
        found = spglib.get_symmetry_dataset((lattice, positions, species), symprec=symprec)
        if found is None:
            print(f"{crystal.id}: declared {crystal.gene}, nothing found")
            continue
        declared = operations_from_number(crystal.space_group, primitive=True).num_operations
        if found.number == crystal.space_group:
            same += 1
        elif len(found.rotations) % declared == 0:
            higher += 1
        else:
            print(f"{crystal.id}: declared {crystal.gene}, found {found.number}")
    share = np.array([same, higher, same + higher]) / len(crystals)
    found = f"declared {share[0]:.1%}, supergroup {share[1]:.1%}, both {share[2]:.1%}"
    print(f"n {len(crystals)} symprec {symprec}: {found}")


if __name__ == "__main__":
    tyro.cli(main)
