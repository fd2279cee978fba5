"""Do crystals that were asked for a band gap have it? By the judge, which never steers.

Run: python scripts/check_judged_steering.py --n 500 --seed 0 --out runs/steering
Guidance 0 is unconditional. Base rate: the judge's own values of MP-20 train.
"""

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
from autoperi.crystals.labels import Window
from autoperi.data.dataset import load_dataset
from autoperi.generator import SampleConfig
from evaluation.facts.matching import duplicates
from evaluation.metrics.conditional import conditional_metrics
from evaluation.metrics.validity import smact_valid, structural_validity
from property_models.uses.picture import steered_distributions

GAPS, GUIDANCE = (0.5, 1.3, 2.5, 4.0), (0.0, 1.0, 2.0, 4.0)


_DRAWING = SampleConfig(workers=2)


def main(
    out: Path,
    n: int = 500,
    seed: int = 0,
    drawing: Annotated[SampleConfig, tyro.conf.OmitArgPrefixes] = _DRAWING,
) -> None:
    """Every gap at every guidance, one row each, and a picture."""
    torch.set_num_threads(1)
    generator, judge = autoperi.load("mp_20"), property_models.load("band_gap", "judge")
    base = judge.predict(list(load_dataset("mp_20", "train")))["value"].to_numpy()
    rows, judged, free = [], {}, generator.sample(n, seed, config=drawing)
    for gap, guidance in track([(gap, g) for gap in GAPS for g in GUIDANCE], "sampling"):
        config = replace(drawing, guidance=guidance)
        drawn = generator.sample(n, seed, conditions={"band_gap": gap}, config=config) if guidance else free
        structures = [c.to_structure() for c in drawn]
        valid = np.array([structural_validity(s) for s in structures])
        values = np.where(valid, judge.predict(drawn)["value"], np.nan)
        judged[gap, guidance] = values
        found = conditional_metrics(values, Window.around(gap, 0.3, "eV"), base, "band_gap judge")
        row = {"gap": gap, "guidance": guidance, "n": n, **{m.name: m.value for m in found}}
        row |= {"hit_low": found[0].low, "hit_high": found[0].high, "structural": valid.mean()}
        row["smact14"] = np.mean([smact_valid(s.composition, "smact14") for s in structures])
        row["unique"] = np.mean([twin is None for twin in duplicates(structures).match])
        rows.append(row)
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(out / "steering.csv", index=False)
    steered_distributions(judged, base, 0.3, "judged band gap (eV)").savefig(out / "steering.png", dpi=150)
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    tyro.cli(main)
