"""Our energies above the hull against published CHGNet ones (AUTOPERI_DATA/peers), crystal by crystal.

Published: Materials Project hull of 2023-02-07 with its corrections, clipped at 0. Ours: hull of the labelled
MP-20 rows (nothing larger or newer), references fitted to CHGNet, space group kept; clipped too. Resumable.
"""

from pathlib import Path

import pandas as pd
import tyro
from pymatgen.core import Composition, Structure

from evaluation.element_references import ElementReferences
from evaluation.hull import ConvexHull
from evaluation.readers import as_read_result, read_structures
from evaluation.reference import data_folder
from evaluation.stability import RelaxationSettings, StabilitySettings, stability_table


def main(n: int = 50, seed: int = 0, journal: Path = Path("published_e_hull.jsonl")) -> None:
    """Relax n random rows of each table; test rows are told by a formula that the split has once."""
    peers, test = data_folder() / "peers", pd.read_csv(data_folder() / "mp_20" / "test.csv.gz")
    settings = StabilitySettings(RelaxationSettings(keep_symmetry=True))
    cifs = test.drop_duplicates("pretty_formula", keep=False).set_index("pretty_formula")["cif"]
    sampled = read_structures(peers / "diffcsp_pp_mp20.npz", limit=1000).structures
    for name in ("DiffCSP++_mp_20_CHGNet_relaxed_symmetry.ehull", "mp20_test_1k_sample"):
        rows = pd.read_csv(peers / "ehull_tables" / f"{name}.csv.gz").sample(frac=1, random_state=seed)
        rows["cif"] = [cifs.get(Composition(f).reduced_formula) for f in rows["formula"]]
        rows = rows[rows["cif"].notna() | name.startswith("DiffCSP++")][:n]
        pairs = zip(rows["str_ind"], rows["cif"], strict=True)
        crystals = [Structure.from_str(c, "cif") if "test" in name else sampled[k] for k, c in pairs]
        hull, read = ConvexHull.from_mp20(data_folder()), as_read_result(crystals)
        ours = stability_table(read.samples, hull, ElementReferences.load(), settings, journal)
        rows = rows.assign(ours=ours["e_above_hull"].to_numpy().clip(0))[["formula", "ours", "chgnet_ehull"]]
        off, r = rows["ours"] - rows["chgnet_ehull"], rows["ours"].corr(rows["chgnet_ehull"])
        print(f"{name}: {off.count()} of {len(rows)} relaxed, correlation {r:.3f}, bias {off.mean():.4f},")
        print(f"MAE {off.abs().mean():.4f}, median {off.abs().median():.4f} eV/atom; {settings.protocol()}")
        print(rows.loc[off.abs().nlargest(5).index].to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    tyro.cli(main)
