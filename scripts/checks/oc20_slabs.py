"""Relaxations of adsorbates on slabs by density functional theory (OC20), done again by a potential.

Run: python scripts/checks/oc20_slabs.py $AUTOPERI_DATA/oc20_slabs --most-atoms 80 --out runs/oc20
From the first frame with the same atoms held: how far the adsorbate's atoms end from where they do in the
last one, beside how far they had to go; and whether the energy that is gained orders systems alike.
"""

from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
import torch
import tyro
from ase import Atoms
from ase.geometry import find_mic
from pymatgen.core import Structure
from scipy.stats import spearmanr

from autoperi.data.reading import Sample
from evaluation.options import PotentialName
from evaluation.relaxation.batch import BatchSettings, relax_all
from evaluation.relaxation.relaxation import RelaxationSettings
from evaluation.settings import potential

SETTINGS = RelaxationSettings(fmax=0.05, max_steps=200, keep_cell=True, max_seconds=1200)


def main(
    folder: tyro.conf.Positional[Path], out: Path, most_atoms: int = 80, by: PotentialName = "chgnet"
) -> None:
    """A line for each system, then means over those with an adsorbate whose elements the slab has not."""
    torch.set_num_threads(1)
    both = zip(frames(folder, "initial"), frames(folder, "relaxed"), strict=True)
    pairs = {a.info["sid"]: (a, b) for a, b in both if len(a) <= most_atoms}
    relaxer = potential(by)
    out.mkdir(parents=True, exist_ok=True)
    samples = [Sample(name, held(start)) for name, (start, _) in pairs.items()]
    rows = []
    for record in relax_all(samples, BatchSettings(SETTINGS, relaxer=relaxer), out / "relaxed.jsonl"):
        start, end = pairs[record["id"]]
        if record["error"]:
            print(f"left out: {record['id']}: {record['error']}", flush=True)
            continue
        own = adsorbate(start)
        ours = Structure.from_dict(record["relaxed"]).cart_coords
        static = list(relaxer.static_energies([held(start), held(end)]))
        rows.append(
            {
                "sid": record["id"],
                "formula": start.get_chemical_formula(),
                "adsorbate": int(own.sum()),
                "moved": apart(end, start.positions, end.positions)[own].mean(),
                "error": apart(end, ours, end.positions)[own].mean(),
                "gain_dft": start.get_potential_energy() - end.get_potential_energy(),
                "gain_static": len(start) * (static[0] - static[1]),
                "gain": len(start) * (record["start_energy_per_atom"] - record["energy_per_atom"]),
                "converged": record["converged"],
            }
        )
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(out / f"oc20-{by}.csv", index=False)
    known = table[table.adsorbate > 0]
    print(f"{len(known)} systems: adsorbate's atoms moved by {known.moved.mean():.3f} Å (DFT)", end=", ")
    print(f"end {known.error.mean():.3f} Å from there, median {known.error.median():.3f}")
    for name in ("gain_static", "gain"):
        order = float(np.asarray(spearmanr(table.gain_dft, table[name]))[0])
        off = (table[name] - table.gain_dft).abs().mean()
        print(f"{name}: rank correlation {order:.2f}, mean absolute error {off:.2f} eV, n {len(table)}")


def frames(folder: Path, stage: str) -> list[Atoms]:
    """Those of the data set's file."""
    read = ase.io.read(folder / f"oc20_30_{stage}.extxyz.gz", ":", format="extxyz")
    return [frame for frame in read if isinstance(frame, Atoms)]


def held(atoms: Atoms) -> Structure:
    """A slab whose constrained atoms are held."""
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        fixed[constraint.get_indices()] = True
    told = [[not f] * 3 for f in fixed]
    lattice, symbols = np.array(atoms.cell), atoms.get_chemical_symbols()
    properties = {"selective_dynamics": told}
    return Structure(lattice, symbols, atoms.positions, coords_are_cartesian=True, site_properties=properties)


def adsorbate(atoms: Atoms) -> np.ndarray:
    """Atoms of elements that no held atom has; none where slab and adsorbate share elements."""
    fixed = np.concatenate([constraint.get_indices() for constraint in atoms.constraints])
    return ~np.isin(atoms.numbers, atoms.numbers[fixed])


def apart(atoms: Atoms, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distances of atoms, nearest images, Å."""
    return find_mic(one - other, atoms.cell)[1]


if __name__ == "__main__":
    tyro.cli(main)
