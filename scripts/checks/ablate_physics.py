"""What physics does to a generator, in sampling and in training: the same genes and noise, judged by others.

Run: python scripts/checks/ablate_physics.py --out runs/ablation --checkpoints mp_20 runs/tuned/checkpoint
The guide is our distilled potential; the judges are the formation energy's judge and CHGNet, unrelaxed.
Changes are from the first row, crystal by crystal, with 95% bootstrap intervals of their median.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import tyro
from scipy.stats import bootstrap

import autoperi
import property_models
from autoperi.data.dataset import load_dataset
from autoperi.generator import SampleConfig
from evaluation.facts.matching import duplicates
from evaluation.metrics.validity import smact_valid, structural_validity
from property_models.physics.guidance import energy_guidance
from property_models.physics.losses import loss_table
from property_models.potentials.chgnet_potential import CHGNetPotential
from property_models.potentials.hull import SoftHull

_DRAWING = SampleConfig(workers=2)


def main(
    out: Path,
    n: int = 200,
    seed: int = 0,
    checkpoints: tuple[str, ...] = ("mp_20",),
    strengths: tuple[float, ...] = (0.0, 0.01, 0.02, 0.03),
    drawing: Annotated[SampleConfig, tyro.conf.OmitArgPrefixes] = _DRAWING,
) -> None:
    """One row for each checkpoint and strength of guidance, in Å²/eV; 0 is the plain sampler."""
    torch.set_num_threads(1)
    judge, chgnet, rows = property_models.load("formation_energy", "judge"), CHGNetPotential(), []
    hull, first = SoftHull.from_dataset(load_dataset("mp_20", "train")), None
    for name, strength in ((name, strength) for name in checkpoints for strength in strengths):
        generator = autoperi.load(name)
        guide = energy_guidance(generator.flow, strength) if strength else None
        drawn = generator.sample(n, seed, config=drawing, guide=guide)
        table = loss_table(drawn, chgnet, hull)
        table["judge"] = judge.predict(drawn)["value"] - table["floor"]
        first = table if first is None else first
        row = {
            "checkpoint": name,
            "strength": strength,
            "n": n,
            "energy loss": table["e_hull"].clip(0).mean(),
        }
        row |= {column: table[column].median() for column in ("force", "stress", "e_hull", "judge")}
        for column in ("e_hull", "judge") if table is not first else ():
            change = (table - first)[column].to_numpy()
            low, high = bootstrap((change,), np.median, rng=0).confidence_interval
            row[f"change of {column}"] = f"{np.median(change):+.4f} [{low:.4f}, {high:.4f}]"
        structures = [c.to_structure() for c in drawn]
        row["structural"] = np.mean([structural_validity(s) for s in structures])
        row["smact14"] = np.mean([smact_valid(s.composition, "smact14") for s in structures])
        row["unique"] = np.mean([twin is None for twin in duplicates(structures).match])
        rows.append(row)
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(out / "ablation.csv", index=False)
    print(pd.DataFrame(rows).round(4).to_string(index=False))


if __name__ == "__main__":
    tyro.cli(main)
