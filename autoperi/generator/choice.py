"""By what is chosen: genes before geometry is paid for (stability, targets, novelty), and whole crystals."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.labels import Window
from autoperi.flow.relatives import Relatives
from autoperi.generator.settings import SampleConfig
from autoperi.genes.critics.kin import KIN
from autoperi.genes.critics.stability import StabilityCritic
from autoperi.genes.critics.targets import TargetCritic
from autoperi.genes.empirical import EmpiricalGenes
from autoperi.genes.prior import Excess

Predict = Callable[[Sequence[Crystal]], list[Crystal]]
"""Each crystal with predictions among its properties; travels between processes."""
Keep = Callable[[Sequence[Crystal]], list[Crystal | str]]
"""Each crystal, with what was found of it, or why it is refused."""


_PRICE = 0.1
"""eV/atom: height above the threshold that is as bad as a chance e times too small."""
_NO_CHANCE = 1e-4


def chosen_by(
    config: SampleConfig,
    stability: StabilityCritic | None,
    targets: TargetCritic | None,
    relatives: Relatives | None,
    training: EmpiricalGenes | None,
    windows: Mapping[str, Window] | None = None,
) -> Excess | None:
    """Expected energy beyond the threshold, eV/atom, and chances below it; None where nothing is chosen by.

    Known crystals are infinitely bad where novel ones are asked for.

    Args:
        config: of the drawing.
        stability: critic of the checkpoint, if it has one.
        targets: critic of the checkpoint, if it has one.
        relatives: whose distances they read.
        training: what is known.
        windows: asked for; those that ``targets`` foretells are chosen by.

    Raises:
        ValueError: a choice by what the checkpoint does not have, or among genes that it is not made for.
    """
    usual = stability.config.refused if stability and relatives else 0.0
    chooses = config.genes == "learned" and config.species == "prior"
    refused = (usual if chooses else 0.0) if config.stability is None else config.stability
    foretold = {name: w for name, w in (windows or {}).items() if targets and name in targets.names}
    if not (chooses and relatives and config.likely):
        foretold = {}
    if not refused and not config.novel and not foretold:
        return None
    if not chooses:
        raise ValueError("expected learned genes and species from the prior where crystals are chosen")
    if refused and (stability is None or relatives is None):
        raise ValueError("the checkpoint has no critic of stability: ask for stability 0")
    if config.novel and training is None:
        raise ValueError("the checkpoint carries no training genes: it cannot tell what is novel")

    def excess(crystals: Sequence[Crystal]) -> list[float]:
        missed = np.zeros(len(crystals))
        kin = relatives.distances(crystals, KIN) if relatives and (refused or foretold) else None
        if stability and kin is not None and refused:
            missed += np.subtract(stability.expected(crystals, kin), stability.thresholds(crystals, refused))
        if targets and kin is not None and foretold:
            chances = targets.chances(crystals, kin, foretold).double().clamp(min=_NO_CHANCE)
            lacking = (config.likely / chances).log().clamp(min=0).sum(dim=1)
            missed = missed.clip(min=0) + _PRICE * lacking.cpu().numpy()
        if config.novel and training:
            missed[[training.holds(crystal) for crystal in crystals]] = math.inf
        return missed.tolist()

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
