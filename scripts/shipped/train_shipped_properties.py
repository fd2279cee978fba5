"""Train one of the ensembles that are shipped, and print how good it is on held-out crystals.

Run: python scripts/shipped/train_shipped_properties.py --targets formation_energy --out runs/formation_energy
Families: --family guide --half first; --family judge --half second --convolution painn --nearest 12
"""

from dataclasses import replace
from pathlib import Path

import torch
import tyro
from rich import print as show

from property_models.networks.crystal_gnn import CrystalGNNConfig
from property_models.networks.targets import Half
from property_models.training.fit_ensemble import PropertyRecipe
from property_models.training.hypothetical import Potential
from property_models.training.shipped import train_shipped


def main(
    out: Path,
    targets: tuple[str, ...] = ("formation_energy",),
    family: str = "guide",
    half: Half = "all",
    members: int = 3,
    epochs: int = 60,
    convolution: str = "orbit",
    nearest: int | None = None,
    config: Path | None = None,
    draws: Path | None = None,
    potential: Potential = "chgnet",
    workers: int = 2,
) -> None:
    """Flags, or a TOML file with fields of PropertyRecipe; ``workers`` members are trained at a time.

    ``draws``: labelled draws of the generator (`label_draws.py`) that energies are learned from as well.
    """
    torch.set_num_threads(1)
    network = CrystalGNNConfig(convolution=convolution, nearest=nearest)
    fit = replace(PropertyRecipe().fit, epochs=epochs, cooldown=epochs * 2 // 3)
    recipe = PropertyRecipe(targets, family, half, members, network=network, fit=fit)
    recipe = PropertyRecipe.read(config) if config else recipe
    show(train_shipped(recipe, out, workers=workers, draws=draws, potential=potential).figures)


if __name__ == "__main__":
    tyro.cli(main)
