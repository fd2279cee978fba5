"""Train the critic of targets on the labels of MP-20, say what it foretells, and put it into a checkpoint.

Run: python scripts/shipped/train_targets.py --out runs/targets
The epoch is chosen on val; errors, and the true share of what is foretold with a chance above a half, are of
test. Relatives are those among the other training crystals.
"""

from dataclasses import replace
from pathlib import Path

import torch
import tyro
from torch import Tensor

import autoperi
from autoperi.crystals.labels import Window
from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.flow.relatives import Relatives
from autoperi.generator import CrystalGenerator, save
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.described import LabelledGenes
from autoperi.genes.critics.kin import KIN
from autoperi.genes.critics.targets import TargetConfig, TargetCritic, target_loss
from autoperi.training.fit import BatchData, FitConfig, Training, fit, seeded
from autoperi.training.states import averaged_weights

FIT = FitConfig(
    epochs=40, batch_size=256, lr=2e-3, warmup=100, cooldown=36, weight_decay=0.05, ema=0.99, devices=1
)
WINDOWS = {
    "band_gap": [(g - 0.3, g + 0.3) for g in (0.5, 1.3, 2.5, 4.0)],
    "formation_energy": [(-3.0, -2.0), (-1.0, -0.5)],
}


class TargetTraining(Training):
    """Cross-entropy of histograms (`target_loss`)."""

    network: TargetCritic

    def loss(self, batch: LabelledGenes, generator: object) -> dict[str, Tensor]:
        """The one term of a batch; nothing is drawn."""
        del generator
        return {"total": target_loss(self.network, batch)}


def main(
    out: Path,
    checkpoint: str = "mp_20",
    conditions: tuple[str, ...] = ("band_gap", "formation_energy"),
    width: int = 256,
    members: int = 4,
) -> None:
    """Fit, hold out, write ``out/checkpoint``."""
    torch.set_num_threads(1)
    generator = autoperi.load(checkpoint)
    relatives = generator.relatives()
    if relatives is None:
        raise SystemExit(f"{checkpoint} carries no relatives: train it again")
    sizes = TargetConfig(
        {name: generator.config.conditions[name] for name in conditions}, width, members=members
    )
    seen, held_out, test = (
        _labelled(load_dataset("mp_20", split), relatives, sizes, themselves=split == "train")
        for split in ("train", "val", "test")
    )
    with seeded(FIT.seed):
        critic = TargetCritic(sizes)
    critic.standardise(seen.genes, seen.kin)
    fit(TargetTraining(critic, FIT), BatchData(seen, held_out, FIT.batch_size, FIT.seed), FIT, out)
    critic.load_state_dict(averaged_weights(out / "best.ckpt"))
    _say(critic.cpu().eval(), test)
    made = CrystalGenerator(replace(generator.config, targets=sizes))
    weights = {k: v for k, v in generator.state_dict().items() if not k.startswith("targets.")}
    made.load_state_dict({**weights, **{f"targets.{k}": v for k, v in critic.state_dict().items()}})
    print(save(made, out / "checkpoint", {**generator.about, "targets": f"{len(seen)} labelled crystals"}))


def _labelled(
    dataset: CrystalDataset, relatives: Relatives, sizes: TargetConfig, themselves: bool
) -> LabelledGenes:
    """Crystals of a split that have a label."""
    if themselves and [crystal.id for crystal in dataset] != list(relatives.ids):
        raise SystemExit("expected a checkpoint trained on MP-20, whose labels are learned: got another")
    kin = relatives.distances(dataset, KIN, themselves)
    data = LabelledGenes(GeneBatch.from_crystals(dataset, sizes.conditions), kin)
    return data.select((~data.genes.conditions.isnan()).any(dim=1).nonzero().squeeze(1))


def _say(critic: TargetCritic, test: LabelledGenes) -> None:
    """Errors and calibration."""
    with torch.no_grad():
        found = critic(test.genes, test.kin).exp().mean(dim=0)
    for k, name in enumerate(critic.names):
        true = test.genes.conditions[:, k]
        known = ~true.isnan()
        error = (critic.middles(found)[:, k] - true)[known].abs().mean()
        print(f"{name}: n {int(known.sum())}, MAE of the median {error:.4f}")
        for low, high in WINDOWS.get(name, []):
            chance = found[known, k] @ critic.inside(name, Window(low, high))
            hit, sure = torch.from_numpy(Window(low, high).hits(true[known].numpy())), chance >= 0.5
            print(
                f"  {low:g} to {high:g}: {hit.float().mean():.1%} of all; foretold of {int(sure.sum())}: "
                f"expected {chance[sure].mean():.1%}, true {hit[sure].float().mean():.1%}"
            )


if __name__ == "__main__":
    tyro.cli(main)
