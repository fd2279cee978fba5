"""Train the critic of stability on labelled draws, say how well it ranks, and put it into a checkpoint.

Run: python scripts/shipped/train_stability.py --labels runs/labels --out runs/stability
The last tenth of the labels is held out: rank correlation, area under the curve and lift are of it. The
shares that are refused are those of the generator's own draws: 8,000, seed 1. Without --labels the critic
stays as it is, and these shares alone are taken anew, as they must be once the priors have changed.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro
from scipy.stats import rankdata, spearmanr
from torch import Tensor, arange

import autoperi
from autoperi.data.files import crystal_of_record
from autoperi.flow.relatives import Relatives
from autoperi.generator import CrystalGenerator, save
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.described import LabelledGenes
from autoperi.genes.critics.kin import KIN
from autoperi.genes.critics.stability import StabilityConfig, StabilityCritic, stability_loss
from autoperi.training.fit import BatchData, FitConfig, Training, fit, seeded
from autoperi.training.states import averaged_weights

STABLE, _SIZES, _DRAWN = 0.08, StabilityConfig(), 8000
FIT = FitConfig(
    epochs=60, batch_size=256, lr=2e-3, warmup=50, cooldown=50, weight_decay=0.05, ema=0.99, devices=1
)


class StabilityTraining(Training):
    """Regression of energies above the hull (`stability_loss`)."""

    network: StabilityCritic

    def loss(self, batch: LabelledGenes, generator: object) -> dict[str, Tensor]:
        """The one term of a batch; nothing is drawn."""
        del generator
        return {"total": stability_loss(self.network, batch)}


def main(
    out: Path, labels: Path | None = None, checkpoint: str = "mp_20", sizes: StabilityConfig = _SIZES
) -> None:
    """Fit, hold out, write ``out/checkpoint``."""
    generator = autoperi.load(checkpoint)
    relatives = generator.relatives()
    if relatives is None:
        raise SystemExit(f"{checkpoint} carries no relatives: train it again")
    critic, about = generator.stability, generator.about
    if labels:
        critic, seen = _fitted(generator, relatives, labels, out, sizes)
        about = {**about, "stability": f"{seen} draws relaxed by CHGNet 0.3.0, symmetry kept"}
    elif critic is None:
        raise SystemExit(f"{checkpoint} has no critic of stability: give --labels")
    drawn = generator.learned_genes().sample(range(_DRAWN), 1)
    critic.calibrate(drawn, relatives.distances(drawn, KIN))
    made = CrystalGenerator(replace(generator.config, stability=critic.config))
    weights = {k: v for k, v in generator.state_dict().items() if not k.startswith("stability.")}
    made.load_state_dict({**weights, **{f"stability.{k}": v for k, v in critic.state_dict().items()}})
    print(save(made, out / "checkpoint", about))


def _fitted(
    generator: CrystalGenerator, relatives: Relatives, labels: Path, out: Path, sizes: StabilityConfig
) -> tuple[StabilityCritic, int]:
    """The critic fitted to the labels, and how many there were; says how well it ranks the others."""
    files = sorted(labels.glob("labels-*.jsonl"), key=lambda file: int(file.stem.split("-")[1]))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    crystals = [crystal_of_record(row["crystal"]) for row in rows]
    energies = [row["e_above_hull"] for row in rows]
    labelled = [replace(c, properties={"e": e}) for c, e in zip(crystals, energies, strict=True)]
    data = LabelledGenes(GeneBatch.from_crystals(labelled, ["e"]), relatives.distances(crystals, KIN))
    held = len(data) // 10
    seen, held_out = (data.select(part) for part in arange(len(data)).split([len(data) - held, held]))
    with seeded(FIT.seed):
        critic = StabilityCritic(sizes)
    critic.standardise(seen.genes, seen.kin)
    best = fit(StabilityTraining(critic, FIT), BatchData(seen, held_out, FIT.batch_size, FIT.seed), FIT, out)
    critic.load_state_dict(averaged_weights(best))
    critic.eval()
    formulas = set(generator.empirical_genes().formulas())
    new = np.array([c.formula not in formulas for c in crystals[-held:]])
    expected = critic.expected(crystals[-held:], held_out.kin)
    print(f"{len(seen)} labels, {held} held out")
    for name, own in (("all", np.ones(held, bool)), ("new formula", new)):
        _say(name, np.array(expected)[own], held_out.genes.conditions[:, 0].numpy()[own])
    return critic, len(seen)


def _say(name: str, expected: np.ndarray, true: np.ndarray) -> None:
    """Ranking of one class of draws."""
    stable, rank = true < STABLE, rankdata(-expected)
    n, m = stable.sum(), (~stable).sum()
    area = (rank[stable].sum() - n * (n + 1) / 2) / (n * m)
    order = np.argsort(expected)
    best = {share: stable[order[: int(share * len(order))]].mean() for share in (1, 0.75, 0.5, 0.25)}
    lift = ", ".join(f"{share:.0%} {found:.3f}" for share, found in best.items())
    error = np.abs(np.clip(expected, -0.2, 0.6) - np.clip(true, -0.2, 0.6)).mean()
    print(
        f"{name} n {len(true)}: AUC {area:.3f}, rank correlation {spearmanr(expected, true)[0]:.3f}, "
        f"MAE {error:.3f} eV/atom; stable among the best {lift}"
    )


if __name__ == "__main__":
    tyro.cli(main)
