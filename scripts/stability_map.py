"""Which polymorph is stable at which temperature and pressure: map.png, map.csv and map.json.

Run: python scripts/stability_map.py quartz.cif coesite.cif --out runs/silica   (goes on where it was stopped)
"""

import sys
from pathlib import Path

import numpy as np
import tyro

from autoperi.cli import status_of
from autoperi.commands import console
from autoperi.crystals.labels import Window
from evaluation.options import PotentialName
from evaluation.settings import potential
from evaluation.stability.quasiharmonic import read_polymorphs, stability_map

Paths = tyro.conf.Positional[tuple[Path, ...]]


def main(
    paths: Paths,
    out: Path,
    temperatures: str = "0:2000",
    pressures: str = "0:20",
    by: PotentialName = "chgnet",
) -> int:
    """Polymorphs are called as their files are; ranges are in K and GPa."""
    t, p = Window.of(temperatures, "K"), Window.of(pressures, "GPa")
    axes = np.linspace(t.low, t.high, 41), np.linspace(p.low, p.high, 81)
    polymorphs, failures = read_polymorphs(paths)
    found = stability_map(polymorphs, *axes, potential(by), out=out)
    found.save(out)
    console.out.print("\n".join(map(str, found.transitions(300))) or "no transition at 300 K")
    return console.left_out([*failures, *((name, "phonons", why) for name, why in found.left_out.items())])


if __name__ == "__main__":
    sys.exit(status_of(lambda: tyro.cli(main)))
