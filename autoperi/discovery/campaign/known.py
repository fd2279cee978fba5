"""Which crystals are known, and how new others are, against several sets at once."""

from collections.abc import Sequence
from functools import cached_property

from pymatgen.core import Composition, Structure

from evaluation.facts.description import description_table
from evaluation.facts.levels import LEVELS
from evaluation.facts.matching import Twins, known_in
from evaluation.facts.novelty import novelty_levels, templates_in
from evaluation.facts.reference import Reference


class Known:
    """Crystals that are known.

    Args:
        references: sets of them.
    """

    def __init__(self, references: Sequence[Reference]) -> None:
        self.references = references

    def holds(self, structures: Sequence[Structure]) -> list[bool]:
        """Whether each crystal is one of them, by the matcher."""
        twins = [found.match for found in self._twins(structures)]
        return [any(match is not None for match in own) for own in zip(*twins, strict=True)]

    def levels(self, structures: Sequence[Structure]) -> list[tuple[str, str]]:
        """The level of novelty of each crystal, the least that any set gives, and what it is akin to."""
        if not structures:
            return []
        facts = description_table(structures)
        told: list[list[tuple[int, str]]] = []
        for reference, twins in zip(self.references, self._twins(structures), strict=True):
            seen = [k for k, match in enumerate(twins.match) if match is not None]
            templates = templates_in(structures, facts, reference, skip=seen)
            names = novelty_levels(facts, twins, templates, reference)
            rows = [a if a is not None else b for a, b in zip(twins.match, templates.match, strict=True)]
            told.append(
                [(LEVELS.index(n), _name(reference, row)) for n, row in zip(names, rows, strict=True)]
            )
        least = [min(own, key=lambda one: one[0]) for own in zip(*told, strict=True)]
        return [(LEVELS[level], name) for level, name in least]

    def _twins(self, structures: Sequence[Structure]) -> list[Twins]:
        return [
            known_in(structures, buckets, reference.structure)
            for reference, buckets in zip(self.references, self._buckets, strict=True)
        ]

    @cached_property
    def _buckets(self) -> list[list[str]]:
        return [reference.table["formula"].tolist() for reference in self.references]


def _name(reference: Reference, row: int | None) -> str:
    """Formula, space group and set of a known crystal."""
    if row is None:
        return ""
    facts = reference.table.iloc[row]
    return f"{Composition(facts['formula']).reduced_formula} ({facts['space_group_loose']}, {reference.name})"
