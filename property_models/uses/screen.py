"""Screening: what properties the crystals of a file are predicted to have."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.labels import Window
from autoperi.crystals.viewer.page import crystal_scene, render_gallery
from autoperi.data.dataset import load_dataset
from autoperi.data.names import unique_ids, without_formulas
from autoperi.generator.choice import Keep
from property_models.model import PropertyModel, load, shipped
from property_models.networks.targets import TARGETS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Screened:
    """What ``predict_path`` found.

    Attributes:
        crystals: what was read, in the order of the table.
        table: one row per crystal: id, formula, space_group, atoms, and for each property its value,
            ``_uncertainty`` and ``_out_of_domain``.
        failures: (id, where, reason) of what could not be read.
        models: name and sha256 of what predicted each property.
    """

    crystals: Sequence[Crystal]
    table: "pd.DataFrame"
    failures: list[tuple[str, str, str]]
    models: dict[str, dict[str, str]]

    def save(self, out: Path) -> None:
        """Write ``predictions.csv``, ``distributions.png`` and ``index.html`` into a folder."""
        from property_models.uses.picture import predicted_distributions

        without_formulas(self.table).to_csv(out / "predictions.csv", index=False)
        predicted_distributions(self.table, list(self.models)).savefig(out / "distributions.png", dpi=130)
        (out / "index.html").write_text(self._gallery(), encoding="utf-8")

    def _gallery(self) -> str:
        ids = unique_ids(self.table["id"])
        rows = self.table.assign(id=ids).to_dict("records")
        units = ", ".join(f"{name} in {TARGETS[name].unit}" for name in self.models if name in TARGETS)
        lead = f"A heading sorts; predictions.csv has all columns. {units}"
        title = f"{len(rows)} crystals with predictions"
        return render_gallery(title, lead, rows, lambda k: crystal_scene(ids[k], self.crystals[k]))

    def record(self) -> dict:
        """For the run's record: models, counts and failures."""
        failures = [list(row) for row in self.failures]
        return {"models": self.models, "crystals": len(self.table), "failures": failures}

    def summary(self) -> dict[str, str]:
        """Counts, and for each property what was found, with its unit where that is known."""
        rows = {"crystals": str(len(self.table)), "left out": str(len(self.failures))}
        for name in self.models:
            low, middle, high = self.table[name].quantile([0.05, 0.5, 0.95])
            unit = f" {TARGETS[name].unit}" if name in TARGETS else ""
            rows[name] = (
                f"median {middle:.3g}{unit}, 90% in [{low:.3g}, {high:.3g}], uncertainty "
                f"{self.table[f'{name}_uncertainty'].median():.2g}, "
                f"{self.table[f'{name}_out_of_domain'].sum()} out of domain"
            )
        return rows


def predict_path(
    path: str | Path,
    properties: Sequence[str] = (),
    family: str = "guide",
    checkpoint: str | Path | None = None,
    *,
    fast: bool = False,
    workers: int = 1,
    device: str = "cpu",
) -> Screened:
    """Predict properties of every crystal of a file, folder or archive.

    Args:
        path: whatever ``reading.iterate_rows`` understands.
        properties: names in ``TARGETS``, or of the checkpoint's targets; empty for all that there are.
        family: ``guide`` or ``judge``.
        checkpoint: folder of a model of one's own (``train_property``); default the shipped ones.
        fast: the first network of each ensemble by itself (`PropertyModel.fast`).
        workers: processes that read and symmetrise, then threads that predict.
        device: where the networks run.

    Raises:
        ValueError, CheckpointError: see ``load``; an unknown name suggests the nearest.
        ReadError: nothing there to read.
    """
    models = _models(properties, family, checkpoint, device)
    models = [model.fast() for model in models] if fast else models
    dataset = load_dataset(path, None, workers=workers)
    crystals = list(dataset)
    import pandas as pd

    about = {
        "id": [c.id for c in crystals],
        "formula": [c.formula for c in crystals],
        "space_group": [c.space_group for c in crystals],
        "atoms": [c.n_atoms for c in crystals],
    }
    table = pd.DataFrame(about)
    with Progress(transient=True, disable=len(crystals) < 1000) as bar:
        task = bar.add_task("Predicting", total=len(models) * len(crystals))
        for model in models:
            table = table.join(_named(model, crystals, lambda done: bar.advance(task, done), workers))
    used = {t: {"name": m.name, "sha256": m.sha256} for m in models for t in m.targets}
    return Screened(crystals, table, dataset.failures, used)


