"""Energies above the hull of MP-20's formation energies against the official ones of val and test.

Run: python scripts/checks/hull.py     (needs AUTOPERI_DATA or a download; 14,686 rows, two minutes)
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from rich.progress import track

from autoperi.data.download import dataset_file
from evaluation.stability.hull import ConvexHull


def main(data_dir: Path | None = None, n: int | None = None, seed: int = 0) -> None:
    """Judge all labelled rows of val and test, or n of them drawn at random."""
    hull = ConvexHull.from_mp20(data_dir)
    paths = [dataset_file("mp_20", split, data_dir) for split in ("val", "test")]
    table: Any = pd.concat([pd.read_csv(p, keep_default_na=False) for p in paths])
    columns = ["formation_energy_per_atom", "e_above_hull"]
    table = table.assign(**{c: pd.to_numeric(table[c]) for c in columns}).dropna(subset=columns)
    table = table if n is None else table.sample(n, random_state=seed)
    rows = zip(table["pretty_formula"], table["formation_energy_per_atom"], strict=True)
    found = np.array([hull.above(f, e) for f, e in track(rows, "hull", total=len(table))])
    off = 1000 * np.abs(found - table["e_above_hull"].to_numpy())
    print(f"{len(table)} rows, {hull.n_phases} phases in the hull: MAE {off.mean():.2f} meV/atom")
    print("|off| quantiles 50/90/99/100%:", np.percentile(off, [50, 90, 99, 100]).round(2))


if __name__ == "__main__":
    tyro.cli(main)
