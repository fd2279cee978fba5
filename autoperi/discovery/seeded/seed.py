"""The crystal that seeded work begins with."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ase.data import chemical_symbols

from autoperi.crystals.crystal import Crystal
from autoperi.data.dataset import load_dataset

Energies = Callable[[Sequence[Crystal]], list[float]]
"""Of crystals, eV/atom; infinite where there is none."""


def read_seed(path: str | Path) -> Crystal:
    """The one crystal of a file, symmetrised.

    Raises:
        ValueError: no crystal that can be used (partial occupancy), or several.
        FileNotFoundError, ReadError: nothing there that can be read.
    """
    dataset = load_dataset(Path(path), None, workers=1, progress=False)
    if (count := len(dataset) + len(dataset.failures)) != 1:
        raise ValueError(
            f"expected one crystal in {path}: got {count}; give a file of the one that is meant (a folder of "
            "ours has one for each in cif/)"
        )
    return dataset[0]


def named_sites(crystal: Crystal) -> str:
    """The sites of a crystal by number, element and Wyckoff letter: ``0 Ba:a, 1 Ti:b, 2 O:c``."""
    pairs = zip(crystal.species.tolist(), crystal.letters, strict=True)
    return ", ".join(f"{k} {chemical_symbols[z]}:{letter}" for k, (z, letter) in enumerate(pairs))
