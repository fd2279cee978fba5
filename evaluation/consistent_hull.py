"""A hull whose phases are judged by the same potential as the crystals, so that its errors cancel.

Against a DFT hull a potential's error on a crystal stays in its energy above the hull. Near the hull
that error (some 20 meV/atom for CHGNet) is larger than what is measured: energies above the hull of
MP-20 test rows then hardly correlate with the published CHGNet ones, and do once the phases of the
hull are put through CHGNet as well.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pymatgen.core import Composition, Structure
from rich.progress import track

from evaluation.element_references import ElementReferences
from evaluation.hull import ConvexHull
from evaluation.potential import static_energies


def mp20_phases(
    data_dir: Path | str, splits: Sequence[str] = ("train", "val", "test")
) -> tuple[list[str], Callable[[int], Structure]]:
    """Formulas of the MP-20 rows under a data folder, and a function that gives crystal j."""
    import pandas as pd

    paths = [next(iter((Path(data_dir) / "mp_20").glob(f"{split}.csv*"))) for split in splits]
    table = pd.concat([pd.read_csv(p, keep_default_na=False, dtype=str) for p in paths])
    texts = table["cif"].tolist()

    def structure(k: int) -> Structure:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rounded coordinates
            return Structure.from_str(texts[k], fmt="cif")

    return table["pretty_formula"].tolist(), structure


def consistent_hull(
    formulas: Sequence[str],
    structure: Callable[[int], Structure],
    targets: Iterable[Composition | str],
    references: ElementReferences,
    energies_of: Callable[[Sequence[Structure]], Iterator[float]] = static_energies,
) -> tuple[ConvexHull, ElementReferences]:
    """Hull of a potential's energies of known phases as they stand, and the references to use with it.

    Only phases inside the chemical system of a target are computed; asking the hull for any other
    composition finds too few of them.

    Args:
        formulas: of the known phases.
        structure: gives phase j, at its DFT geometry; called for those needed alone.
        targets: the compositions that will be judged.
        references: of the potential, for elements without a phase of their own; the others get the
            lowest energy among theirs.
        energies_of: energies per atom of crystals, NaN where there is none; CHGNet by default.
    """
    systems = {frozenset(Composition(c).get_el_amt_dict()) for c in targets}
    compositions = [Composition(f) for f in formulas]
    elements = [frozenset(c.get_el_amt_dict()) for c in compositions]
    inside = [k for k, e in enumerate(elements) if any(e <= system for system in systems)]
    found = energies_of([structure(k) for k in inside])
    energies = dict(
        zip(inside, track(found, total=len(inside), description="phases of the hull"), strict=True)
    )
    known = {k: e for k, e in energies.items() if np.isfinite(e)}
    lowest = dict(references.energies)
    for k in sorted((k for k in known if len(elements[k]) == 1), key=known.__getitem__, reverse=True):
        (symbol,) = elements[k]
        lowest[symbol] = known[k]
    own = replace(references, energies=lowest)
    formation = [own.formation_energy(compositions[k], e) for k, e in known.items()]
    return ConvexHull([compositions[k] for k in known], formation), own
