"""Where a molecule comes to rest on a surface, and how strongly it is held: adsorption.csv and placed.extxyz.

Run: python scripts/adsorption_scan.py Cu.cif CO --plane 111 --out runs/CO_Cu     (or a slab, without --plane)
"""

import sys
from pathlib import Path

import tyro

from autoperi.cli import status_of
from autoperi.commands import console
from autoperi.discovery import surfaces
from evaluation.options import PotentialName
from evaluation.settings import potential


def main(
    path: tyro.conf.Positional[Path],
    adsorbate: tyro.conf.Positional[str],
    out: Path,
    plane: str = "",
    starts: int = 30,
    n: int = 10,
    seed: int = 0,
    by: PotentialName = "chgnet",
) -> int:
    """Of `starts` random placements n are relaxed, the lowest of each basin first."""
    relaxer, crystal = potential(by), surfaces.read_structure(path)
    slab = surfaces.slab_for_molecules(crystal, surfaces.miller_index(plane)) if plane else crystal
    surface, molecule = surfaces.prepared(slab, relaxer), surfaces.Adsorbate.of(adsorbate, relaxer)
    tried = surfaces.random_placements(surface.structure, molecule, starts, seed)
    low = surfaces.rigidly_descended(surface.structure, molecule, tried, relaxer)
    chosen = surfaces.basins_first(surface.structure, molecule, low)[:n]
    table = surfaces.save(surfaces.adsorb(surface, molecule, chosen, relaxer), out)
    console.out.print(table.to_string(float_format="{:.3f}".format))
    return 0


if __name__ == "__main__":
    sys.exit(status_of(lambda: tyro.cli(main)))
