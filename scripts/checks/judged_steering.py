"""Do crystals that were asked for a band gap have it? By the judge, which never steers.

Run: python scripts/checks/judged_steering.py --n 500 --seed 0 --out runs/steering
Guidance 0 is unconditional; genes are chosen by their chance to have the gap, or not. Base rate: the judge's
own values of MP-20 train; ceiling: what it says of MP-20 test crystals that have the gap. Both beside the
plain count and the expected one (`chances`). Seconds are of a core, for a crystal.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import tyro
from rich.progress import track

import autoperi
import property_models
from autoperi.crystals.crystal import Crystal
from autoperi.crystals.labels import Window
from autoperi.data.dataset import load_dataset
from autoperi.generator import SampleConfig
from evaluation.facts.matching import duplicates
from evaluation.metrics.conditional import ceiling_metrics, conditional_metrics
from evaluation.metrics.validity import smact_valid, structural_validity
from property_models.training.shipped import shipped_splits
from property_models.uses.picture import steered_distributions

GAPS, WITHIN = (0.5, 1.3, 2.5, 4.0), (0.1, 0.25, 0.3, 0.5, 1.0)
WAYS = ((0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (1.0, 0.5), (2.0, 0.5))
"""Guidance, and the least chance by the gene alone (`SampleConfig.likely`)."""


_DRAWING = SampleConfig(workers=2)


def main(
    out: Path,
    n: int = 500,
    seed: int = 0,
    drawing: Annotated[SampleConfig, tyro.conf.OmitArgPrefixes] = _DRAWING,
) -> None:
    """Every gap at every guidance and window, one row each, and a picture."""
    torch.set_num_threads(1)
    generator, judge = autoperi.load("mp_20"), property_models.load("band_gap", "judge")
    base = judge.predict(list(load_dataset("mp_20", "train")))["value"].to_numpy()
    test = shipped_splits(["band_gap"]).test
    real = test.select(np.flatnonzero(np.isfinite(test.labels["band_gap"])))
    real_values, real_chances = _judged(judge, list(real))
    rows, judged, free = [], {}, generator.sample(n, seed, config=drawing)
    for gap, (guidance, likely) in track([(gap, way) for gap in GAPS for way in WAYS], "sampling"):
        config, asked = (
            replace(drawing, guidance=guidance, likely=likely),
            {"band_gap": (gap - 0.3, gap + 0.3)},
        )
        began = time.process_time()
        drawn = generator.sample(n, seed, conditions=asked, config=config) if guidance else free
        seconds = (time.process_time() - began) / n
        structures = [c.to_structure() for c in drawn]
        valid = np.array([structural_validity(s) for s in structures])
        values, chances = (np.where(valid, x.T, np.nan).T for x in _judged(judge, drawn))
        judged[gap, f"guidance {guidance:g}, likely {likely:g}"] = values
        same = {"n": n, "seconds": seconds, "structural": valid.mean()}
        same["smact14"] = np.mean([smact_valid(s.composition, "smact14") for s in structures])
        same["unique"] = np.mean([twin is None for twin in duplicates(structures).match])
        for within in WITHIN:
            window, column = Window.around(gap, within, "eV"), _WINDOWS.index((gap, within))
            found = conditional_metrics(values, window, base, "judge", chances=chances[:, column])
            truth, real_chance = real.labels["band_gap"], real_chances[:, column]
            found += ceiling_metrics(real_values, truth, window, "judge", chances=real_chance)
            row = {
                "gap": gap,
                "guidance": guidance,
                "likely": likely,
                "within": within,
                **{m.name: m.value for m in found},
            }
            rows.append({**row, "hit_low": found[0].low, "hit_high": found[0].high, **same})
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(out / "steering.csv", index=False)
    steered_distributions(judged, base, 0.3, "judged band gap (eV)").savefig(out / "steering.png", dpi=150)
    print(pd.DataFrame(rows).round(3).to_string(index=False))


_WINDOWS = [(gap, within) for gap in GAPS for within in WITHIN]


def _judged(judge: property_models.PropertyModel, crystals: list[Crystal]) -> tuple[np.ndarray, np.ndarray]:
    """Band gaps of crystals, eV, and how likely each lies in each of the windows."""
    windows = [Window.around(gap, within) for gap, within in _WINDOWS]
    return judge.predict(crystals)["value"].to_numpy(), judge.chances(crystals, windows)


if __name__ == "__main__":
    tyro.cli(main)
