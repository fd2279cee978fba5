"""What each convolution is worth: the same rows, the same budget, one row of a table each."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autoperi.data.dataset import CrystalDataset
from property_models.networks.crystal_gnn import Convolution
from property_models.networks.ensemble import Ensemble, figures
from property_models.training.fit_ensemble import LabelledGraphs, PropertyRecipe, fit_members

NEAREST = 12
"""Neighbours of the networks whose papers keep so many; smooth filters take all within the cutoff."""
_SMOOTH = ("orbit", "schnet", "painn", "nequip")


@dataclass(frozen=True)
class Compared:
    """One convolution, trained and measured.

    Attributes:
        mae, r2: on the validation rows, in the unit of the (first) target.
        parameters: of the network.
        milliseconds: processor time per crystal to predict, graphs at hand.
        seconds: processor time to train.
    """

    convolution: Convolution
    mae: float
    r2: float
    parameters: int
    milliseconds: float
    seconds: float


def compare(
    convolutions: Sequence[Convolution],
    train: CrystalDataset,
    val: CrystalDataset,
    recipe: PropertyRecipe,
    out: Path,
) -> Iterator[Compared]:
    """Train one network of each convolution with the sizes and the fit of ``recipe``; results as they come.

    An interrupted comparison goes on where it stopped (the training seconds are then those of the rest).
    """
    for name in convolutions:
        nearest = None if name in _SMOOTH else NEAREST
        network = replace(recipe.network, convolution=name, nearest=nearest)
        own = replace(recipe, members=1, family=name, network=network).filled()
        seen, held_out = (LabelledGraphs.from_dataset(part, own.network) for part in (train, val))
        began = time.process_time()
        ensemble = Ensemble.of(fit_members(own, seen, held_out, out / name), name)
        trained = time.process_time()
        with torch.no_grad():
            ensemble.predict(held_out.graphs)
        predicted = time.process_time()
        found = figures(ensemble, held_out.graphs, held_out.labels)[own.targets[0]]
        yield Compared(
            convolution=name,
            mae=found["mae"],
            r2=found["r2"],
            parameters=sum(p.numel() for p in ensemble.parameters()),
            milliseconds=1e3 * (predicted - trained) / len(held_out),
            seconds=trained - began,
        )
