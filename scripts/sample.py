"""Draw ten crystals, print them and save one as CIF: the shortest use of the package.

Run: python scripts/sample.py
"""

from pathlib import Path

import autoperi
from autoperi.data.cif import write_cif
from autoperi.genes.request import GeneRequest

if __name__ == "__main__":
    generator = autoperi.load("mp_20")
    for crystal in generator.sample(10, seed=0):
        print(f"{crystal.formula:20s} {crystal.gene:16s} {crystal.n_atoms:3d} atoms per primitive cell")
    perovskite = generator.sample(1, seed=0, request=GeneRequest(formula="BaTiO3", space_groups=[221]))[0]
    Path("BaTiO3.cif").write_text(write_cif(perovskite))
    print(perovskite.to_structure())
