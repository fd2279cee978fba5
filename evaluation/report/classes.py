"""Judging by the rules of one class: validity, novelty against its train set, density beside that of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import gcd
from pathlib import Path

import numpy as np
import pandas as pd
from ase.data import atomic_masses, chemical_symbols
from pymatgen.core import Structure
from rich import box
from rich.table import Table
from rich.text import Text

from autoperi.crystals.lattice import DENSITY_UNIT
from autoperi.crystals.symmetry import SymmetriseError, symmetrise
from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.data.names import one_line, without_formulas
from autoperi.data.reading import Failure, ReadResult, Sample
from autoperi.data.workers import mapped
from evaluation.classes import carbon, perovskite, zeolite
from evaluation.classes.verdict import Verdict
from evaluation.facts.distribution import density, wasserstein
from evaluation.facts.matching import MatchSettings, duplicates, formula_key, known_in
from evaluation.metric import (
    DEFAULT_BOOTSTRAP,
    BootstrapSettings,
    Metric,
    distance_metric,
    mean_metric,
    padded,
)
from evaluation.options import ClassName
from evaluation.report.page import floor_text, interval_text, metrics_markdown, value_text
from evaluation.report.report import library_versions


@dataclass(frozen=True)
class ClassRules:
    """What crystals of a class are, and what they are compared with.

    Attributes:
        reference: data set whose train split is known.
        judge: the rules.
        told: the rules in words, for the protocol.
        match: by which crystals are the same where the rules give no identity.
    """

    reference: str
    judge: Callable[[Structure], Verdict]
    told: str
    match: MatchSettings


CLASSES: dict[ClassName, ClassRules] = {
    "zeolite": ClassRules(
        "zeolites",
        zeolite.judge,
        "TO2, four oxygen at each T and two T at each oxygen (1.45 to 1.80 Å), T-T 2.7 to 3.45 Å of bonded "
        "sites alone, connected in three directions, 7 to 23 T per 1,000 Å³",
        MatchSettings(),
    ),
    "perovskite": ClassRules(
        "perov_5",
        perovskite.judge,
        "five atoms, three of them N, O, F or S, an octahedron of these around one cation, contacts at least "
        "0.6 of the sum of covalent radii",
        MatchSettings(),
    ),
    "carbon": ClassRules(
        "carbon_24",
        carbon.judge,
        "carbon alone, two to four neighbours of every atom within 1.85 Å, none within 1.18 Å",
        MatchSettings(bucket="space_group"),
    ),
}


@dataclass(frozen=True)
class ClassReport:
    """What the rules of a class say of crystals.

    Attributes:
        per_structure: one row per readable crystal; first column `id`.
        metrics: by name.
        failures: unreadable items, which count as invalid.
        source: where the crystals came from.
        name: of the class.
        reference: what they were compared with.
    """

    per_structure: pd.DataFrame
    metrics: dict[str, Metric]
    failures: Sequence[Failure]
    source: str
    name: ClassName
    reference: str

    def table(self) -> Table:
        """All figures for the terminal."""
        title = f"{one_line(self.source)} as {self.name}: {self._counts()}"
        table = Table(title=Text(title), caption=Text(f"against {self.reference}"), box=box.SIMPLE_HEAD)
        for heading in ("figure", "value", "95% interval", "floor", "n"):
            table.add_column(heading, justify="left" if heading == "figure" else "right")
        for metric in self.metrics.values():
            told = value_text(metric), interval_text(metric), floor_text(metric), str(metric.n)
            table.add_row(metric.name, *told)
        return table

    def save(self, folder: Path) -> Path:
        """Write metrics.json, metrics.md and per_structure.csv; returns the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        told = {
            "source": self.source,
            "class": self.name,
            "reference": self.reference,
            "n_readable": len(self.per_structure),
            "failures": [asdict(failure) for failure in self.failures],
            "metrics": {name: metric.as_dict() for name, metric in self.metrics.items()},
            "versions": library_versions(),
        }
        (folder / "metrics.json").write_text(json.dumps(told, indent=1, allow_nan=False) + "\n")
        title = f"{self.source} as {self.name}: {self._counts()}, against {self.reference}"
        (folder / "metrics.md").write_text(metrics_markdown(title, self.metrics.values()), encoding="utf-8")
        without_formulas(self.per_structure).to_csv(folder / "per_structure.csv", index=False)
        return folder

    def _counts(self) -> str:
        return f"{len(self.per_structure)} readable, {len(self.failures)} unreadable"


