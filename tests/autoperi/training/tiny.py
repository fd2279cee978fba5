"""A small training set and a tiny autoencoder to train on it."""

import csv
from pathlib import Path

import torch

from autoperi.crystals.crystal import CrystalBatch
from autoperi.networks.autoencoder import Autoencoder
from autoperi.training.fit import FitConfig
from autoperi.training.stages import AutoencoderTraining, TrainingSet
from autoperi.training.states import read_state
from tests.autoperi.small import TINY_AUTOENCODER, small_crystal

SHORT = FitConfig(epochs=1, batch_size=8, warmup=2, cooldown=1, ema=0.5)


def training_set(n: int = 16) -> TrainingSet:
    groups = (2, 15, 36, 62, 166, 194, 216, 221)
    crystals = [small_crystal(groups[i % 8], i, sites=2, max_atoms=8) for i in range(n)]
    labels = torch.linspace(0, 2, n)[:, None].repeat(1, 3)
    return TrainingSet(CrystalBatch.from_crystals(crystals).to(dtype=torch.float32), labels)


def training(data: TrainingSet, config: FitConfig = SHORT) -> AutoencoderTraining:
    torch.manual_seed(0)
    network = Autoencoder(TINY_AUTOENCODER)
    network.decoder.scale.fit(data.crystals)
    return AutoencoderTraining(network, config)


def logged(out: Path) -> list[dict[str, str]]:
    rows = []
    for path in (out / "csv").rglob("metrics.csv"):
        with path.open() as file:
            rows += list(csv.DictReader(file))
    return rows


def last(folder: Path) -> dict:
    return read_state(folder / "last.ckpt")
