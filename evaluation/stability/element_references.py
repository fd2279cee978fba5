"""Fit of element references to a potential (`autoperi.data.element_references`) on rows of MP-20.

Those shipped are made by: python -m evaluation.stability.element_references DATA_FOLDER (chgnet | sevennet)
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pymatgen.core import Composition, Structure

from autoperi.data.element_references import (
    SEVENNET_REFERENCES,
    SHIPPED,
    ElementReferences,
    fit_element_references,
)
from evaluation.relaxation.chgnet import CHGNET
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.relaxation.relaxation import AseRelaxer

HUBBARD = ("V", "Cr", "Mn", "Fe", "Co", "Ni", "Mo", "W")
"""Metals that have a Hubbard U in the Materials Project's oxides and fluorides."""


@dataclass(frozen=True)
class FitSettings:
    """How the references are fitted.

    Attributes:
        n_train: MP-20 train rows used (those with a formation energy, drawn at random).
        n_val: MP-20 val rows on which the residual is reported.
        ridge: penalty on the squared distance of a reference from its prior value, relative to
            the squared error in eV/atom; keeps elements seen a few times near the prior.
        seed: of the random draw of rows.
        with_u: metals that get a term of their own in oxides and fluorides, see `ElementReferences`.
    """

    n_train: int = 3000
    n_val: int = 500
    ridge: float = 0.02
    seed: int = 0
    with_u: tuple[str, ...] = ()


def fit_on_mp20(
    data_dir: Path | str,
    settings: FitSettings = FitSettings(),
    relaxer: BatchRelaxer | AseRelaxer = CHGNET,
) -> ElementReferences:
    """Fit on static energies at the DFT geometry of MP-20 train rows.

    Needs `mp_20/{train,val}.csv.gz` and `mp_hull_reference/element_energies.json` under `data_dir`;
    takes some minutes on one core.

    Args:
        data_dir: folder of the data sets.
        settings: which rows, and how.
        relaxer: the potential.
    """
    folder = Path(data_dir)
    rng = np.random.default_rng(settings.seed)
    train = _energies(folder / "mp_20" / "train.csv.gz", settings.n_train, rng, relaxer.static_energies)
    val = _energies(folder / "mp_20" / "val.csv.gz", settings.n_val, rng, relaxer.static_energies)
    prior = json.loads((folder / "mp_hull_reference" / "element_energies.json").read_text())
    fitted = fit_element_references(*train, prior=prior, ridge=settings.ridge, with_u=settings.with_u)
    error = np.array([fitted.formation_energy(c, e) - f for c, e, f in zip(*val, strict=True)])
    provenance = {
        "potential": f"{relaxer.name}, static energies at DFT geometry",
        "target": "MP-20 formation_energy_per_atom (Materials Project, CC BY 4.0)",
        "n_train": len(train[0]),
        "n_val": len(val[0]),
        "ridge": settings.ridge,
        "seed": settings.seed,
        "val_mae": float(np.abs(error).mean()),
        "val_bias": float(error.mean()),
        "val_median_abs": float(np.median(np.abs(error))),
    }
    return ElementReferences(fitted.energies, fitted.with_u, provenance)


def _energies(
    csv: Path,
    n_rows: int,
    rng: np.random.Generator,
    energies_of: Callable[[Sequence[Structure]], Iterator[float]],
) -> tuple[list[Composition], np.ndarray, np.ndarray]:
    """Compositions, energies of the potential and DFT formation energies of random labelled rows."""
    import pandas as pd
    from rich.progress import track

    table = pd.read_csv(csv)
    table = table[table["formation_energy_per_atom"].notna()]
    chosen = rng.choice(len(table), size=min(n_rows, len(table)), replace=False)
    table = table.iloc[chosen]
    structures = [Structure.from_str(text, fmt="cif") for text in table["cif"]]
    energies = np.array(list(track(energies_of(structures), total=len(structures), description=csv.name)))
    known = np.isfinite(energies)
    compositions = [s.composition for s, ok in zip(structures, known, strict=True) if ok]
    targets = table["formation_energy_per_atom"].to_numpy(dtype=float)
    return compositions, energies[known], targets[known]


if __name__ == "__main__":
    import sys

    from evaluation.relaxation.sevennet import SEVENNET

    which = {
        "chgnet": (CHGNET, FitSettings(), SHIPPED),
        "sevennet": (SEVENNET, FitSettings(with_u=HUBBARD), SEVENNET_REFERENCES),
    }
    potential, how, shipped = which[sys.argv[2]]
    fitted_references = fit_on_mp20(sys.argv[1], how, potential)
    fitted_references.save(shipped)
    print(fitted_references.provenance)
