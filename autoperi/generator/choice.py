"""By what is chosen: genes before geometry is paid for, by stability and novelty, and whole crystals."""

import math
from collections.abc import Callable, Sequence

from autoperi.crystals.crystal import Crystal
from autoperi.flow.relatives import Relatives
from autoperi.generator.settings import SampleConfig
from autoperi.genes.critics.kin import KIN
from autoperi.genes.critics.stability import StabilityCritic
from autoperi.genes.empirical import EmpiricalGenes
from autoperi.genes.prior import Excess

Keep = Callable[[Sequence[Crystal]], list[Crystal | str]]
"""Each crystal, with what was found of it, or why it is refused."""


def chosen_by(
    config: SampleConfig,
    critic: StabilityCritic | None,
    relatives: Relatives | None,
    training: EmpiricalGenes | None,
) -> Excess | None:
    """Expected energy beyond the threshold, eV/atom, infinite for known crystals; None where none is refused.

    Raises:
        ValueError: a choice by what the checkpoint does not have, or among genes that it is not made for.
    """
    usual = critic.config.refused if critic and relatives else 0.0
    chooses = config.genes == "learned" and config.species == "prior"
    refused = (usual if chooses else 0.0) if config.stability is None else config.stability
    if not refused and not config.novel:
        return None
    if not chooses:
        raise ValueError("expected learned genes and species from the prior where crystals are chosen")
    if refused and (critic is None or relatives is None):
        raise ValueError("the checkpoint has no critic of stability: ask for stability 0")
    if config.novel and training is None:
        raise ValueError("the checkpoint carries no training genes: it cannot tell what is novel")

    def excess(crystals: Sequence[Crystal]) -> list[float]:
        missed = [0.0] * len(crystals)
        if critic and relatives and refused:
            expected = critic.expected(crystals, relatives.distances(crystals, KIN))
            limits = critic.thresholds(crystals, refused)
            missed = [energy - limit for energy, limit in zip(expected, limits, strict=True)]
        if config.novel and training:
            missed = [math.inf if training.holds(c) else e for c, e in zip(crystals, missed, strict=True)]
        return missed

    return excess


def judged(crystals: Sequence[Crystal], keep: Keep) -> list[Crystal | str]:
    """What ``keep`` says of crystals; raises ValueError where it is not a crystal or words of each."""
    told = keep(crystals)
    if not isinstance(told, Sequence) or len(told) != len(crystals):
        got = len(told) if isinstance(told, Sequence) else type(told).__name__
        raise ValueError(
            f"expected keep to return a list, one item for each of {len(crystals)} crystals: got {got}"
        )
    for said in told:
        if not isinstance(said, Crystal | str):
            raise ValueError(
                f"expected keep to return each crystal, or why it is refused as str: got {said!r}"
            )
    return list(told)
