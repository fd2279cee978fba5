"""Our energies above the hull against published CHGNet ones (AUTOPERI_DATA/peers), crystal by crystal.

Published: hull of the Materials Project of 2023-02-07, clipped at 0. Ours: MP-20 phases alone, by DFT or by
CHGNet itself; space group kept while relaxing; clipped too. Resumable.
"""

from pathlib import Path

import pandas as pd
import tyro
from pymatgen.core import Composition

from evaluation.consistent_hull import consistent_hull, mp20_phases
from evaluation.element_references import ElementReferences
from evaluation.hull import ConvexHull
from evaluation.readers import as_read_result, read_structures
from evaluation.reference import data_folder
from evaluation.stability import RelaxationSettings, StabilitySettings, stability_table


def main(n: int = 50, seed: int = 0, journal: Path = Path("published_e_hull.jsonl")) -> None:
    """Relax n random rows of each table; test rows are told by a formula that the split has once."""
    data, settings = data_folder(), StabilitySettings(RelaxationSettings(keep_symmetry=True))
    sampled, fitted = (
        read_structures(data / "peers/diffcsp_pp_mp20.npz", limit=1000),
        ElementReferences.load(),
    )
    formulas, test = mp20_phases(data, ["test"])
    once = {f: k for k, f in enumerate(formulas) if formulas.count(f) == 1}
    for name in ("DiffCSP++_mp_20_CHGNet_relaxed_symmetry.ehull", "mp20_test_1k_sample"):
        rows = pd.read_csv(data / f"peers/ehull_tables/{name}.csv.gz").sample(frac=1, random_state=seed)
        if test_rows := "test" in name:
            rows = rows[[Composition(f).reduced_formula in once for f in rows["formula"]]]
        asked, theirs = rows["formula"].tolist()[:n], rows["chgnet_ehull"].tolist()[:n]
        found = [once[Composition(f).reduced_formula] for f in asked] if test_rows else rows["str_ind"][:n]
        read = as_read_result([test(k) if test_rows else sampled.structures[k] for k in found])
        own = consistent_hull(*mp20_phases(data), asked, fitted)
        for label, hull in {"DFT": (ConvexHull.from_mp20(data), fitted), "CHGNet": own}.items():
            ours = stability_table(read.samples, *hull, settings, journal)["e_above_hull"].clip(0)
            both = pd.DataFrame({"formula": asked, "ours": ours.to_numpy(), "theirs": theirs}).dropna()
            off, r = (both["ours"] - both["theirs"]).abs(), both["ours"].corr(both["theirs"])
            print(f"{name}, {label} hull: n {len(both)}, r {r:.3f}, MAE {off.mean():.4f} eV/atom")
            print(both.loc[off.nlargest(4).index].round(3).to_string(index=False))


if __name__ == "__main__":
    tyro.cli(main)
