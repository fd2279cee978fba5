"""Core-seconds of a crystal: drawn here, and by a network of the size of DiffCSP's over all of its steps.

Run: python scripts/benchmarks/compare_cost.py --n 200
Random weights suffice for timing. Sizes are those of arXiv:2309.04475 for MP-20: six layers of width 512 on
all pairs of atoms, 128 frequencies, 1,000 steps of a predictor and a corrector, the network once in each.
"""

import time

import torch
import tyro
from torch import Tensor, nn

import autoperi
from autoperi.generator import SampleConfig
from autoperi.networks.layers import mean_by

WIDTH, LAYERS, FREQUENCIES, EVALUATIONS = 512, 6, 128, 2000


class Layer(nn.Module):
    """Messages of all ordered pairs of atoms: both ends, inner products of the cell, their distance."""

    def __init__(self) -> None:
        super().__init__()
        inputs = 2 * WIDTH + 9 + 6 * FREQUENCIES
        self.edge = nn.Sequential(nn.Linear(inputs, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.site = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, sites: Tensor, i: Tensor, j: Tensor, pair: Tensor) -> Tensor:
        """One round."""
        known = self.norm(sites)
        messages = self.edge(torch.cat([known[i], known[j], pair], -1))
        mean = mean_by(messages, i, len(sites))
        return sites + self.site(torch.cat([known, mean], -1))


@torch.no_grad()
def main(n: int = 200, seed: int = 0, evaluations: int = 3) -> None:
    """One thread. Ours is timed once warm; theirs by a few evaluations on the atoms of our crystals."""
    torch.set_num_threads(1)
    generator = autoperi.load("mp_20")
    generator.sample(8, seed=seed)
    began = time.process_time()
    crystals = generator.sample(n, seed=seed, config=SampleConfig())
    ours = (time.process_time() - began) / n
    layers = nn.ModuleList(Layer() for _ in range(LAYERS))
    atoms = torch.tensor([c.n_atoms for c in crystals[:64]])
    own = [torch.arange(int(end - m), int(end)) for m, end in zip(atoms, atoms.cumsum(0), strict=True)]
    i, j = torch.cat([torch.cartesian_prod(a, a) for a in own]).T
    sites, pair = torch.randn(int(atoms.sum()), WIDTH), torch.randn(len(i), 9 + 6 * FREQUENCIES)
    began = time.process_time()
    for _ in range(evaluations):
        found = sites
        for layer in layers:
            found = layer(found, i, j, pair)
    theirs = (time.process_time() - began) / evaluations / len(atoms) * EVALUATIONS
    print(f"{n} crystals of {atoms.double().mean():.1f} atoms: ours {ours:.3f} core-seconds each,")
    print(f"a network of DiffCSP's size {theirs:.0f}: {theirs / ours:.0f} times")


if __name__ == "__main__":
    tyro.cli(main)
