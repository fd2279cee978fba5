"""The evaluation of a set of crystals: every convention side by side, each with its label."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from pymatgen.core import Structure

from autoperi.data.reading import ReadResult, as_read_result
from evaluation.facts.description import description_table
from evaluation.facts.matching import MatchSettings, Twins, duplicates, known_in
from evaluation.facts.novelty import novelty_levels, templates_in
from evaluation.facts.reference import Reference, ReferenceSettings, load_reference
from evaluation.metrics.breadth import breadth_columns
from evaluation.metrics.coverage import coverage_report
from evaluation.metrics.sanity import cif_round_trips, density_sane
from evaluation.metrics.validity import (
    charge_imbalance,
    contact_ratio,
    smact_valid,
    structural_validity,
)
from evaluation.report.measures import measure
from evaluation.report.page import scenes
from evaluation.report.report import Report
from evaluation.settings import EvaluationSettings
from evaluation.stability.stability import judged

_STANDARD = EvaluationSettings()


def evaluate(
    structures: Sequence[Structure] | ReadResult,
    reference: str | Path | Reference = "mp_20",
    data_dir: Path | str | None = None,
    settings: EvaluationSettings = _STANDARD,
    workers: int = 1,
    journal: Path | str | None = None,
) -> Report:
    """Judge crystals from any generator.

    Args:
        structures: crystals, or what `read_structures` returned; its failures count as invalid.
        reference: name of a data set (`mp_20`: its train split), a file of crystals, or a
            Reference.
        data_dir: folder of the data sets; by default that of AUTOPERI_DATA, else they are downloaded.
        settings: every convention.
        workers: processes used where work can be shared.
        journal: JSON lines file that makes relaxations resumable.

    Returns:
        the report: a row per crystal, the metrics with their labels, figures on `save`.

    Raises:
        ValueError: when there is not one crystal to judge.
    """
    read = as_read_result(structures)
    if not read.samples:
        first = f", first {read.failures[0].id}: {read.failures[0].reason}" if read.failures else ""
        raise ValueError(
            f"expected crystals in {read.source}: got {len(read.failures)} unreadable items{first}"
        )
    if not isinstance(reference, Reference):
        where = ReferenceSettings(
            Path(data_dir) if data_dir else None, symmetry=settings.symmetry, workers=workers
        )
        reference = load_reference(reference, where)
    facts = description_table(read.structures, settings.symmetry, workers)
    buckets, reference_buckets = (_buckets(t, settings.match) for t in (facts, reference.table))
    found = duplicates(read.structures, settings.match, buckets)
    known = known_in(read.structures, reference_buckets, reference.structure, settings.match, buckets)
    twins = [k for k, twin in enumerate(known.match) if twin is not None]
    templates = templates_in(read.structures, facts, reference, settings.match, twins, workers)
    table = _crystal_table(facts, read, reference, (found, known, templates), settings, workers)
    if settings.stability is not None:
        stability = replace(settings.stability, workers=workers)
        table = table.join(judged(read.samples, stability, data_dir, journal).reset_index(drop=True))
    pairs = {"duplicates": found, "reference": known, "templates": templates}
    pairs_compared = {name: twins.pairs_compared for name, twins in pairs.items()}
    metrics = measure(table, reference, len(read.failures), settings, pairs_compared)
    if settings.coverage is not None:
        near, more = coverage_report(
            read, reference, settings.coverage, settings.bootstrap, data_dir, settings.symmetry, workers
        )
        table = table.join(near, on="id")
        metrics |= {metric.name: metric for metric in more}
    return Report(
        per_structure=table,
        metrics=metrics,
        failures=read.failures,
        source=read.source,
        reference_name=str(reference),
        reference_table=reference.table,
        settings=settings,
        pairs_compared=pairs_compared,
        scenes=scenes(read.samples),
    )


def _buckets(table: pd.DataFrame, match: MatchSettings) -> list[str]:
    """What each crystal must share with another to be compared with it."""
    if match.bucket == "formula":
        return table["formula"].tolist()
    column = "space_group_loose" if match.bucket == "space_group" else "gene"
    return [f"{formula} {value}" for formula, value in zip(table["formula"], table[column], strict=True)]


def _crystal_table(
    facts: pd.DataFrame,
    read: ReadResult,
    reference: Reference,
    matches: tuple[Twins, Twins, Twins],
    settings: EvaluationSettings,
    workers: int,
) -> pd.DataFrame:
    """One row per readable crystal, everything but coverage and stability.

    Its matches are with earlier crystals, with the reference, and with the reference's without names.
    """
    structures = read.structures
    found, known, templates = matches
    names = [sample.id for sample in read.samples]
    table = facts.copy()
    table.insert(0, "id", names)
    table["structural_valid"] = [structural_validity(s) for s in structures]
    table["contact_ratio"] = [contact_ratio(s) for s in structures]
    table["density_sane"] = [density_sane(s) for s in structures]
    table["cif_round_trip"] = cif_round_trips(structures, workers)
    missing = "passes" if settings.missing_electronegativity_passes else "fails"
    for rule in settings.smact_rules:
        table[f"smact_{rule}"] = [
            smact_valid(s.composition, rule, missing_electronegativity=missing) for s in structures
        ]
    table["charge_imbalance"] = [charge_imbalance(formula) for formula in table["formula"]]
    table["duplicate_of"] = pd.array([None if j is None else names[j] for j in found.match], dtype="string")
    table["reference_twin"] = pd.array(known.match, dtype="Int64")
    table["reference_template"] = pd.array(templates.match, dtype="Int64")
    table["novelty_level"] = novelty_levels(facts, known, templates, reference)
    failures = [
        {**templates.failures, **known.failures, **found.failures}.get(k, "") for k in range(len(names))
    ]
    table["match_error"] = failures
    table["gene_known"] = [g in reference.genes for g in table["gene"]]
    table = table.join(breadth_columns(table, reference))
    table["valid"] = table["structural_valid"] & table[f"smact_{settings.smact_rules[0]}"]
    table["unique"] = table["duplicate_of"].isna()
    table["novel"] = table["reference_twin"].isna()
    table["symmetric"] = table["space_group_loose"].fillna(1) != 1
    return table
