"""Random points of the latent space, those of each crystal from its own seed."""

from collections.abc import Sequence

import numpy as np
import torch

from autoperi.crystals.crystal import CrystalBatch
from autoperi.flow.velocity import LATENT_MANIFOLD, latent_masks
from autoperi.networks.manifold import Point


def seeded_noise(batch: CrystalBatch, seeds: Sequence[tuple[int, ...]], latent: int) -> Point:
    """Base points, those of each crystal from its own seed."""
    counts = torch.bincount(batch.crystal, minlength=batch.n_crystals).tolist()
    parts = []
    for seed, k in zip(seeds, counts, strict=True):
        generator = torch.Generator().manual_seed(noise_seed(*seed))
        shapes = ((k, latent), (k, 3), (1, 6))
        draws = zip(LATENT_MANIFOLD.factors, shapes, strict=True)
        parts.append(tuple(m.sample(shape, generator) for m, shape in draws))
    masks = latent_masks(batch, latent)
    return tuple(torch.cat(x).to(m) * m for x, m in zip(zip(*parts, strict=True), masks, strict=True))


def seeded_signs(
    batch: CrystalBatch, probes: int, seeds: Sequence[tuple[int, ...]], latent: int
) -> list[Point]:
    """Points of ±1, those of each crystal from its own seed."""
    counts = torch.bincount(batch.crystal, minlength=batch.n_crystals).tolist()
    shapes = [((k, latent), (k, 3), (1, 6)) for k in counts]
    generators = [torch.Generator().manual_seed(noise_seed(*seed)) for seed in seeds]
    found = []
    for _ in range(probes):
        rows = [
            [torch.randint(0, 2, shape, generator=generator) for shape in own]
            for own, generator in zip(shapes, generators, strict=True)
        ]
        found.append(tuple(torch.cat(x).to(batch.free) * 2 - 1 for x in zip(*rows, strict=True)))
    return found


def noise_seed(seed: int, *key: int) -> int:
    """One 32-bit seed of several: torch's CPU generator ignores all higher bits of a seed."""
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])
