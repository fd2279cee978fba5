"""Which polymorph is stable at which temperature and pressure: map.png, map.csv and map.json.

Run: python scripts/stability_map.py quartz.cif coesite.cif stishovite.cif --out runs/silica
     python scripts/stability_map.py a.cif b.cif --temperatures 0:1500 --pressures 0:9 --by sevennet --out map
The same command goes on where it was stopped.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tyro

from autoperi.cli import status_of
from autoperi.commands import console
from autoperi.crystals.labels import Window
from autoperi.data.reading import read_structures
from evaluation.options import PotentialName
from evaluation.settings import potential
from evaluation.stability.quasiharmonic import stability_map


def main(
    paths: tyro.conf.Positional[tuple[Path, ...]],
    out: Path,
    temperatures: str = "0:2000",
    pressures: str = "0:20",
    by: PotentialName = "chgnet",
) -> int:
    """Polymorphs are called as their files are; ranges are in K and GPa."""
    t, p = Window.of(temperatures, "K"), Window.of(pressures, "GPa")
    read = [read_structures(path) for path in paths]
    polymorphs = {sample.id: sample.structure for part in read for sample in part.samples}
    failures = [(f.id, f.where, f.reason) for part in read for f in part.failures]
    axes = np.linspace(t.low, t.high, 41), np.linspace(p.low, p.high, 81)
    out.mkdir(parents=True, exist_ok=True)
    found = stability_map(polymorphs, *axes, potential(by), out=out)
    found.picture().savefig(out / "map.png", dpi=150)
    found.table().to_csv(out / "map.csv", index=False)
    (out / "map.json").write_text(json.dumps(found.record(), indent=1))
    console.out.print("\n".join(map(str, found.transitions(300))) or "no transition at 300 K")
    left_out = [(name, found.formula, reason) for name, reason in found.left_out.items()]
    return console.left_out(failures + left_out)


if __name__ == "__main__":
    sys.exit(status_of(lambda: tyro.cli(main)))
