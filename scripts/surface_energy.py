"""Surface energies of a crystal by a potential: surface_energies.csv and the relaxed slabs.

Run: python scripts/surface_energy.py MgO.cif --planes 100 110 --out runs/MgO       (--by sevennet)
"""

import sys
from pathlib import Path

import pandas as pd
import tyro
from pymatgen.core.surface import get_symmetrically_distinct_miller_indices as distinct
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from autoperi.cli import status_of
from autoperi.commands import console
from autoperi.discovery.surfaces import SlabSettings, miller_index, read_structure, surface_energies
from evaluation.options import PotentialName
from evaluation.settings import potential


def main(
    path: tyro.conf.Positional[Path],
    out: Path,
    planes: tuple[str, ...] = (),
    thickness: float = SlabSettings.thickness,
    vacuum: float = SlabSettings.vacuum,
    by: PotentialName = "chgnet",
) -> int:
    """By default all planes of indices up to 1 that symmetry tells apart."""
    settings, bulk = SlabSettings(thickness, vacuum), read_structure(path)
    conventional = SpacegroupAnalyzer(bulk).get_conventional_standard_structure()
    chosen = [miller_index(plane) for plane in planes] or distinct(conventional, 1)
    found, left_out = surface_energies(bulk, chosen, potential(by), settings)
    out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([one.row() for one in found])
    table.to_csv(out / "surface_energies.csv", index=False)
    for one in found:
        one.slab.to(str(out / f"{''.join(map(str, one.miller))}-{one.termination}.cif"))
    console.out.print(table.to_string(index=False))
    return console.left_out((bulk.reduced_formula, plane, reason) for plane, reason in left_out)


if __name__ == "__main__":
    sys.exit(status_of(lambda: tyro.cli(main)))
