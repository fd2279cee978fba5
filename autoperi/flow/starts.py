"""Where trajectories begin: from noise, or from the geometry of a relative, noised some way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoperi.crystals.crystal import Crystal
from autoperi.flow.relatives import Relatives
from autoperi.flow.settings import StartSettings


@dataclass(frozen=True)
class Starts:
    """Genes as trajectories begin with them.

    Attributes:
        genes: with the geometry of a relative where there is one, and what it is in their provenance.
        times: of each trajectory's begin; 0 is noise.
    """

    genes: list[Crystal]
    times: list[float]


def starts(
    genes: Sequence[Crystal], relatives: Relatives | None, settings: StartSettings, rank: int = 0
) -> Starts:
    """Choose the start of each gene: its nearest relative, or the one of that rank while there are so many.

    Raises:
        ValueError: relatives are asked for and there are none; every gene without one is named.
    """
    if settings.kind == "relative" and relatives is None:
        raise ValueError("the checkpoint carries no relatives: use start='auto' or 'noise'")
    begun, times, alone = [], [], []
    for gene in genes:
        relative = None
        if settings.kind != "noise" and relatives is not None and (gene.species > 0).all():
            found = relatives.ranked(gene, rank + 1)
            if rank < len(found) or (found and settings.kind == "relative"):
                relative = found[-1]
        if relative is None:
            alone.append(gene)
        told: dict[str, str | int | float] = {"start": "noise"}
        if relative is not None:
            told = {"start": "relative", "relative": relative.id, "distance": round(relative.distance, 4)}
            gene = relative.crystal
        begun.append(replace(gene, provenance={**gene.provenance, **told}))
        times.append(0.0 if relative is None else settings.time)
    if settings.kind == "relative" and alone:
        names = ", ".join(f"{gene.formula} with gene {gene.gene}" for gene in alone)
        raise ValueError(f"no training crystal is a relative of {names}: use start='auto'")
    return Starts(begun, times)
