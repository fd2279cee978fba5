"""Our e_hull against published CHGNet ones (AUTOPERI_DATA/peers; hull of MP of 2023-02-07), clipped at 0."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from pymatgen.core import Composition

from autoperi.data.element_references import ElementReferences
from autoperi.data.reading import as_read_result, read_structures
from evaluation.relaxation.relaxation import RelaxationSettings
from evaluation.stability.consistent_hull import MP_20, MPTS_52, consistent_hull, known_phases
from evaluation.stability.hull import ConvexHull
from evaluation.stability.stability import StabilitySettings, stability_table


def main(test_rows: bool = False, n: int = 50, journal: Path = Path("published_e_hull.jsonl")) -> None:
    """Relax n random rows of the DiffCSP++ table, or of the test split (told by a formula it has once)."""
    data, settings = (
        Path(os.environ["AUTOPERI_DATA"]),
        StabilitySettings(RelaxationSettings(keep_symmetry=True)),
    )
    name = "mp20_test_1k_sample" if test_rows else "DiffCSP++_mp_20_CHGNet_relaxed_symmetry.ehull"
    rows: Any = pd.read_csv(data / f"peers/ehull_tables/{name}.csv.gz").sample(frac=1, random_state=0)
    sampled = read_structures(data / "peers/diffcsp_pp_mp20.npz", limit=1000).structures
    formulas, crystal = known_phases(data, [("mp_20", "test")])
    formulas = [Composition(f).reduced_formula for f in formulas]
    repeated = pd.Series(formulas).duplicated(keep=False).tolist()
    once = {f: k for k, f in enumerate(formulas) if not repeated[k]}
    rows["test"] = [once.get(Composition(f).reduced_formula) for f in rows["formula"]]
    rows = (rows.dropna() if test_rows else rows)[:n]
    crystals = [crystal(int(k)) for k in rows["test"]] if test_rows else [sampled[k] for k in rows["str_ind"]]
    fit = ElementReferences.load()
    hulls = {"DFT, MP-20": (ConvexHull.from_mp20(data), fit)}
    for more, tables in (("MP-20", MP_20), ("MP-20 and MPTS-52", MP_20 + MPTS_52)):
        hulls[f"CHGNet, {more}"] = consistent_hull(
            *known_phases(data, tables), rows["formula"], fit, kept=journal.with_suffix(".phases.jsonl")
        )
    for label, hull in hulls.items():
        table = stability_table(as_read_result(crystals).samples, *hull, settings, journal)
        both = rows.assign(ours=table["e_above_hull"].clip(0).to_numpy())[["formula", "ours", "chgnet_ehull"]]
        off, r = both["ours"] - both["chgnet_ehull"], both["ours"].corr(both["chgnet_ehull"])
        apart = f"{(off > 0.005).sum()} more than 5 meV higher, {(off < -0.005).sum()} lower"
        print(f"{name}, hull by {label}: n {len(both)}, r {r:.3f}, MAE {off.abs().mean():.4f} eV/atom;")
        print(f"{apart}; most off:\n{both.loc[off.abs().nlargest(4).index].to_string(index=False)}")


if __name__ == "__main__":
    tyro.cli(main)
