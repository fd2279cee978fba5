"""Structure prediction where only the formula is known: candidates, symmetric relaxation, ranking."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Composition

from autoperi.crystals.crystal import Crystal, Crystals
from autoperi.data.cache import written_whole
from autoperi.data.files import crystal_of_record, crystal_record
from autoperi.data.reading import Sample
from autoperi.discovery import ranker as rankers
from autoperi.discovery.candidates import Candidate, CellRequest, Proposals
from autoperi.discovery.formulas import Formula, checked
from autoperi.discovery.ranker import CandidateRanker, Facts
from autoperi.discovery.relaxed import RELAXATION, NotRelaxedError, relaxed_crystal
from autoperi.generator import CrystalGenerator
from evaluation.facts.matching import MatchSettings
from evaluation.relaxation.batch import BatchSettings, relax_all

JOURNAL, PARTS = "relaxations.jsonl", "parts"
_NUMBERS = ("probability", "energy_above_best", "energy", "distance")
_TEXTS = ("known", "start", "relative", "problem")
_COLUMNS = ["formula", "rank", "id", *_NUMBERS, *_TEXTS[:3], "space_group", "gene", "atoms", _TEXTS[3]]
_EQUAL = 0.002
"""eV/atom: relaxed crystals nearer than this are compared, and one of two that match is dropped."""

Progress = Callable[[str, int, int], None]
"""Told of a stage, ``candidates`` (of formulas) or ``relaxed`` (crystals): how many just done, of all."""


def _silent(stage: str, done: int, of: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Prediction:
    """What is expected of a formula.

    Attributes:
        formula: reduced, as pymatgen writes it.
        crystals: the candidates, known ones and then the likeliest first. Their properties: ``rank``;
            ``probability`` that they match a crystal of the formula that the training set does not have, by
            the learned ranker, where they are not known; ``distance`` of the template; and, relaxed,
            ``energy`` (CHGNet, eV/atom) and ``energy_above_best`` (among these). Their provenance:
            ``start`` (template; relative, rearranged or noise of what the prior draws) and ``relative``;
            ``known``, the name of a training crystal of the formula; ``problem`` of one that could not be
            relaxed, which has no energy.
        problem: why there are no candidates.
        asked: the formula as it was asked for.
    """

    formula: str
    crystals: Crystals
    problem: str = ""
    asked: str = ""

    @property
    def reduced(self) -> bool:
        """Whether some formula units were asked for: a formula says proportions, not the size of a cell."""
        return Composition(self.asked or self.formula).num_atoms > Composition(self.formula).num_atoms


def predict(
    generator: CrystalGenerator,
    formulas: Sequence[str],
    n: int = 20,
    *,
    seed: int = 0,
    cell: CellRequest | None = None,
    relax: bool = True,
    known_first: bool = True,
    ranker: CandidateRanker | None = None,
    workers: int = 1,
    device: str = "cpu",
    folder: Path | None = None,
    progress: Progress = _silent,
) -> list[Prediction]:
    """Predict the crystal structures of formulas: ``predict(autoperi.load(), ["BaTiO3"])[0].crystals[0]``.

    Args:
        generator: whose training crystals are the templates.
        formulas: e.g. "BaTiO3", each once.
        n: most candidates of a formula.
        seed: of what the learned prior draws.
        cell: number of atoms and space group, where known.
        relax: relax with CHGNet, space group kept; else candidates are ranked without any energy.
        known_first: training crystals of a formula come before all others; else they are ranked as what they
            are for the ranker, answers that are not looked for.
        ranker: by default the shipped one.
        workers: processes that relax.
        device: of CHGNet.
        folder: keeps what is done, so that the same call goes on after an interruption.
        progress: told of what has been done.

    Raises:
        ValueError: what is no formula, comes twice, or has more atoms than the checkpoint's crystals.
    """
    cell = cell or CellRequest()
    named = checked(formulas, generator, cell)
    if n < 1:
        raise ValueError(f"expected at least one candidate of a formula: got {n}")
    proposals = Proposals(generator, ranker or rankers.load())
    found = list(_proposed(proposals, named, n, seed, cell, known_first, folder, progress))
    if relax:
        found = _relaxed(found, BatchSettings(RELAXATION, workers=workers, device=device), folder, progress)
    return [
        Prediction(f.name, ranked(f.name, own, proposals.ranker, known_first), problem, f.asked)
        for f, (own, problem) in zip(named, found, strict=True)
    ]


_Found = tuple[list[Candidate], str]
"""The candidates of a formula, or why there are none."""


def _proposed(
    proposals: Proposals,
    formulas: Sequence[Formula],
    n: int,
    seed: int,
    cell: CellRequest,
    known_first: bool,
    folder: Path | None,
    progress: Progress,
) -> Iterator[_Found]:
    for number, formula in enumerate(formulas):
        part = folder / PARTS / f"{number:06d}.json" if folder else None
        if part and part.exists():
            yield _read(part)
        else:
            found: _Found = [], ""
            try:
                found = proposals.of(formula.amounts, n, seed, cell, known_first), ""
            except ValueError as error:
                found = [], str(error)
            if part:
                _write(found, part)
            yield found
        progress("candidates", 1, len(formulas))


def _relaxed(
    found: Sequence[_Found], settings: BatchSettings, folder: Path | None, progress: Progress
) -> list[_Found]:
    """The same candidates after relaxation, each with its energy."""
    flat = [(i, k) for i, (own, _) in enumerate(found) for k in range(len(own))]
    samples = [Sample(f"{i}-{k}", found[i][0][k].crystal.to_structure()) for i, k in flat]
    energies: dict[tuple[int, int], float] = {}
    crystals = [[c.crystal for c in own] for own, _ in found]
    for record in relax_all(samples, settings, folder / JOURNAL if folder else None):
        i, k = flat[record["number"]]
        crystals[i][k], energy = _outcome(crystals[i][k], record)
        if energy is not None:
            energies[i, k] = energy
        progress("relaxed", 1, len(samples))
    out: list[_Found] = []
    for i, (own, problem) in enumerate(found):
        lowest = min((energies[i, k] for k in range(len(own)) if (i, k) in energies), default=0.0)
        above = [energies[i, k] - lowest if (i, k) in energies else None for k in range(len(own))]
        facts = [replace(c.facts, above=e) for c, e in zip(own, above, strict=True)]
        out.append(([Candidate(c, f) for c, f in zip(crystals[i], facts, strict=True)], problem))
    return out


def _outcome(raw: Crystal, record: Mapping[str, Any]) -> tuple[Crystal, float | None]:
    """The relaxed crystal and its energy, eV/atom; or the raw one, and why."""
    try:
        relaxed = relaxed_crystal(raw, record, RELAXATION)
        energy = float(record["energy_per_atom"])
        return replace(relaxed, properties={**relaxed.properties, "energy": energy}), energy
    except NotRelaxedError as error:
        return replace(raw, provenance={**raw.provenance, "problem": str(error)}), None


def candidate_table(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """One row per candidate: what ``candidates.csv`` holds."""
    rows = [
        {
            "formula": one.formula,
            "rank": crystal.properties["rank"],
            "id": crystal.id,
            **{name: crystal.properties.get(name) for name in _NUMBERS},
            **{name: crystal.provenance.get(name) for name in _TEXTS},
            "space_group": crystal.space_group,
            "gene": crystal.gene,
            "atoms": crystal.n_atoms,
        }
        for one in predictions
        for crystal in one.crystals
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def ranked(
    name: str, candidates: Sequence[Candidate], ranker: CandidateRanker, known_first: bool = True
) -> Crystals:
    """Candidates of a formula, each once: the known ones by energy, then the likeliest first."""
    chances = ranker.probabilities([c.facts for c in candidates]) if candidates else []
    before = [known_first and c.facts.known for c in candidates]

    def place(k: int) -> tuple[bool, float, float]:
        above = candidates[k].facts.above
        return not before[k], above if before[k] and above is not None else np.inf, -chances[k]

    order = sorted(range(len(candidates)), key=place)
    kept: list[int] = []
    for k in order:
        if not any(_same(candidates[k], candidates[j]) for j in kept):
            kept.append(k)
    out = Crystals()
    for rank, k in enumerate(kept, 1):
        crystal, facts = candidates[k].crystal, candidates[k].facts
        told = {"rank": rank, "distance": round(facts.distance, 4)}
        if not before[k]:
            told["probability"] = round(chances[k], 4)
        above = {} if facts.above is None else {"energy_above_best": round(facts.above, 6)}
        properties = {**crystal.properties, **told, **above}
        out.append(replace(crystal, id=f"{name}_{rank:02d}", properties=properties))
    return out


def _same(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates have relaxed into one crystal."""
    energies = one.facts.above, other.facts.above
    if energies[0] is None or energies[1] is None or abs(energies[0] - energies[1]) > _EQUAL:
        return False
    matcher = MatchSettings().matcher()
    return bool(matcher.fit(one.crystal.to_structure(), other.crystal.to_structure()))


def _write(found: _Found, part: Path) -> None:
    own, problem = found
    record = {"problem": problem, "own": [[crystal_record(c.crystal), asdict(c.facts)] for c in own]}
    part.parent.mkdir(exist_ok=True)
    with written_whole(part) as whole:
        whole.write_text(json.dumps(record), encoding="utf-8")


def _read(part: Path) -> _Found:
    try:
        record = json.loads(part.read_text(encoding="utf-8"))
        own = [Candidate(crystal_of_record(crystal), Facts(**facts)) for crystal, facts in record["own"]]
        return own, record["problem"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{part} is damaged: delete it, and the formula is begun again") from error
