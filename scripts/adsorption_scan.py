"""Where a molecule comes to rest on a surface, and how strongly it is held: adsorption.csv and placed.extxyz.

Run: python scripts/adsorption_scan.py Cu.cif CO --plane 111 --out runs/CO_Cu       (a bulk, which is cut)
     python scripts/adsorption_scan.py slab.cif CH3OH --out runs/mine               (a slab as it is)
"""

import sys
from pathlib import Path

import pandas as pd
import tyro
from ase.io import write

from autoperi.cli import status_of
from autoperi.commands import console
from autoperi.discovery import surfaces
from evaluation.options import PotentialName
from evaluation.settings import potential


def main(
    path: tyro.conf.Positional[Path],
    adsorbate: tyro.conf.Positional[str],
    out: Path,
    plane: str | None = None,
    starts: int = 30,
    n: int = 10,
    seed: int = 0,
    by: PotentialName = "chgnet",
) -> int:
    """Of `starts` random placements the n lowest as rigid bodies are relaxed."""
    relaxer, crystal = potential(by), surfaces.read_structure(path)
    if plane:
        crystal = surfaces.slab_for_molecules(crystal, surfaces.miller_index(plane))
    surface, molecule = surfaces.prepared(crystal, relaxer), surfaces.Adsorbate.of(adsorbate, relaxer)
    tried = surfaces.random_placements(surface.structure, molecule, starts, seed)
    lowest = surfaces.rigidly_descended(surface.structure, molecule, tried, relaxer)[:n]
    found = sorted(surfaces.adsorb(surface, molecule, lowest, relaxer), key=lambda one: one.energy)
    out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([{"energy": one.energy, "state": one.state, "steps": one.steps} for one in found])
    table.to_csv(out / "adsorption.csv", index_label="number")
    write(out / "placed.extxyz", [one.structure.to_ase_atoms() for one in found if one.structure])
    console.out.print(table.to_string(float_format="{:.3f}".format))
    return 0


if __name__ == "__main__":
    sys.exit(status_of(lambda: tyro.cli(main)))
