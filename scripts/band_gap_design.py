"""Twenty absorbers for solar cells: gap 1.1 to 1.7 eV, stable, new, without Pb, Hg, Cd or Tl.

Run: python scripts/band_gap_design.py --out runs/absorbers
The command that does the same: autoperi discover --n 20 --band-gap 1.1:1.7 --exclude Pb Hg Cd Tl --atoms 1 12
"""

from pathlib import Path

import tyro

from autoperi import GeneRequest
from autoperi.crystals.labels import Window
from autoperi.data.files import write_crystals
from autoperi.discovery.campaign import Campaign, discover, in_processes
from property_models.uses.screen import Predictor

HARMFUL = ("Pb", "Hg", "Cd", "Tl")


def main(out: Path, n: int = 20, seed: int = 0, workers: int = 2) -> None:
    """What is looked for, the search, and what came of it."""
    gap, names = (("band_gap", Window.of("1.1:1.7")),), ("e_above_hull", "band_gap")
    wanted = Campaign(
        guide=Predictor(names, windows=gap),
        judge=Predictor(names, "judge", gap),
        windows=gap,
        stable=0.05,
        request=GeneRequest(denied_elements=HARMFUL, n_atoms=(1, 12)),
        seed=seed,
    )
    found = discover(wanted, n, executor=in_processes(workers))
    print(found.funnel.lines())
    print(found.table()[["formula", "space_group", "e_above_hull", "predicted_band_gap", "akin_to"]])
    write_crystals(found.crystals, out, {"seed": seed, "funnel": found.funnel.record()})


if __name__ == "__main__":
    tyro.cli(main)
