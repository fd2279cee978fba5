"""Where trajectories begin: from noise, or from the geometry of a training crystal, noised some way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoperi.crystals.crystal import Crystal
from autoperi.flow.relatives import Relatives
from autoperi.flow.settings import StartKind
from autoperi.flow.steering import Held


@dataclass(frozen=True)
class Begin:
    """When a trajectory begins, and how far the geometry is from which it does: as it stands, from noise.

    Attributes:
        time: 0 is noise, 1 the geometry unchanged.
        distance: of the relative whose geometry it is.
        held: what of the geometry that the gene has stays; None: nothing.
    """

    time: float = 0.0
    distance: float = math.inf
    held: Held | None = None


NOISE = Begin()


@dataclass(frozen=True)
class Starts:
    """Genes as trajectories begin with them.

    Attributes:
        genes: with the geometry of a relative where there is one, else of a crystal of the gene whose
            elements are ordered otherwise, where one is near; what it is stands in their provenance.
        begins: of each trajectory.
    """

    genes: list[Crystal]
    begins: list[Begin]


def starts(
    genes: Sequence[Crystal], relatives: Relatives | None, kind: StartKind, time: float, rank: int = 0
) -> Starts:
    """Choose the start of each gene: its nearest relative, or the one of that rank while there are so many.

    Args:
        genes: with species where they are to have relatives.
        relatives: among whom they are looked for.
        kind: as in `StartSettings`.
        time: how far a relative is taken as it is.
        rank: 0 is the nearest.

    Raises:
        ValueError: relatives are asked for and there are none; every gene without one is named.
    """
    if kind == "relative" and relatives is None:
        raise ValueError("the checkpoint carries no relatives: use start='auto' or 'noise'")
    begun, begins, alone = [], [], []
    for gene in genes:
        told, relative, begin = {"start": "noise"}, None, 0.0
        if kind != "noise" and relatives is not None and (gene.species > 0).all():
            found = relatives.ranked(gene, rank + 1)
            if rank < len(found) or (found and kind == "relative"):
                told, relative, begin = {"start": "relative"}, found[-1], time
            elif not found and rank == 0 and (relative := relatives.rearranged(gene)):
                told, begin = {"start": "rearranged"}, time**4  # less alike: four times the noise
        if told["start"] != "relative":
            alone.append(gene)
        if relative is not None:
            told |= {"relative": relative.id, "distance": round(relative.distance, 4)}
            gene = relative.crystal
            begins.append(Begin(begin, relative.distance))
        else:
            begins.append(NOISE)
        begun.append(replace(gene, provenance={**gene.provenance, **told}))
    if kind == "relative" and alone:
        names = ", ".join(f"{gene.formula} with gene {gene.gene}" for gene in alone)
        raise ValueError(f"no training crystal is a relative of {names}: use start='auto'")
    return Starts(begun, begins)
