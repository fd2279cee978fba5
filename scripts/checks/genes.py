"""How faithful drawn genes are: what is new about them, and their elements, beside held-out crystals.

Run: python scripts/checks/genes.py --n 10000 --stability 0     (without --stability: the default's choice)
New gene: no training crystal has it. New pattern: none has it with the same equalities among its elements, so
that there is no relative. New formula: none has it. Geometry is not drawn.
"""

from collections.abc import Sequence

import numpy as np
import torch
import tyro
from scipy.stats import binomtest

import autoperi
from autoperi.crystals.crystal import Crystal
from autoperi.crystals.wyckoff import relabellings
from autoperi.data.dataset import load_dataset
from autoperi.generator import CrystalGenerator, SampleConfig
from autoperi.generator.choice import chosen_by

_KINDS = {
    "lanthanides": range(57, 72),
    "actinides": range(89, 104),
    "Pm": [61],
    "Ac": [89],
    "Pa": [91],
    "noble gases": [2, 10, 18, 36, 54, 86],
    "oxygen": [8],
    "halogens": [9, 17, 35, 53],
}


def main(n: int = 10_000, seed: int = 0, stability: float | None = None, novel: bool = False) -> None:
    """Draw n genes with species and print shares of crystals, with 95% intervals."""
    torch.set_num_threads(1)
    generator = autoperi.load("mp_20")
    config = SampleConfig(stability=stability, novel=novel)
    known, relatives = generator.empirical_genes(), generator.relatives()
    excess = chosen_by(config, generator.stability, generator.targets, relatives, known)
    drawn = generator.learned_genes().sample(range(n), seed, config=config.draw, excess=excess)
    rows = {
        "drawn": _shares(drawn, generator),
        "MP-20 test": _shares(list(load_dataset("mp_20", "test")), generator),
    }
    print(f"{'share of crystals':20s}" + "".join(f"{name:>28s}" for name in rows))
    for kind in rows["drawn"]:
        print(f"{kind:20s}" + "".join(f"{_said(own[kind]):>28s}" for own in rows.values()))


def _shares(crystals: Sequence[Crystal], generator: CrystalGenerator) -> dict[str, np.ndarray]:
    """Of each kind: which crystals are of it."""
    known, relatives = generator.empirical_genes(), generator.relatives()
    assert relatives is not None
    names, formulas = known.names(), known.formulas()
    found = {
        "new gene": [
            relabellings(crystal.space_group, tuple(crystal.wyckoff.tolist()))[0][0] not in names
            for crystal in crystals
        ],
        "new pattern": [relatives.nearest(crystal) is None for crystal in crystals],
        "new formula": [crystal.formula not in formulas for crystal in crystals],
    }
    for kind, elements in _KINDS.items():
        found[kind] = [bool(np.isin(crystal.species, elements).any()) for crystal in crystals]
    return {kind: np.array(own) for kind, own in found.items()}


def _said(are: np.ndarray) -> str:
    """A share with its Wilson interval."""
    low, high = binomtest(int(are.sum()), len(are)).proportion_ci(method="wilson")
    return f"{100 * are.mean():.2f}% [{100 * low:.2f}, {100 * high:.2f}]"


if __name__ == "__main__":
    tyro.cli(main)
