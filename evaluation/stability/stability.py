"""Relax, subtract the fitted element references, compare with a hull; by one potential or by several.

The first potential relaxes the crystals as they are. Each further one goes on from where the one before it
ended, the space group kept: energies of its own minimum next to the first one's, at a fraction of the steps.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from pymatgen.core import Structure
from rich.progress import track

from autoperi.data.cache import cache_folder
from autoperi.data.element_references import ElementReferences
from autoperi.data.reading import Sample
from evaluation.relaxation.batch import BatchSettings, relax_all
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.relaxation.relaxation import AseRelaxer
from evaluation.stability.hull import ConvexHull
from evaluation.stability.hull_choice import HullChoice, load_hull


@dataclass(frozen=True)
class StabilitySettings(BatchSettings):
    """How stability is judged: how crystals are relaxed, and against what.

    Attributes:
        hull: the phases, and the references of the first potential, see `load_hull`; they are not part of a
            relaxation, so a journal serves any hull.
        others: further potentials, each with references of its own.
        begun_by: the potential whose crystals this one goes on from, where it is not the first.
    """

    hull: HullChoice = field(default_factory=HullChoice)
    others: tuple[BatchRelaxer, ...] = ()
    begun_by: str = ""

    def relaxed_by(self) -> str:
        """Potential and relaxation, as printed beside every figure."""
        after = f" from where {self.begun_by} ended" if self.begun_by else ""
        return f"{self.relaxer.name}{after}, {self.relaxation}"

    def protocol(self) -> str:
        """As printed beside every figure."""
        return f"relaxed by {self.relaxed_by()}; hull of {self.hull}"

    def each(self) -> "Sequence[StabilitySettings]":
        """Settings of each potential by itself, in order."""
        found = [replace(self, others=())]
        for relaxer in self.others:
            before = found[-1].relaxer.name
            relaxation = replace(self.relaxation, keep_symmetry=True)
            hull = replace(self.hull, references=None)
            found.append(
                replace(found[0], relaxer=relaxer, relaxation=relaxation, hull=hull, begun_by=before)
            )
        return found


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
OTHER_COLUMNS = ("e_above_hull", "formation_energy", "converged", "steps", "error")


def suffix(relaxer: BatchRelaxer | AseRelaxer) -> str:
    """What the columns and figures of a further potential end with."""
    return "_" + re.sub(r"[^a-z0-9]+", "_", relaxer.name.lower())


def stability_table(
    samples: Sequence[Sample],
    hull: ConvexHull,
    references: ElementReferences,
    settings: StabilitySettings = StabilitySettings(),
    journal: Path | str | None = None,
) -> pd.DataFrame:
    """One row per crystal with the columns of `COLUMNS`, indexed by id, in the samples' order.

    e_above_hull and formation_energy are eV/atom after relaxation by the first potential, NaN when it failed;
    `error` then says why. An unconverged crystal keeps the energy it reached and says converged = False. rmsd
    (Å) and rmsd_normalised (in (V/N)^(1/3)) are missing where the relaxed crystal no longer matches.
    """
    return _table(_relaxed(samples, settings, journal), hull, references)


def judged(
    samples: Sequence[Sample],
    settings: StabilitySettings,
    data_dir: Path | str | None = None,
    journal: Path | str | None = None,
) -> pd.DataFrame:
    """`stability_table` by the first potential, joined by `OTHER_COLUMNS` of each other with its `suffix`.

    A crystal that one potential could not relax is begun by the next one as it was.
    """
    formulas = sorted({sample.structure.composition.formula for sample in samples})
    table: pd.DataFrame | None = None
    for own in settings.each():
        hull = load_hull(own.hull, data_dir, formulas, own.relaxer, cache_folder() / "evaluation")
        records = _relaxed(samples, own, journal)
        found = _table(records, *hull)
        if table is None:
            table = found
        else:
            other = found.loc[:, list(OTHER_COLUMNS)].add_suffix(suffix(own.relaxer))
            table = pd.concat([table, other], axis=1)
        samples = [_ended(sample, record) for sample, record in zip(samples, records, strict=True)]
    assert table is not None
    return table


def _relaxed(
    samples: Sequence[Sample], settings: StabilitySettings, journal: Path | str | None
) -> list[dict]:
    """Records of `relax_all` in the samples' order."""
    records = relax_all(samples, settings, journal)
    told = track(records, total=len(samples), description=f"relaxing with {settings.relaxer.name}")
    return sorted(told, key=lambda record: record["number"])


def _ended(sample: Sample, record: dict) -> Sample:
    """The crystal where its relaxation ended, or as it was."""
    return sample if record["error"] else Sample(sample.id, Structure.from_dict(record["relaxed"]))


def _table(records: Sequence[dict], hull: ConvexHull, references: ElementReferences) -> pd.DataFrame:
    rows = [_judge(record, hull, references) for record in records]
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS)).set_index("id")


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
