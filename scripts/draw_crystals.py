"""Draw a grid of generated crystals as one picture.

Run: autoperi sample --n 12 --out samples && python scripts/draw_crystals.py samples --out crystals.png
"""

from pathlib import Path

import matplotlib.pyplot as plt
import tyro
from ase.build import make_supercell
from ase.visualize.plot import plot_atoms

from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.data.files import read_crystals


def main(path: tyro.conf.Positional[Path], out: Path = Path("crystals.png"), columns: int = 4) -> None:
    """Conventional cells of the first crystals of a sample folder."""
    crystals = read_crystals(path)[: 3 * columns]
    rows = -(-len(crystals) // columns)
    _, axes = plt.subplots(rows, columns, figsize=(3 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, crystal in zip(axes.flat, crystals, strict=False):
        primitive = wyckoff_table().primitive[crystal.space_group]
        to_conventional = primitive.inverse().T.round().numpy()
        atoms = make_supercell(crystal.to_ase(), to_conventional)
        atoms.wrap()
        plot_atoms(atoms, axis, rotation="12x,-18y,4z", radii=0.45)
        axis.set_title(f"{crystal.formula}\nspace group {crystal.space_group}", fontsize=10)
    plt.tight_layout()
    plt.savefig(out, dpi=110)
    print(out)


if __name__ == "__main__":
    tyro.cli(main)
