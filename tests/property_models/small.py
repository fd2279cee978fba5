"""Small property networks, and labelled crystals to train them on."""

import csv
from dataclasses import replace

from autoperi.crystals.crystal import Crystal
from property_models.networks.crystal_gnn import CrystalGNNConfig
from tests.autoperi.small import SOME_GROUPS, small_crystal

TINY = CrystalGNNConfig(width=16, layers=2, radial=6, cutoff=4.0, dropout=0.0)


def labelled_crystals(n: int) -> list[Crystal]:
    """Small crystals whose formation energy is minus their share of oxygen, and whose gap is often zero."""
    crystals = []
    for i in range(n):
        crystal = small_crystal(SOME_GROUPS[i % len(SOME_GROUPS)], i // len(SOME_GROUPS))
        share = float(crystal.multiplicities[crystal.species == 8].sum() / crystal.n_atoms)
        labels = {"formation_energy": -share, "band_gap": 4 * share, "bulk_modulus": 10 ** (1 + share)}
        crystals.append(replace(crystal, id=f"c{i}", properties=labels))
    return crystals


def write_table(path, crystals, columns) -> None:
    """A CSV of crystals and computed columns, the first crystal of which cannot be read."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["material_id", "cif", *columns])
        for i, crystal in enumerate(crystals):
            cif = crystal.to_structure().to(fmt="cif") if i else "no crystal at all"
            writer.writerow([crystal.id, cif, *(f(i, crystal) for f in columns.values())])
