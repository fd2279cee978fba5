"""Hyper-parameter search before a training: sizes and learning rate, by optuna's Parzen estimator."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from autoperi.data.cache import required
from autoperi.data.dataset import CrystalDataset
from property_models.networks.energies import CUTOFF, PotentialEnergy
from property_models.training.fit_ensemble import LabelledGraphs, PropertyRecipe, fit_members, property_loss

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

_SHARE = 4
"""A trial has this part of the recipe's epochs."""


def best_recipe(
    recipe: PropertyRecipe, train: CrystalDataset, val: CrystalDataset, out: Path, trials: int
) -> PropertyRecipe:
    """The recipe with the width, depth, cutoff and learning rate of the best trial.

    The first trial is the recipe as it is. A trial trains one network for a quarter of the epochs and is
    judged on ``val`` by ``property_loss``'s error; test crystals are never seen. Every trial is noted in
    ``out/trials.log``: an interrupted search goes on after its last finished one.

    Args:
        recipe: filled in (`PropertyRecipe.filled`).
        train: crystals that fit the weights.
        val: crystals that judge.
        out: folder of the trials.
        trials: how many in all.

    Raises:
        ImportError: optuna is not installed.
    """
    required("optuna", "search")
    import optuna
    from optuna.storages.journal import JournalFileBackend

    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(out / "trials.log"))),
        sampler=optuna.samplers.TPESampler(seed=recipe.fit.seed),
        study_name="search",
        load_if_exists=True,
    )
    if not study.trials:
        study.enqueue_trial(_as_it_is(recipe))
    done = len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))

    def judged(trial: "BaseTrial") -> float:
        return _judged(_suggested(recipe, trial), train, val, out / f"trial-{trial.number}")

    study.optimize(judged, n_trials=max(0, trials - done))
    return _suggested(recipe, optuna.trial.FixedTrial(study.best_params))


def _as_it_is(recipe: PropertyRecipe) -> dict[str, float]:
    network = recipe.network
    sizes = {"width": network.width, "layers": network.layers, "cutoff": network.cutoff}
    return {**sizes, "lr": recipe.fit.lr}


def _suggested(recipe: PropertyRecipe, trial: "BaseTrial") -> PropertyRecipe:
    """The recipe with the numbers of a trial, around its own."""
    own, step = recipe.network, max(1, recipe.network.width // 8)
    below = min(1.5, (own.cutoff - CUTOFF) // 0.5 * 0.5) if recipe.potential else 1.5
    network = replace(
        own,
        width=trial.suggest_int("width", own.width - 4 * step, own.width + 4 * step, step=step),
        layers=trial.suggest_int("layers", max(1, own.layers - 2), own.layers + 2),
        cutoff=trial.suggest_float("cutoff", own.cutoff - below, own.cutoff + 1.5, step=0.5),
    )
    lr = trial.suggest_float("lr", recipe.fit.lr / 4, recipe.fit.lr * 4, log=True)
    return replace(recipe, network=network, fit=replace(recipe.fit, lr=lr))


def _judged(recipe: PropertyRecipe, train: CrystalDataset, val: CrystalDataset, out: Path) -> float:
    epochs = max(1, recipe.fit.epochs // _SHARE)
    fit = replace(recipe.fit, epochs=epochs, cooldown=min(recipe.fit.cooldown, epochs) // 2)
    short = replace(recipe, members=1, fit=fit)
    seen, held_out = (LabelledGraphs.from_dataset(part, short.network) for part in (train, val))
    if recipe.potential:
        baseline = PotentialEnergy()
        seen, held_out = seen.beyond(baseline), held_out.beyond(baseline)
    (network,) = fit_members(short, seen, held_out, out)
    with torch.no_grad():
        parts = [property_loss(network, held_out.select(rows)) for rows in _batches(len(held_out))]
    weights = torch.tensor([float(len(rows)) for rows in _batches(len(held_out))])
    errors = torch.stack([part["error"] for part in parts])
    return float((errors * weights).sum() / weights.sum())


def _batches(n: int) -> tuple[torch.Tensor, ...]:
    return torch.arange(n).split(256)
