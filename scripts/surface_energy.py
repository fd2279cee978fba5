"""Surface energies of a crystal by a potential: surface_energies.csv and the relaxed slabs.

Run: python scripts/surface_energy.py MgO.cif --planes 100 110 --out runs/MgO       (--by sevennet)
"""

import sys
from pathlib import Path

import pandas as pd
import tyro

from autoperi.cli import status_of
from autoperi.commands import console
from autoperi.discovery import surfaces
from evaluation.options import PotentialName
from evaluation.settings import potential


def main(
    path: tyro.conf.Positional[Path],
    out: Path,
    planes: tuple[str, ...] = (),
    thickness: float = surfaces.SlabSettings.thickness,
    vacuum: float = surfaces.SlabSettings.vacuum,
    by: PotentialName = "chgnet",
) -> int:
    """By default all planes of indices up to 1 that symmetry tells apart."""
    cut, bulk = surfaces.SlabSettings(thickness, vacuum), surfaces.read_structure(path)
    chosen = [surfaces.miller_index(plane) for plane in planes] or surfaces.low_planes(bulk)
    found, left_out = surfaces.surface_energies(bulk, chosen, potential(by), cut)
    out.mkdir(parents=True, exist_ok=True)
    for one in found:
        one.slab.to(str(out / f"{one.name}.cif"))
    (table := pd.DataFrame([one.row() for one in found])).to_csv(out / "surface_energies.csv", index=False)
    console.out.print(table.to_string(index=False))
    return console.left_out((bulk.reduced_formula, plane, reason) for plane, reason in left_out)


if __name__ == "__main__":
    sys.exit(status_of(lambda: tyro.cli(main)))
