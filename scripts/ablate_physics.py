"""What physics does to the generator: the same genes and noise, with and without it, judged by others.

Run: python scripts/ablate_physics.py --n 200 --out runs/ablation
The guide is our distilled potential; the judges are the formation energy's judge and CHGNet, unrelaxed.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro

import autoperi
import property_models
from autoperi.dataset import load_dataset
from autoperi.generator import SampleConfig
from evaluation.matching import duplicates
from evaluation.validity import smact_valid, structural_validity
from property_models.physics.chgnet_potential import CHGNetPotential
from property_models.physics.guidance import energy_guidance
from property_models.physics.hull import SoftHull
from property_models.physics.losses import loss_figures


def main(
    out: Path, n: int = 200, seed: int = 0, strengths: tuple[float, ...] = (0.0, 0.01, 0.02, 0.03)
) -> None:
    """One row for each strength of guidance, in Å²/eV; 0 is the plain generator."""
    torch.set_num_threads(1)
    generator, judge = autoperi.load("mp_20"), property_models.load("formation_energy", "judge")
    hull, chgnet, rows = SoftHull.from_dataset(load_dataset("mp_20", "train")), CHGNetPotential(), []
    for strength in strengths:
        guide = energy_guidance(generator.flow, strength) if strength else None
        drawn = generator.sample(n, seed, config=SampleConfig(workers=2), guide=guide)
        figures, floor = loss_figures(drawn, chgnet, hull)
        row = {"strength": strength, "n": n, **figures}
        row["e_hull judge"] = np.median(judge.predict(drawn)["value"] - floor)
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
