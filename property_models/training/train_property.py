"""From labelled crystals to a calibrated checkpoint in one call: the shipped properties and anybody's own."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoperi.data.cache import required, versions
from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.data.names import counted
from autoperi.data.reading.rows import LABEL_NAMES
from autoperi.data.run_folder import write_run
from autoperi.networks.checkpoint import half_precision
from autoperi.training.assemble import commit
from autoperi.training.folder import claim, occupied
from property_models.catalogue import find
from property_models.model import PropertyModel, load, save
from property_models.networks.energies import PotentialEnergy
from property_models.networks.ensemble import HULL_TARGET, Ensemble, figures
from property_models.networks.targets import TARGETS, Half, half_of, unknown_name
from property_models.training.card import model_card
from property_models.training.fit_ensemble import LabelledGraphs, PropertyRecipe, fit_members
from property_models.training.search import best_recipe

_FEWEST = 30
"""Labelled crystals below which a test set would say nothing."""
_WATCHED = 1500
"""Validation crystals that are looked at after every epoch; all of them calibrate."""


@dataclass(frozen=True)
class Splits:
    """Train fits the weights, val chooses and calibrates, test is looked at once.

    Attributes:
        train, val, test: crystals.
        phases: crystals with formation energies, above whose hull energies are told as well.
    """

    train: CrystalDataset
    val: CrystalDataset
    test: CrystalDataset
    phases: CrystalDataset | None = None

    @classmethod
    def by_formula(cls, dataset: CrystalDataset) -> "Splits":
        """80/10/10 by a hash of the formula: polymorphs never straddle, and rows may come and go.

        Raises:
            ValueError: too few different compounds.
        """
        formulas = [crystal.formula for crystal in dataset]
        part = np.array([tenth(formula) for formula in formulas])
        chosen = {"train": part < 8, "val": part == 8, "test": part == 9}
        if not all(part.any() for part in chosen.values()):
            raise ValueError(
                f"expected enough compounds for train, val and test: got {len(set(formulas))} formulas in "
                f"{len(dataset)} rows; more different compounds are needed"
            )
        return cls(
            *(
                replace(dataset.select(np.flatnonzero(part)), name=f"{dataset.name}/{name}")
                for name, part in chosen.items()
            )
        )


@dataclass(frozen=True)
class TrainedProperty:
    """What a training ends with.

    Attributes:
        model: as ``load(folder)`` gives it: figures are those of the weights on disk.
        figures: of the test set, see ``ensemble.figures``.
        rows: crystals with at least one label in train, val and test.
        left_out: (id, where, reason) of rows that could not be used.
        labels: usable labels of each target in those rows; the others are missing, not finite, or have no
            logarithm where one is learned.
        unlabelled: ids of readable crystals without any of the labels; they are not used.
    """

    model: PropertyModel
    figures: dict[str, dict[str, float]]
    rows: tuple[int, int, int]
    left_out: list[tuple[str, str, str]]
    labels: dict[str, int]
    unlabelled: Sequence[str] = ()

    def summary(self) -> dict[str, str]:
        """Counts, and the held-out figures of each target."""
        train, val, test = self.rows
        rows = {
            "crystals": f"{train} to train, {val} to calibrate, {test} to test",
            "left out": f"{len(self.left_out)} unreadable, {counted(self.unlabelled, 'without a label')}",
        }
        for target, found in self.figures.items():
            unit = f" {TARGETS[target].unit}" if target in TARGETS else ""
            rows[target] = (
                f"MAE {found['mae']:.3g}{unit}, R² {found['r2']:.3f}, 90% intervals cover "
                f"{found['coverage_90']:.0%} of {found['n']:.0f} held out; {self.labels[target]} labels"
            )
        return rows


def train_property(
    path: str | Path,
    targets: Sequence[str],
    out: Path,
    recipe: PropertyRecipe | None = None,
    *,
    workers: int = 2,
    seed: int | None = None,
    search: int = 0,
    start: str | None = None,
) -> TrainedProperty:
    """Learn any numeric columns of a table of structures; a run that was interrupted goes on.

    A fifth of the compounds is held out by a hash of the formula, half to calibrate and half to test. The
    checkpoint is ``out/checkpoint``: give it to ``load`` or to ``predict_path``; ``out/run.json`` says what
    was read, learned and left out.

    Args:
        path: CSV with a column cif, poscar or structure, or whatever ``reading.iterate_rows`` reads.
        targets: columns to learn together; empty cells are missing labels.
        out: folder of logs, resumable checkpoints and the finished one.
        recipe: sizes and fit; by default epochs follow the number of crystals.
        workers: processes that symmetrise, and members trained at once.
        seed: replaces the recipe's.
        search: trials of a search for better sizes and learning rate (``best_recipe``) before the training.
        start: replaces the recipe's: the checkpoint whose networks training starts from.

    Raises:
        CheckpointError: there is no such ``start``.
        ImportError: a search without optuna, which the extra ``search`` installs.
        ValueError: a search among sizes that ``start`` has settled, no readable structure, unknown column
            (the nearest is named), too few or constant labels, or a folder that holds another training.
    """
    if not targets:
        raise ValueError("expected the name of at least one column to learn: got none")
    if search:
        required("optuna", "search")
    dataset = load_dataset(path, None, workers=workers)
    known = sorted(name for name, values in dataset.labels.items() if np.isfinite(values).any())
    targets = list(dict.fromkeys(_column(target, known, path) for target in targets))
    labelled = np.any([np.isfinite(dataset.labels[target]) for target in targets], 0)
    if labelled.sum() < _FEWEST:
        raise ValueError(
            f"expected at least {_FEWEST} crystals with a label of {', '.join(targets)} in {path}: got "
            f"{int(labelled.sum())} of {len(dataset)}"
        )
    recipe = recipe or _recipe_for(int(labelled.sum()))
    if seed is not None:
        recipe = replace(recipe, fit=replace(recipe.fit, seed=seed))
    recipe = replace(recipe, targets=tuple(targets), start=start or recipe.start).filled()
    if search and recipe.start:
        raise ValueError(f"expected no search where {recipe.start} settles the sizes: got {search} trials")
    splits = Splits.by_formula(dataset.select(np.flatnonzero(labelled)))
    if search:
        claim(out / "search", _training(recipe, splits))
        recipe = best_recipe(recipe, splits.train, splits.val, out / "search", search)
    trained = train_ensemble(recipe, splits, out, workers)
    trained = replace(trained, unlabelled=dataset.ids[~labelled].tolist())
    counts = {"crystals": trained.rows, "unlabelled": trained.unlabelled, "labels": trained.labels}
    found = {**counts, "figures": trained.figures, "failures": trained.left_out}
    write_run(out, {"source": str(path), "recipe": repr(recipe), "model": trained.model.sha256, **found})
    return trained


def train_ensemble(recipe: PropertyRecipe, splits: Splits, out: Path, workers: int = 1) -> TrainedProperty:
    """Train, calibrate, save and measure one ensemble; goes on where a run of the same was interrupted.

    Raises:
        ValueError: the folder holds a training with another recipe or other data.
    """
    with occupied(out):
        return _train_ensemble(recipe.filled(), splits, out, workers)


def _train_ensemble(recipe: PropertyRecipe, splits: Splits, out: Path, workers: int) -> TrainedProperty:
    claim(out, _training(recipe, splits))
    targets = recipe.targets + ((HULL_TARGET,) if splits.phases else ())
    train, val = (
        LabelledGraphs.from_dataset(part, recipe.network)
        for part in (_half(splits.train, recipe.half), splits.val)
    )
    test = LabelledGraphs.from_dataset(splits.test, recipe.network, targets)
    if len(train) < recipe.fit.batch_size:
        recipe = replace(recipe, fit=replace(recipe.fit, batch_size=max(8, len(train) // 4)))
    watched = val.select(torch.linspace(0, len(val) - 1, min(_WATCHED, len(val))).long())
    baseline = PotentialEnergy() if recipe.potential else None
    fitted, watched = (part.beyond(baseline) if baseline else part for part in (train, watched))
    members = fit_members(recipe, fitted, watched, out, workers)
    corrected, hull = baseline.sha256 if baseline else "", splits.phases is not None
    ensemble = Ensemble.of(members, recipe.family, corrected, hull)
    if splits.phases:
        ensemble.phases.learn(splits.phases)
    ensemble.load_state_dict(half_precision(ensemble))  # calibrate and measure what is saved
    ensemble.domain.learn(train.graphs, train.labels.isfinite())
    ensemble.calibrate(train.graphs, val.graphs, val.labels)
    measured = figures(ensemble, test.graphs, test.labels)
    alone = figures(ensemble.first(), test.graphs, test.labels)
    made_with = versions("autoperi-gnn", "torch", "lightning", "e3nn")
    about: dict[str, Any] = {
        "data": f"{splits.train.name}, {len(train)} training crystals (half: {recipe.half})",
        "calibrated on": f"{splits.val.name}, {len(val)} crystals",
        "tested on": f"{splits.test.name}, {len(test)} crystals",
        "figures": measured,
        "figures of the first network alone": alone,
        "recipe": repr(recipe),
        "command": " ".join(sys.argv),
        "versions": ", ".join(f"{name} {version}" for name, version in made_with.items()),
        "commit": commit(),
    }
    if recipe.start:
        about["start"] = f"{recipe.start}, sha256 {load(find(recipe.start)).sha256}"
    if splits.phases:
        about["hull"] = f"{splits.phases.name}, {len(splits.phases)} crystals"
    folder = out / "checkpoint"
    save(ensemble, folder, about)
    model = load(folder)
    (folder / "MODEL_CARD.md").write_text(model_card(model, out / "member-0"))
    parts = {id(part): part for part in (splits.train, splits.val, splits.test)}.values()
    left_out = {row: None for part in parts for row in part.failures}
    labels = sum(part.labels.isfinite()[:, : len(recipe.targets)].sum(0) for part in (train, val, test))
    counts = dict(zip(recipe.targets, torch.as_tensor(labels).tolist(), strict=True))
    return TrainedProperty(model, measured, (len(train), len(val), len(test)), list(left_out), counts)


def _training(recipe: PropertyRecipe, splits: Splits) -> dict[str, Any]:
    """All that decides what is learned, for `claim`."""
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    data = {
        name: replace(part, labels={t: part.labels[t] for t in recipe.targets}).content_hash()
        for name, part in parts.items()
    }
    if splits.phases:
        data["phases"] = splits.phases.content_hash()
    start = {"start": load(find(recipe.start)).sha256} if recipe.start else {}
    if recipe.potential:
        start["potential"] = PotentialEnergy().sha256
    fitting = {**asdict(recipe.fit), "devices": 1}
    return {**asdict(recipe), "fit": fitting, **start, "data": data}


def _column(target: str, known: Sequence[str], path: str | Path) -> str:
    """The label that a target names, by our name or that of the public data sets.

    Raises:
        ValueError: no such column, or two that mean the same.
    """
    name = LABEL_NAMES.get(target, target)
    same = [column for column in known if LABEL_NAMES.get(column, column) == name]
    if len(same) > 1:
        raise ValueError(
            f"expected one column for {target!r} in {path}: got {' and '.join(map(repr, same))}, which mean "
            "the same; remove or rename the one that is not meant"
        )
    if not same:
        raise unknown_name(target, known, f"a numeric column of {path}")
    return same[0]


def _half(dataset: CrystalDataset, half: Half) -> CrystalDataset:
    """The compounds of a training set that a family may see."""
    if half == "all":
        return dataset
    return dataset.select(np.flatnonzero(half_of([crystal.formula for crystal in dataset], half)))


def tenth(formula: str) -> int:
    """Which tenth of all compounds one is in, by a hash of its formula."""
    return int.from_bytes(hashlib.sha256(f"split {formula}".encode()).digest()[:4], "big") % 10


def _recipe_for(crystals: int) -> PropertyRecipe:
    """Some 6,000 steps whatever the size of the set, but 60 to 300 epochs."""
    recipe = PropertyRecipe(family="own")
    epochs = int(np.clip(400_000 // crystals, 60, 300))
    return replace(recipe, fit=replace(recipe.fit, epochs=epochs, cooldown=epochs * 2 // 5))
