"""Structure prediction with true gene and composition: match rate and RMSE by free coordinates, METRe.

Run: python scripts/checks/csp.py --n 1000 --seed 0     (--k 20 for the best of 20 answers)
Beside it: --answer relative, the nearest relative's geometry as it is (none where there is no relative), and
--answer random, the flow's noise: uniform free coordinates, a cell of the family's usual shape and volume.
Matcher: StructureMatcher(stol .5, ltol .3, angle 10), RMSE in units of (V/N)^(1/3).
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
import tyro

import autoperi
from autoperi.crystals.crystal import Crystal
from autoperi.data.dataset import load_dataset
from autoperi.flow.settings import FlowSettings, StartSettings
from autoperi.generator import CrystalGenerator, SampleConfig
from evaluation.metrics.prediction import best_of_k_table, match_everyone, metre_metrics

_NEAR = StartSettings()


def main(
    n: int = 1000,
    k: int = 1,
    seed: int = 0,
    split: str = "test",
    checkpoint: str = "mp_20",
    start: Annotated[StartSettings, tyro.conf.OmitArgPrefixes] = _NEAR,
    answer: Literal["flow", "relative", "random"] = "flow",
    workers: int = 2,
) -> None:
    """Predict n random held-out crystals of MP-20, k samples each, of seeds seed to seed + k - 1."""
    held_out = load_dataset("mp_20", split)
    chosen = np.random.default_rng(seed).choice(len(held_out), min(n, len(held_out)), replace=False)
    truth = list(held_out.select(torch.from_numpy(chosen)))
    generator, config = (
        autoperi.load(checkpoint),
        SampleConfig(flow=FlowSettings(start=start), workers=workers),
    )
    if answer == "relative":
        relatives = generator.relatives()
        assert relatives is not None
        found = [relatives.ranked(gene, k) for gene in truth]
        answers = [[own.crystal.to_structure() for own in near] for near in found]
    else:
        draw = generator.draw if answer == "flow" else _random(generator)
        drawn = [draw(truth, seed + j, config=config) for j in range(k)]
        answers = [[crystal.to_structure() for crystal in own] for own in zip(*drawn, strict=True)]
    targets = [crystal.to_structure() for crystal in truth]
    table = best_of_k_table(answers, targets)
    free = np.array([c.n_free for c in truth])
    for name, low, high in (("all", 0, 999), ("0", 0, 0), ("1-4", 1, 4), ("5-8", 5, 8), (">=9", 9, 999)):
        rows = table[(free >= low) & (free <= high)]
        rate, rmse = 100 * rows["matched"].mean(), rows.loc[rows["matched"], "rmse"].mean()
        print(f"free coordinates {name:4s} n {len(rows):5d} match {rate:5.1f}% RMSE {rmse:.4f}")
    samples = [one for own in answers for one in own]
    for metric in metre_metrics(match_everyone(samples, targets, workers=workers)):
        print(f"{metric.name:18s} {metric.value:.4f} {metric.unit} of {metric.n} {metric.denominator}")


def _random(generator: CrystalGenerator) -> Callable[..., list[Crystal]]:
    """Crystals at the points where trajectories from noise begin."""

    def draw(genes: Sequence[Crystal], seed: int, config: SampleConfig) -> list[Crystal]:
        return generator.flow.trajectory(genes, seed, config.flow)[0].to_crystals()

    return draw


if __name__ == "__main__":
    tyro.cli(main)
