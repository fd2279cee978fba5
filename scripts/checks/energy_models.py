"""How good energy models are on crystals that need not hold: MP-20 test, odd rows of WBM, labelled draws.

Run: python scripts/checks/energy_models.py --draws runs/held_out_labels
The draws are labelled by shipped/label_draws.py with seeds that no training has seen. Of each set: error,
bias, cover of 90% intervals, share flagged, rank correlation with the energy above the hull, and the share of
crystals within 0.08 eV/atom among all, three quarters, half and the quarter that the model likes best.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from scipy.stats import spearmanr

import property_models
from autoperi.data.dataset import CrystalDataset
from property_models.training.hypothetical import (
    WBM,
    Potential,
    above_hull,
    hull_of,
    labelled_draws,
    wbm_rows,
)
from property_models.training.shipped import shipped_splits, table_of

STABLE, SHARES = 0.08, (1.0, 0.75, 0.5, 0.25)


def main(
    draws: Path,
    family: Literal["guide", "judge"] = "guide",
    potential: Potential = "chgnet",
    checkpoint: Path | None = None,
) -> None:
    """``checkpoint``: of formation energies; ``potential``: whose energies of draws are the true ones."""
    torch.set_num_threads(1)
    splits = shipped_splits(["formation_energy"])
    assert splits.phases
    sets = {"MP-20 test": splits.test, "WBM, odd rows": wbm_rows(table_of(WBM, None), "odd")}
    for form in ("crystal", "relaxed"):
        name = "draws as drawn" if form == "crystal" else "draws as relaxed"
        sets[name] = CrystalDataset.from_crystals(labelled_draws(draws, potential, [form]))
    hull = hull_of(splits.phases)
    sets = {name: above_hull(data, hull) for name, data in sets.items()}
    model = property_models.load(checkpoint or "formation_energy", family)
    print(f"{model.name}, sha256 {model.sha256[:12]}")
    for name, data in sets.items():
        known = np.isfinite(data.labels["formation_energy"]).nonzero()[0]
        _say(name, model.only(["formation_energy"]), data.select(known))


def _say(name: str, model: property_models.PropertyModel, data: CrystalDataset) -> None:
    """One line of figures."""
    table = model.predict(list(data))
    value, sigma = table["value"].to_numpy(), table["uncertainty"].to_numpy()
    error = value - data.labels["formation_energy"]
    above = data.labels["e_above_hull"]
    expected = above + error
    order = np.argsort(expected)
    kept = (above[order[: int(share * len(order))]] < STABLE for share in SHARES)
    best = ", ".join(f"{share:.0%} {held.mean():.1%}" for share, held in zip(SHARES, kept, strict=True))
    figures = [
        f"n {len(data)}",
        f"MAE {np.abs(error).mean():.4f}",
        f"bias {error.mean():+.4f} eV/atom",
        f"90% intervals cover {(np.abs(error) <= 1.645 * sigma).mean():.1%}",
        f"flagged {table['out_of_domain'].mean():.1%}",
        f"rank correlation {spearmanr(expected, above)[0]:.3f}",
        f"stable of the best {best}",
    ]
    print(f"  {name}: {', '.join(figures)}")


if __name__ == "__main__":
    tyro.cli(main)
