"""Relax with CHGNet, subtract the fitted element references, compare with a hull."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from pymatgen.core import Structure

from autoperi.data.element_references import ElementReferences
from autoperi.data.reading import Sample
from evaluation.relaxation.batch import BatchSettings, relax_all
from evaluation.stability.hull import ConvexHull
from evaluation.stability.hull_choice import HullChoice


@dataclass(frozen=True)
class StabilitySettings(BatchSettings):
    """How stability is judged: how crystals are relaxed, and against what.

    Attributes:
        hull: the hull and references that `stability_table` is given, see `load_hull`; they are not
            part of a relaxation, so a journal serves any hull.
    """

    hull: HullChoice = field(default_factory=HullChoice)

    def protocol(self) -> str:
        """As printed beside every figure."""
        return f"{self.relaxer_name} relaxation, {self.relaxation}; hull of {self.hull}"


COLUMNS = (
    "id",
    "e_above_hull",
    "formation_energy",
    "converged",
    "steps",
    "matches_raw",
    "rmsd",
    "rmsd_normalised",
    "space_group_relaxed",
    "error",
)


def stability_table(
    samples: Sequence[Sample],
    hull: ConvexHull,
    references: ElementReferences,
    settings: StabilitySettings = StabilitySettings(),
    journal: Path | str | None = None,
) -> pd.DataFrame:
    """One row per crystal with the columns of `COLUMNS`, indexed by id, in the samples' order.

    e_above_hull and formation_energy are eV/atom after relaxation, NaN when it failed; `error` then
    says why. An unconverged crystal keeps the energy it reached and says converged = False. rmsd (Å)
    and rmsd_normalised (in (V/N)^(1/3)) are missing where the relaxed crystal no longer matches.
    """
    from rich.progress import track

    records = relax_all(samples, settings, journal)
    rows = {
        record["number"]: _judge(record, hull, references)
        for record in track(records, total=len(samples), description=f"relaxing with {settings.relaxer_name}")
    }
    table = pd.DataFrame([rows[number] for number in range(len(samples))], columns=pd.Index(COLUMNS))
    return table.set_index("id")


def _judge(record: dict, hull: ConvexHull, references: ElementReferences) -> dict:
    row = {column: record.get(column) for column in COLUMNS}
    row["formation_energy"] = row["e_above_hull"] = float("nan")
    if not record["error"]:
        try:
            composition = Structure.from_dict(record["relaxed"]).composition
            formation = references.formation_energy(composition, record["energy_per_atom"])
            row["formation_energy"] = formation
            row["e_above_hull"] = hull.above(composition, formation)
        except KeyError as error:
            row["error"] = str(error)
    return row
