"""What edit and interpolate keep, from n crystals of MP-20 test (optimise: checks/optimise.py).

Run: python scripts/checks/seeded_work.py --n 50 --seed 0
Groups by spglib at 0.01 Å: what was to be kept, or a supergroup. Paths lead to others of the gene.
"""

from typing import Any

import numpy as np
import spglib
import tyro

import autoperi
from autoperi.crystals.crystal import Crystal
from autoperi.data.dataset import load_dataset
from autoperi.discovery.seeded import Kept, edited, path
from autoperi.discovery.seeded.edit import deviation
from autoperi.discovery.seeded.normalizer import group_operations

EDITS: dict[str, dict[str, Any]] = {
    "keep species and cell": {"species": True, "cell": True},
    "keep the first site": {"sites": (0,)},
    "redraw species": {"redraw": ("species",)},
    "redraw the cell": {"redraw": ("cell",)},
}


def keeps(crystal: Crystal, group: int) -> bool:
    """Whether a group or a supergroup of it is found."""
    found = spglib.get_symmetry_dataset(tuple(x.tolist() for x in crystal.expand()), symprec=0.01)
    return found is not None and len(found.rotations) % len(group_operations(group)[0]) == 0


def main(n: int = 50, seed: int = 0, others: int = 2000) -> None:
    """Print the figures; paths lead to the first of some other crystals that has the gene."""
    test, generator = load_dataset("mp_20", "test"), autoperi.load()
    order = np.random.default_rng(seed).permutation(len(test)).tolist()
    crystals, mates = [test[i] for i in order[:n]], [test[i] for i in order[:others]]
    for words, asked in EDITS.items():
        done, refused = [], 0
        for crystal in crystals:
            try:
                kept = Kept.of(crystal, **asked)
                (one,) = edited(generator, crystal, kept, 1)
                done.append((keeps(one, crystal.space_group), deviation(crystal, one, kept)))
            except ValueError:  # nothing is left to draw, or nothing drawn has the gene
                refused += 1
        groups, far = np.array(done).T
        print(f"{words}: n {len(done)}, {refused} refused, groups {groups.mean():.1%}, {far.max():.1e} Å")
    found, groups = [], []
    for crystal in crystals:
        if mate := next((c for c in mates if c.gene == crystal.gene and c.id != crystal.id), None):
            points, way = path(generator, crystal, mate)
            found.append(way.group == crystal.space_group)
            groups += [keeps(point, crystal.space_group) for point in points]
    print(f"interpolate in a gene: n {len(found)}, joined {np.mean(found):.1%}, groups {np.mean(groups):.1%}")


if __name__ == "__main__":
    tyro.cli(main)