@dataclass(frozen=True)
class Predictor:
    """Adds predictions of property models to crystals; travels between processes as plain names.

    They are named ``predicted_<property>``, or ``judged_<property>`` by judges, ``…_uncertainty``,
    ``…_out_of_domain`` (0 or 1) and, where a window is asked about, ``…_chance`` that the value lies in it.
    Models are loaded where they are first used.

    Attributes:
        properties: names in ``TARGETS``, or targets of models of one's own.
        windows: of some of them.
        family: ``guide`` or ``judge``.
        workers: threads.
        own: folders of models of one's own (``train_property``), which come before the shipped ones.

    Raises:
        ValueError, CheckpointError: on construction, see ``load``; an unknown name suggests the nearest.
    """

    properties: tuple[str, ...]
    family: str = "guide"
    windows: tuple[tuple[str, Window], ...] = ()
    workers: int = 1
    own: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        _loaded(self.properties, self.family, self.own)

    def __call__(self, crystals: Sequence[Crystal]) -> list[Crystal]:
        """Each crystal with what is predicted of it."""
        rows: list[dict[str, float]] = [{} for _ in crystals]
        prefix = "judged_" if self.family == "judge" else "predicted_"
        for model in _loaded(self.properties, self.family, self.own):
            named = _named(model, crystals, workers=self.workers)
            words = [name for name in named if str(name).endswith("_reason")]
            found = named.drop(columns=words).astype(float).add_prefix(prefix)
            for name, window in self.windows:
                if name in model.targets:
                    told = model.only((name,)).chances(crystals, [window], workers=self.workers)
                    found[f"{prefix}{name}_chance"] = told.squeeze(1)
            for row, values in zip(rows, found.to_dict("records"), strict=True):
                row.update({str(name): value for name, value in values.items()})
        return [replace(c, properties={**c.properties, **row}) for c, row in zip(crystals, rows, strict=True)]


@lru_cache(maxsize=4)
def _loaded(properties: tuple[str, ...], family: str, own: tuple[Path, ...]) -> list[PropertyModel]:
    found, left = [], list(properties)
    for model in map(load, own):
        if mine := [name for name in left if name in model.targets]:
            found.append(model.only(mine))
            left = [name for name in left if name not in mine]
    return [*found, *(_models(left, family, None, "cpu") if left else [])]


def stable_within(limit: float, workers: int = 1) -> Keep:
    """Refuses crystals that the energy model predicts, as drawn, farther above the hull than that, eV/atom.

    For ``CrystalGenerator.sample(keep=...)``. Those kept carry ``predicted_e_above_hull`` and how sure it is.

    Raises:
        ValueError: a limit that is no number.
        CheckpointError: see ``load``.
    """
    if not math.isfinite(limit):
        raise ValueError(f"expected a finite height above the hull, eV/atom, to keep up to: got {limit}")
    told = Predictor(("e_above_hull",), workers=workers)

    def keep(crystals: Sequence[Crystal]) -> list[Crystal | str]:
        # NaN, where nothing is predicted, is not within either
        return [
            crystal
            if crystal.properties["predicted_e_above_hull"] <= limit
            else f"predicted more than {limit:g} eV/atom above the hull"
            for crystal in told(crystals)
        ]

    return keep


def _named(
    model: PropertyModel,
    crystals: Sequence[Crystal],
    progress: Callable[[int], None] | None = None,
    workers: int = 1,
) -> "pd.DataFrame":
    """What ``predict`` finds, every column with the name of its target."""
    found = model.predict(crystals, progress=progress, workers=workers).drop(columns="error")
    if len(model.targets) == 1:
        target = model.targets[0]
        endings = {"value": "", **{name: f"_{name}" for name in ("uncertainty", "out_of_domain", "reason")}}
        found = found.rename(columns={name: f"{target}{ending}" for name, ending in endings.items()})
    return found


def _models(
    properties: Sequence[str], family: str, checkpoint: str | Path | None, device: str
) -> list[PropertyModel]:
    """Each with what is asked of it; targets of one checkpoint are predicted together."""
    if checkpoint is not None:
        model = load(Path(checkpoint), device=device)
        return [model.only(properties) if properties else model]
    found: dict[str, PropertyModel] = {}
    for name in dict.fromkeys(properties or shipped(family)):
        model = load(name, family, device)
        asked = found[model.sha256].targets if model.sha256 in found else ()
        found[model.sha256] = model.only((*asked, name))
    return list(found.values())
