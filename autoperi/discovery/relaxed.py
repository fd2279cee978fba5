"""Crystals where their relaxation ended, under their own symmetry again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pymatgen.core import Structure

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.symmetry import SymmetriseConfig, SymmetriseError, symmetrise
from evaluation.relaxation.settings import RelaxationSettings

RELAXATION = RelaxationSettings(keep_symmetry=True)
"""How what is discovered is relaxed."""


class NotRelaxedError(ValueError):
    """A crystal has no relaxed form, or one without a space group."""


def relaxed_crystal(raw: Crystal, record: Mapping[str, Any], settings: RelaxationSettings) -> Crystal:
    """What a record of `relax_all` says became of a crystal, with the name and provenance that it had.

    Args:
        raw: what was relaxed.
        record: of it.
        settings: how it was relaxed, the space group kept.

    Raises:
        NotRelaxedError: why there is none.
    """
    if record["error"]:
        raise NotRelaxedError(record["error"])
    try:
        found = symmetrise(Structure.from_dict(record["relaxed"]), SymmetriseConfig(symprec=settings.symprec))
    except SymmetriseError as error:
        raise NotRelaxedError(str(error)) from error
    return replace(found, id=raw.id, properties=raw.properties, provenance=raw.provenance)
