"""What each choice of the sampler is worth: stable shares by novelty and by start, one choice more a row.

Run: python scripts/checks/ablate_choices.py --n 250 --out runs/ablation
Stable: within 0.08 eV/atom of the hull after relaxation by CHGNet, symmetry kept, fmax 0.1 eV/Å; CHGNet also
labelled what the critic and the energy model learned from. Interrupted, it goes on from its journal.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from numpy.typing import ArrayLike
from scipy.stats import binomtest

import autoperi
from autoperi.flow.settings import FlowSettings, StartSettings
from autoperi.generator import SampleConfig
from autoperi.genes.settings import DrawConfig
from evaluation import EvaluationSettings, evaluate
from evaluation.relaxation.settings import RelaxationSettings
from evaluation.stability.stability import StabilitySettings
from property_models.physics.descent import shipped_descent
from property_models.uses.screen import stable_within

STABLE = 0.08


def main(out: Path, n: int = 250, seed: int = 0, workers: int = 2) -> None:
    """Draw n crystals a row with the same seed, relax them, and print the table."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    generator = autoperi.load("mp_20")
    noise = SampleConfig(
        flow=FlowSettings(start=StartSettings("noise")), draw=DrawConfig(new_genes=0.13), stability=0.0
    )
    faithful = replace(noise, draw=DrawConfig())
    relatives = replace(faithful, flow=FlowSettings())
    critic = replace(relatives, stability=None)
    novel = replace(critic, novel=True)
    rows = {
        "13% new genes, from noise": noise,
        "genes as learned": faithful,
        "and from relatives (--stability 0)": relatives,
        "and the critic of stability (default)": critic,
        "and --novel": novel,
        "and --tries 4": replace(novel, tries=4),
        "--novel --stable 0.05": novel,
    }
    found = {}
    for name, config in rows.items():
        keep = stable_within(0.05, workers) if "--stable" in name else None
        config = replace(config, workers=workers)
        crystals = generator.sample(n, seed, config=config, descent=shipped_descent(), keep=keep)
        judged = evaluate(
            [crystal.to_structure() for crystal in crystals],
            settings=EvaluationSettings(
                stability=StabilitySettings(
                    relaxation=RelaxationSettings(keep_symmetry=True), workers=workers
                )
            ),
            workers=workers,
            journal=out / "relaxations.jsonl",
        )
        table = judged.per_structure.assign(
            start=[crystal.provenance.get("start", "noise") for crystal in crystals],
            stable=judged.per_structure["e_above_hull"] <= STABLE,
        )
        table.to_csv(out / f"{len(found)}.csv", index=False)
        found[name] = _cells(table) | {
            "S.U.N.": _said(table["stable"] & table["unique"] & table["novel"]),
            "matches raw": _said(table["matches_raw"].eq(other=True)),
        }
        print(pd.DataFrame(found).T.to_markdown(), flush=True)


def _cells(table: pd.DataFrame) -> dict[str, str]:
    """Stable shares of all, and of the crystals of each level of novelty and each start."""
    cells = {"all": _said(table["stable"])}
    for column in ("novelty_level", "start"):
        for value, part in table.groupby(column):
            cells[str(value)] = _said(part["stable"])
    return cells


def _said(column: ArrayLike) -> str:
    """A share with its Wilson interval, and of how many."""
    are = np.asarray(column, dtype=bool)
    low, high = binomtest(int(are.sum()), len(are)).proportion_ci(method="wilson")
    return f"{100 * are.mean():.0f}% [{100 * low:.0f}, {100 * high:.0f}] of {len(are)}"


if __name__ == "__main__":
    tyro.cli(main)
