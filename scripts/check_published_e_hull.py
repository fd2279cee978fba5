"""Our e_hull against published CHGNet ones (AUTOPERI_DATA/peers; hull of MP of 2023-02-07), clipped at 0."""

from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from pymatgen.core import Composition

from evaluation.consistent_hull import consistent_hull, mp20_phases
from evaluation.element_references import ElementReferences
from evaluation.hull import ConvexHull
from evaluation.readers import as_read_result, read_structures
from evaluation.reference import data_folder
from evaluation.stability import RelaxationSettings, StabilitySettings, stability_table


def main(test_rows: bool = False, n: int = 50, journal: Path = Path("published_e_hull.jsonl")) -> None:
    """Relax n random rows of the DiffCSP++ table, or of the test split (told by a formula it has once)."""
    data, settings = data_folder(), StabilitySettings(RelaxationSettings(keep_symmetry=True))
    name = "mp20_test_1k_sample" if test_rows else "DiffCSP++_mp_20_CHGNet_relaxed_symmetry.ehull"
    rows: Any = pd.read_csv(data / f"peers/ehull_tables/{name}.csv.gz").sample(frac=1, random_state=0)
    sampled = read_structures(data / "peers/diffcsp_pp_mp20.npz", limit=1000).structures
    formulas, crystal = mp20_phases(data, ["test"])
    repeated = pd.Series(formulas).duplicated(keep=False).tolist()
    once = {f: k for k, f in enumerate(formulas) if not repeated[k]}
    rows["test"] = [once.get(Composition(f).reduced_formula) for f in rows["formula"]]
    rows = (rows.dropna() if test_rows else rows)[:n]
    crystals = [crystal(int(k)) for k in rows["test"]] if test_rows else [sampled[k] for k in rows["str_ind"]]
    own = consistent_hull(*mp20_phases(data), rows["formula"], fit := ElementReferences.load())
    for label, hull in (("DFT", (ConvexHull.from_mp20(data), fit)), ("CHGNet", own)):
        table = stability_table(as_read_result(crystals).samples, *hull, settings, journal)
        both = rows.assign(ours=table["e_above_hull"].clip(0).to_numpy())[["formula", "ours", "chgnet_ehull"]]
        off, r = (both["ours"] - both["chgnet_ehull"]).abs(), both["ours"].corr(both["chgnet_ehull"])
        print(f"{name}, {label} hull: n {len(both)}, r {r:.3f}, MAE {off.mean():.4f} eV/atom; most off:")
        print(both.loc[off.nlargest(4).index].to_string(index=False))


if __name__ == "__main__":
    tyro.cli(main)
