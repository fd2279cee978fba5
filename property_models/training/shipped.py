"""The ensembles that are shipped: which crystals they learn from, are calibrated and are tested on."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoperi.data.dataset import CrystalDataset, load_dataset
from property_models.networks.targets import TARGETS, unknown_name
from property_models.training.fit_ensemble import PropertyRecipe
from property_models.training.hypothetical import WBM, Form, Potential, above_hull, hull_of, with_hypothetical
from property_models.training.train_property import Splits, TrainedProperty, tenth, train_ensemble

_ENERGY, _GAP = "formation_energy", "band_gap"


def train_shipped(
    recipe: PropertyRecipe,
    out: Path,
    data_dir: str | Path | None = None,
    workers: int = 2,
    draws: Path | None = None,
    potential: Potential = "chgnet",
) -> TrainedProperty:
    """Train one of the shipped ensembles on its data (`shipped_splits`).

    Args:
        recipe: its targets decide on the data; gaps are learned from half of WBM as well
            (`with_hypothetical`).
        out: folder of the training.
        data_dir: folder of the data sets.
        workers: members trained at once.
        draws: labelled draws (`scripts/shipped/label_draws.py`): energies are learned from them and half of
            WBM as well.
        potential: whose energies of the draws are learned.

    Raises:
        ValueError: draws for others than formation energies; and as ``shipped_splits``.
    """
    if draws and recipe.targets != (_ENERGY,):
        raise ValueError(f"expected labelled draws for {_ENERGY} alone: got {', '.join(recipe.targets)}")
    shown: tuple[Form, ...] = ("crystal",) if recipe.potential else ("crystal", "relaxed")
    splits = shipped_splits(recipe.targets, data_dir)
    if draws or recipe.targets == (_GAP,):
        splits = with_hypothetical(splits, table_of(WBM, data_dir), draws, potential, shown)
    return train_ensemble(recipe, splits, out, workers)


def shipped_splits(targets: Sequence[str], data_dir: str | Path | None = None) -> Splits:
    """The crystals that a shipped ensemble is trained, calibrated and tested on: the official split.

    Energies of test are also told above the hull of train and val; below it they are negative.

    Raises:
        ValueError: a target that none is shipped for, or targets of different data sets.
    """
    for target in targets:
        if target not in TARGETS:
            raise unknown_name(target, list(TARGETS), "a shipped property")
    sources = {TARGETS[target].data for target in targets}
    if len(sources) > 1:
        raise ValueError(f"expected targets of one data set: got {', '.join(targets)} from {sources}")
    (source,) = sources
    if source != "mp_20":
        return _aflow_splits(source, data_dir)
    hull = "e_above_hull" in targets
    parts = (load_dataset(source, split, data_dir, fill_hull=hull) for split in ("train", "val", "test"))
    splits = Splits(*parts)
    if _ENERGY in targets:
        phases = CrystalDataset.joined([splits.train, splits.val])
        splits = replace(splits, phases=phases, test=above_hull(splits.test, hull_of(phases)))
    return splits


def _aflow_splits(source: str, data_dir: str | Path | None) -> Splits:
    """The set's own train and val rows; val is our test, and a tenth of train's compounds calibrates."""
    import pandas as pd

    folder, file = source.split("/")[0], table_of(source, data_dir)
    dataset = load_dataset(file, None)
    table = pd.read_csv(file, dtype=str)
    given = dict(zip(table["material_id"], table["split_bulk_modulus"], strict=True))
    split = np.array([given.get(name, "") for name in dataset.ids])
    train, test = (dataset.select(np.flatnonzero(split == name)) for name in ("train", "val"))
    held = np.array([tenth(crystal.formula) == 8 for crystal in train])
    parts = (train.select(np.flatnonzero(~held)), train.select(np.flatnonzero(held)), test)
    names = ("train", "train (held out)", "val")
    return Splits(*(replace(part, name=f"{folder} {n}") for part, n in zip(parts, names, strict=True)))


def table_of(name: str, data_dir: str | Path | None) -> Path:
    """A table below the data folder, by folder and stem; raises FileNotFoundError with what to do."""
    base = data_dir or os.environ.get("AUTOPERI_DATA")
    for suffix in (".csv.gz", ".csv"):
        if base and (file := Path(base).expanduser() / f"{name}{suffix}").exists():
            return file
    raise FileNotFoundError(
        f"expected {name}.csv.gz below the data folder ({base or 'not given'}): it is not "
        "downloaded by this package; give data_dir or set AUTOPERI_DATA to the folder that holds it"
    )
