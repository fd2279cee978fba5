"""Symmetrise, encode and decode large cells (zeolites, frameworks, slabs): time and memory.

Run: python scripts/checks/large_cells.py FILE [FILE ...] --most 20
"""

import resource
import time
from pathlib import Path

import tyro

import autoperi
from autoperi.data.dataset import load_dataset


def main(files: tyro.conf.Positional[tuple[Path, ...]], most: int = 20, workers: int = 2) -> None:
    """Largest cells of each file first; every failure is named by the reader."""
    flow = autoperi.load("mp_20").flow
    for file in files:
        data = load_dataset(file, None, workers=workers)
        crystals = sorted(data, key=lambda c: -c.n_atoms)[:most]
        began = time.perf_counter()
        right = sites = 0
        for crystal in crystals:
            decoded = flow.decode(flow.encode([crystal]), [crystal])[0]
            right, sites = right + int((decoded.species == crystal.species).sum()), sites + crystal.n_sites
        seconds = (time.perf_counter() - began) / len(crystals)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{file.name}: {len(data)} read, {len(data.failures)} left out; largest "
            f"{crystals[0].n_atoms} atoms, {crystals[0].n_sites} sites; {seconds:.2f} s a crystal, "
            f"species {right / sites:.1%}, peak {memory:.1f} GB"
        )


if __name__ == "__main__":
    tyro.cli(main)
