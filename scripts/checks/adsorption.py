"""How often a molecule comes to rest within 0.1 eV of the best place known: rigid descents against sites.

Run: python scripts/checks/adsorption.py cells --systems Cu:111:CO MgO:100:H2O --out runs/adsorption
`cells` holds Cu.cif, MgO.cif, ... . Of each system n placements of either kind are relaxed; the best known
place is the lowest of all that end with the molecule intact. Systems done are taken from the journal.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro

from autoperi.discovery import surfaces
from evaluation.options import PotentialName
from evaluation.relaxation.journal import append, read_journal
from evaluation.settings import potential

WITHIN = 0.1  # eV


def main(
    cells: tyro.conf.Positional[Path],
    systems: tuple[str, ...],
    out: Path,
    starts: int = 20,
    n: int = 10,
    seed: int = 0,
    by: PotentialName = "chgnet",
) -> None:
    """A line for each system."""
    torch.set_num_threads(1)
    relaxer = potential(by)
    out.mkdir(parents=True, exist_ok=True)
    asked = {"starts": starts, "n": n, "seed": seed, "by": by}
    done = {r["system"]: r for r in read_journal(out / "systems.jsonl") if r["asked"] == asked}
    for system in systems:
        if system not in done:
            bulk, plane, name = system.split(":")
            crystal = surfaces.read_structure(cells / f"{bulk}.cif")
            slab = surfaces.slab_for_molecules(crystal, surfaces.miller_index(plane))
            surface, molecule = surfaces.prepared(slab, relaxer), surfaces.Adsorbate.of(name, relaxer)
            bare, record = surface.structure, {"system": system, "asked": asked}
            tried = surfaces.random_placements(bare, molecule, starts, seed)
            for kind in ("rigid", "sites"):
                began = time.process_time()
                if kind == "rigid":
                    low = surfaces.rigidly_descended(bare, molecule, tried, relaxer)
                    placed = surfaces.basins_first(bare, molecule, low)[:n]
                else:
                    placed = surfaces.by_sites(bare, molecule, n, seed)
                found = surfaces.adsorb(surface, molecule, placed, relaxer)
                record[kind] = [one.energy if one.state == "intact" else None for one in found]
                record[f"{kind}_states"] = [one.state for one in found]
                record[f"{kind}_seconds"] = time.process_time() - began
            done[system] = record
            append(out / "systems.jsonl", record)
        print(row(done[system]), flush=True)
    table = pd.DataFrame([row(done[system]) for system in systems])
    table.to_csv(out / "adsorption.csv", index=False)
    print(table.to_string(index=False, float_format="{:.2f}".format))


def row(record: dict) -> dict:
    """Shares that end within 0.1 eV of the best known, the best of each kind (eV), and CPU seconds."""
    energies = {kind: np.array(record[kind], dtype=float) for kind in ("rigid", "sites")}
    best = np.nanmin(np.concatenate(list(energies.values())))
    found = {"system": record["system"]}
    for kind, values in energies.items():
        found[kind] = float((values <= best + WITHIN).mean())
        found[f"best_{kind}"] = float(np.nanmin(values))
        found[f"seconds_{kind}"] = record[f"{kind}_seconds"]
    return found


if __name__ == "__main__":
    tyro.cli(main)