def evaluate_class(
    read: ReadResult,
    name: ClassName,
    data_dir: Path | str | None = None,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    workers: int = 1,
) -> ClassReport:
    """Judge crystals by the rules of a class.

    Args:
        read: crystals; what could not be read counts as invalid.
        name: of the class.
        data_dir: folder of the data sets, as for `load_dataset`.
        bootstrap: of the intervals.
        workers: processes.

    Raises:
        ValueError: when there is not one crystal to judge.
        FileNotFoundError, DownloadError: the class's train set is not at hand.
    """
    if not read.samples:
        first = f", first {read.failures[0].id}: {read.failures[0].reason}" if read.failures else ""
        raise ValueError(
            f"expected crystals in {read.source}: got {len(read.failures)} unreadable items{first}"
        )
    rules = CLASSES[name]
    known = load_dataset(rules.reference, "train", data_dir, workers=workers)
    verdicts = _verdicts(read.structures, rules, workers)
    table = _table(read.samples, verdicts)
    table["unique"], table["novel"] = _compared(read.structures, verdicts, known, rules, workers)
    valid = table["valid"].to_numpy(dtype=bool)
    items, readable = "all items, unreadable ones invalid", "readable crystals"
    lost = len(read.failures)
    same = (
        "coordination sequences and rings of all sites"
        if any(verdict.identity for verdict in verdicts)
        else str(rules.match)
    )
    together = valid & table["unique"].to_numpy() & table["novel"].to_numpy()
    metrics = [
        mean_metric("valid", padded(valid, lost), items, rules.told, bootstrap),
        mean_metric(
            "uniqueness", table["unique"].to_numpy(), readable, f"no earlier one, by {same}", bootstrap
        ),
        mean_metric(
            "novelty", table["novel"].to_numpy(), readable, f"none of {known.name}, by {same}", bootstrap
        ),
        mean_metric("valid_unique_novel", padded(together, lost), items, "all three at once", bootstrap),
    ]
    own = _sizes(known)
    for column, unit in (("density", "g/cm³"), ("volume_per_atom", "Å³")):
        target = own[column]
        metrics.append(
            distance_metric(
                f"wasserstein_{column}",
                table[column].to_numpy(dtype=float)[valid],
                target,
                partial(wasserstein, reference=target),
                "valid crystals",
                f"first Wasserstein distance to {known.name} ({len(known)} crystals)",
                bootstrap,
                unit=unit,
            )
        )
    for number in sorted({key for verdict in verdicts for key in verdict.numbers}):
        values = table[number].to_numpy(dtype=float)[valid]
        metrics.append(
            mean_metric(f"mean_{number}", values[np.isfinite(values)], "valid crystals", "mean", bootstrap)
        )
    named = {metric.name: metric for metric in metrics}
    return ClassReport(
        table, named, read.failures, read.source, name, f"{known.name} ({len(known)} crystals)"
    )


def _verdicts(structures: Sequence[Structure], rules: ClassRules, workers: int) -> list[Verdict]:
    return list(mapped(rules.judge, structures, workers, lambda _, reason: Verdict(f"not judged: {reason}")))


def _table(samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> pd.DataFrame:
    rows = [
        {
            "id": sample.id,
            "formula": sample.structure.composition.reduced_formula,
            "n_sites": len(sample.structure),
            "density": density(sample.structure),
            "volume_per_atom": sample.structure.volume / len(sample.structure),
            "valid": verdict.valid,
            "fault": verdict.fault,
            **verdict.numbers,
        }
        for sample, verdict in zip(samples, verdicts, strict=True)
    ]
    return pd.DataFrame(rows)


def _compared(
    structures: Sequence[Structure],
    verdicts: Sequence[Verdict],
    known: CrystalDataset,
    rules: ClassRules,
    workers: int,
) -> tuple[list[bool], list[bool]]:
    """Of each crystal whether it is no earlier one, and none of the train set."""
    if any(verdict.identity for verdict in verdicts):
        own = [verdict.identity or f"invalid {k}" for k, verdict in enumerate(verdicts)]
        small = [c.to_structure() for c in known if c.n_atoms <= zeolite.MOST_ATOMS]
        there = {verdict.identity for verdict in _verdicts(small, rules, workers)} - {""}
        return [label not in own[:k] for k, label in enumerate(own)], [label not in there for label in own]
    grouped = rules.match.bucket != "formula"
    own = [
        f"{formula_key(structure)} {_space_group(structure) if grouped else ''}" for structure in structures
    ]
    groups = known.space_group.tolist()
    there = [
        f"{_formula(amounts)} {group if grouped else ''}"
        for amounts, group in zip(known.compositions(), groups, strict=True)
    ]
    first = duplicates(structures, rules.match, own).match
    twins = known_in(structures, there, lambda k: known[k].to_structure(), rules.match, own).match
    return [twin is None for twin in first], [twin is None for twin in twins]


def _space_group(structure: Structure) -> int:
    try:
        return symmetrise(structure).space_group
    except SymmetriseError:
        return 1


def _formula(amounts: dict[int, float]) -> str:
    """As `formula_key` writes it."""
    divisor = gcd(*(int(n) for n in amounts.values()))
    named = sorted((chemical_symbols[z], int(n) // divisor) for z, n in amounts.items())
    return "".join(f"{symbol}{n}" for symbol, n in named)


def _sizes(known: CrystalDataset) -> dict[str, np.ndarray]:
    """Densities, g/cm³, and volumes per atom, Å³, of a data set."""
    batch = known.batch(range(len(known)))
    volume = batch.lattice().det().abs().numpy()
    mass = np.array(
        [sum(atomic_masses[z] * n for z, n in amounts.items()) for amounts in known.compositions()]
    )
    return {"density": mass / volume * DENSITY_UNIT, "volume_per_atom": volume / known.n_atoms()}
