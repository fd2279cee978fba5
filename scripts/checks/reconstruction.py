"""Encode and decode MP-20 test crystals: species, match rate, geometry errors, what they cost in energy.

Run: python scripts/checks/reconstruction.py --n 2000     (needs AUTOPERI_DATA or a download)
"""

from dataclasses import replace

import numpy as np
import torch
import tyro

import autoperi
from autoperi.data.dataset import load_dataset
from autoperi.networks.autoencoder import Latents
from evaluation.metrics.reconstruction import CDVAE_MATCH, reconstruction_metrics, reconstruction_table
from evaluation.stability.hull_choice import HullChoice, load_hull
from evaluation.stability.pair_energies import energy_metrics, pair_energies


def main(n: int = 2000, seed: int = 0, checkpoint: str = "mp_20", sampled: bool = True) -> None:
    """Decode from a draw of q(h) (or its mean), true geometry, species hidden."""
    test = load_dataset("mp_20", "test")
    chosen = np.random.default_rng(seed).choice(len(test), min(n, len(test)), replace=False)
    truth = list(test.select(torch.from_numpy(chosen)))
    flow = autoperi.load(checkpoint).flow
    generator = torch.Generator().manual_seed(seed)
    latents = flow.encode(truth)
    if sampled:
        latents = [replace(x, mean=Latents.sample(x, generator)) for x in latents]
    decoded = flow.decode(latents, truth)
    pairs = list(zip(truth, decoded, strict=True))
    right = np.concatenate([a.species == b.species for a, b in pairs])
    print(f"crystals {len(pairs)}  sites {len(right)}  species accuracy {100 * right.mean():.2f}%")
    targets, rebuilt = ([crystal.to_structure() for crystal in side] for side in zip(*pairs, strict=True))
    metrics = reconstruction_metrics(reconstruction_table(rebuilt, targets), CDVAE_MATCH)
    hull = load_hull(HullChoice(), None, [s.composition for s in targets])
    metrics |= energy_metrics(pair_energies(rebuilt, targets, *hull), f"CHGNet, unrelaxed; {HullChoice()}")
    for name, metric in metrics.items():
        print(f"{name}: {metric.value:.5g} {metric.unit} [{metric.low:.5g}, {metric.high:.5g}] n {metric.n}")


if __name__ == "__main__":
    tyro.cli(main)
