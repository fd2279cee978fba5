"""Our energies above the hull against published CHGNet ones (AUTOPERI_DATA/peers), crystal by crystal.

Published: phases of the Materials Project of 2023-02-07, energies clipped at 0. Ours: phases of MP-20 alone, with
DFT energies or (consistent) CHGNet's own, space group kept while relaxing, clipped too. Resumable.
"""

from pathlib import Path

import pandas as pd
import tyro
from pymatgen.core import Composition, Structure

from evaluation.consistent_hull import consistent_hull
from evaluation.element_references import ElementReferences
from evaluation.hull import ConvexHull
from evaluation.readers import as_read_result, read_structures
from evaluation.reference import data_folder
from evaluation.stability import RelaxationSettings, StabilitySettings, stability_table


def main(n: int = 50, seed: int = 0, journal: Path = Path("published_e_hull.jsonl")) -> None:
    """Relax n random rows of each table; test rows are told by a formula that the split has once."""
    data, settings = data_folder(), StabilitySettings(RelaxationSettings(keep_symmetry=True))
    sampled = read_structures(data / "peers" / "diffcsp_pp_mp20.npz", limit=1000).structures
    splits = {
        s: pd.read_csv(data / f"mp_20/{s}.csv.gz", keep_default_na=False) for s in ("train", "val", "test")
    }
    phases = pd.concat(splits.values())
    cifs = splits["test"].drop_duplicates("pretty_formula", keep=False).set_index("pretty_formula")["cif"]
    for name in ("DiffCSP++_mp_20_CHGNet_relaxed_symmetry.ehull", "mp20_test_1k_sample"):
        rows = pd.read_csv(data / f"peers/ehull_tables/{name}.csv.gz").sample(frac=1, random_state=seed)
        rows["cif"] = [cifs.get(Composition(f).reduced_formula) for f in rows["formula"]]
        rows = rows[rows["cif"].notna() | name.startswith("DiffCSP++")][:n].reset_index(drop=True)
        pairs = zip(rows["str_ind"], rows["cif"], strict=True)
        read = as_read_result(
            [Structure.from_str(c, "cif") if "test" in name else sampled[k] for k, c in pairs]
        )
        known = phases["pretty_formula"].tolist(), lambda k: Structure.from_str(phases["cif"].iloc[k], "cif")
        own = consistent_hull(*known, rows["formula"], ElementReferences.load())
        for label, hull in {
            "DFT": (ConvexHull.from_mp20(data), ElementReferences.load()),
            "own": own,
        }.items():
            table = stability_table(read.samples, *hull, settings, journal)
            ours, theirs = table["e_above_hull"].reset_index(drop=True).clip(0), rows["chgnet_ehull"]
            off, r = ours - theirs, ours.corr(theirs)
            print(
                f"{name}, {label} hull: n {off.count()}, r {r:.3f}, MAE {off.abs().mean():.4f} eV/atom, worst:"
            )
            print(
                *(f"{rows['formula'][k]} {ours[k]:.3f}/{theirs[k]:.3f}" for k in off.abs().nlargest(4).index)
            )


if __name__ == "__main__":
    tyro.cli(main)
