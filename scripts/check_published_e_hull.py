"""Our energies above the hull against published CHGNet ones, crystal by crystal.

Run: python scripts/check_published_e_hull.py --n 50     (needs AUTOPERI_DATA with `peers/`; resumable)
Published: CHGNet, Materials Project hull of 2023-02-07 with its corrections, clipped at 0. Ours: CHGNet,
hull of the labelled MP-20 rows (nothing larger or newer), references fitted to CHGNet; clipped too.
"""

from pathlib import Path

import pandas as pd
import tyro
from pymatgen.core import Composition, Structure

from evaluation.element_references import ElementReferences
from evaluation.hull import ConvexHull
from evaluation.readers import Sample, read_structures
from evaluation.reference import data_folder
from evaluation.relaxation import RelaxationSettings
from evaluation.stability import StabilitySettings, stability_table

SETTINGS = StabilitySettings(RelaxationSettings(keep_symmetry=True))


def main(n: int = 50, seed: int = 0, journal: Path = Path("published_e_hull.jsonl")) -> None:
    """Relax n random rows of each table; test rows are told by a formula that the split has once."""
    peers, test = data_folder() / "peers", pd.read_csv(data_folder() / "mp_20" / "test.csv.gz")
    cifs = test.drop_duplicates("pretty_formula", keep=False).set_index("pretty_formula")["cif"]
    hull = ConvexHull.from_mp20(data_folder())
    for name in ("DiffCSP++_mp_20_CHGNet_relaxed_symmetry.ehull", "mp20_test_1k_sample"):
        table = pd.read_csv(peers / "ehull_tables" / f"{name}.csv.gz").sample(frac=1, random_state=seed)
        if name.startswith("DiffCSP++"):
            raw = read_structures(peers / "diffcsp_pp_mp20.npz", limit=1000).structures
            chosen = {i: raw[i] for i in table["str_ind"][:n]}
        else:
            table["cif"] = [cifs.get(Composition(f).reduced_formula) for f in table["formula"]]
            table = table[table["cif"].notna()]
            chosen = {r.str_ind: Structure.from_str(r.cif, "cif") for r in table[:n].itertuples()}
        samples = [Sample(str(i), structure) for i, structure in chosen.items()]
        ours = stability_table(samples, hull, ElementReferences.load(), SETTINGS, journal)
        pairs = pd.DataFrame({"ours": ours["e_above_hull"].to_numpy().clip(0)})
        pairs["published"] = table["chgnet_ehull"][:n].to_numpy()
        off = (pairs["ours"] - pairs["published"]).dropna()
        print(
            f"{name}: n {len(off)}, correlation {pairs.corr().iloc[0, 1]:.3f}, bias {off.mean():.4f}, ",
            end="",
        )
        print(f"MAE {off.abs().mean():.4f}, median {off.abs().median():.4f} eV/atom; {SETTINGS.protocol()}")
        worst = pairs.assign(formula=table["formula"][:n].to_numpy()).loc[off.abs().nlargest(5).index]
        print(worst.round(4).to_string(index=False))


if __name__ == "__main__":
    tyro.cli(main)
