"""How good models of band gaps are on crystals that hold and on others: MP-20 test, odd rows of WBM.

Run: python scripts/checks/gap_models.py --family judge
Of each set: error, of the median as a guess too, metals told from insulators, cover of 90% intervals, share
flagged, rank correlation of uncertainty and error. Then, for gaps that are asked of generators, the ceiling
of hits: which share of the real crystals of MP-20 test that have the gap, within some eV, the model puts
there, by plain count and by its distribution; and how much of all crystals that distribution expects there.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from scipy.stats import spearmanr

import property_models
from autoperi.crystals.labels import Window
from autoperi.data.dataset import CrystalDataset
from evaluation.metrics.conditional import ceiling_metrics
from property_models.networks.crystal_gnn import ZERO
from property_models.training.hypothetical import WBM, wbm_rows
from property_models.training.shipped import shipped_splits, table_of

GAPS, WITHIN = (0.5, 1.3, 2.5, 4.0), (0.1, 0.25, 0.3, 0.5, 1.0)
METALS, SOME, USUAL = Window(-np.inf, ZERO), Window(0.1, np.inf), Window(0.5, 5.0)


def main(family: Literal["guide", "judge"] = "guide", checkpoint: Path | None = None) -> None:
    """``checkpoint``: of band gaps."""
    torch.set_num_threads(1)
    model = property_models.load(checkpoint or "band_gap", family)
    print(f"{model.name}, sha256 {model.sha256[:12]}")
    windows = [Window.around(gap, within, "eV") for gap in GAPS for within in WITHIN]
    _say("WBM, odd rows", model, _labelled(wbm_rows(table_of(WBM, None), "odd")), [])
    test = _labelled(shipped_splits(["band_gap"]).test)
    values, chances = _say("MP-20 test", model, test, windows)
    truth = test.labels["band_gap"]
    print("asked, eV      n   ceiling by count   expected   of all: true  counted  expected")
    for window, chance in zip(windows, chances.T, strict=True):
        count, expected = ceiling_metrics(values, truth, window, model.name, chances=chance)
        shares = f"{window.hits(truth).mean():12.1%} {window.hits(values).mean():8.1%} {chance.mean():8.1%}"
        within = (window.high - window.low) / 2
        ceiling = f"{count.value:6.1%} [{count.low:.0%}, {count.high:.0%}] {expected.value:9.1%}"
        print(f"{window.target:4} ± {within:4.2f} {count.n:6} {ceiling} {shares}")


def _labelled(data: CrystalDataset) -> CrystalDataset:
    """The crystals with a gap, zero or not."""
    return data.select(np.flatnonzero(np.isfinite(data.labels["band_gap"])))


def _say(
    name: str, model: property_models.PropertyModel, data: CrystalDataset, windows: list[Window]
) -> tuple[np.ndarray, np.ndarray]:
    """One line of figures; values, and chances of windows."""
    table, truth = model.predict(list(data)), data.labels["band_gap"]
    chances = model.chances(list(data), [METALS, *windows])
    value, sigma = table["value"].to_numpy(), table["uncertainty"].to_numpy()
    error, metal = np.abs(value - truth), chances[:, 0] > 0.5
    figures = [
        f"n {len(data)}",
        f"MAE {error.mean():.4f} eV (guess {np.abs(truth - np.median(truth)).mean():.4f}",
        f"gaps above 0.1 eV {error[SOME.hits(truth)].mean():.4f}",
        f"0.5 to 5 eV {error[USUAL.hits(truth)].mean():.4f})",
        f"R² {1 - np.square(error).sum() / np.square(truth - truth.mean()).sum():.3f}",
        f"metals and insulators told apart {(metal == METALS.hits(truth)).mean():.1%}",
        f"90% intervals cover {(error <= 1.645 * sigma).mean():.1%}",
        f"flagged {table['out_of_domain'].mean():.1%}",
        f"rank correlation of uncertainty and error {spearmanr(sigma, error)[0]:.2f}",
    ]
    print(f"  {name}: {', '.join(figures)}")
    return value, chances[:, 1:]


if __name__ == "__main__":
    tyro.cli(main)
