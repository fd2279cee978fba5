"""What a band-gap target changes in the chemistry that is drawn.

Run: python scripts/checks/steering.py --n 500 --seed 0
Shares with 95% Wilson intervals; no geometry is drawn: species come with the gene.
"""

import numpy as np
import tyro
from scipy.stats import binomtest

import autoperi
from autoperi.crystals.crystal import Crystal

NONMETALS = {1, 2, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32, 33, 34, 35, 36, 51, 52, 53, 54}
HALIDES_OXIDES = {8, 9, 17, 35, 53}


def share(crystals: list[Crystal], test: set[int], *, none: bool) -> str:
    """Share of crystals with none (or any) of the elements."""
    hits = sum((not set(c.species.tolist()) & test) == none for c in crystals)
    low, high = binomtest(hits, len(crystals)).proportion_ci(method="wilson")
    return f"{hits / len(crystals):6.1%} [{low:.1%}, {high:.1%}]"


def main(n: int = 500, seed: int = 0, guidance: tuple[float, ...] = (1.0, 2.0)) -> None:
    """Unconditional, then band gap 0 and 3 eV at each guidance."""
    prior = autoperi.load("mp_20").learned_genes()
    asks = [({}, 1.0)] + [({"band_gap": gap}, g) for gap in (0.0, 3.0) for g in guidance]
    for conditions, strength in asks:
        targets = prior.network.condition.targets([conditions] * n, strength)
        drawn = prior.sample(range(n), seed, targets=targets)
        elements = np.mean([len(set(c.species.tolist())) for c in drawn])
        print(f"{conditions!s:20s} guidance {strength:.0f} n {n}: elements {elements:.2f}", end=", ")
        print("all-metal", share(drawn, NONMETALS, none=True), end=", ")
        print("oxide or halide", share(drawn, HALIDES_OXIDES, none=False))


if __name__ == "__main__":
    tyro.cli(main)
