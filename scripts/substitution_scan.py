"""Replace every element (or every site) of a crystal by others, and see what they are predicted to do.

Run: python scripts/substitution_scan.py --path my.cif --properties formation_energy band_gap --out scan.csv
     python scripts/substitution_scan.py --path my.cif --sites --elements Zr Hf Sn --out doped.csv
"""

from pathlib import Path

import tyro
from pymatgen.core import Structure
from rich import print as show

import property_models
from property_models.uses.substitution import substitution_scan


def main(
    path: Path,
    out: Path,
    properties: tuple[str, ...] = ("formation_energy",),
    elements: tuple[str, ...] = (),
    sites: bool = False,
    family: str = "guide",
) -> None:
    """Sorted by the first property; rows the models know too little about come last."""
    models = [property_models.load(name, family) for name in properties]
    table = substitution_scan(Structure.from_file(path), models, elements, sites=sites)
    first = properties[0]
    table = table.sort_values([f"{first}_out_of_domain", first])
    table.to_csv(out, index=False)
    show(table.head(20).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    tyro.cli(main)
