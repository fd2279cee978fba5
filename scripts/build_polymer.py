"""Crystals of polymers from SMILES of their repeat units: polymers.csv, cif/, crystals.extxyz, run.json.

Run: python scripts/build_polymer.py "*CC*" "*CC(F)(F)*" --out runs/polymers    (or table.csv: name, smiles)
Without SMILES all of autoperi/polymers/homopolymers.csv are built. Goes on where it was stopped.
"""

import sys
from dataclasses import astuple
from pathlib import Path

import torch
import tyro

from autoperi.cli import status_of
from autoperi.commands import console
from autoperi.data.run_folder import run_folder


def main(smiles: tyro.conf.Positional[tuple[str, ...]] = (), *, out: Path) -> int:
    """Build one after the other; what comes to no crystal is named."""
    from autoperi.polymers import building  # needs the extra `polymers`

    torch.set_num_threads(1)
    polymers = building.read_polymers(smiles or [str(building.HOMOPOLYMERS)])
    with run_folder(out, {"command": "build_polymer", "polymers": list(map(astuple, polymers))}) as folder:
        found = []
        for one in building.built(polymers, folder.path / "journal.jsonl"):
            found.append(one)
            best = "".join(f"{k} {v}  " for c in one.crystals[:1] for k, v in c.row().items())
            console.out.print(f"{one.polymer.name}: {best or one.fault} ({one.seconds:.0f} s)")
        folder.finish(building.save(found, folder.new))
    return console.left_out(building.failures(found))


if __name__ == "__main__":
    sys.exit(status_of(lambda: tyro.cli(main)))
