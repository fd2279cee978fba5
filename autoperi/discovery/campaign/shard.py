"""A shard: what some draws of a campaign come to; a pure function of the campaign and its number."""

import pickle
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from autoperi.crystals.crystal import Crystal
from autoperi.data.files import crystal_of_record, crystal_record
from autoperi.discovery.campaign.funnel import Funnel, Passed
from autoperi.discovery.campaign.settings import Campaign
from autoperi.discovery.campaign.stages import Stage, misses, stages
from autoperi.generator import CrystalGenerator, load
from autoperi.generator.delivery import DeliveryWarning, NothingDrawnError

DRAWS = 100
"""Of a shard; shard k draws the crystals from k * DRAWS on."""


@dataclass(frozen=True)
class Shard:
    """What became of the draws of a shard.

    Attributes:
        number: of the shard.
        funnel: how many came how far.
        crystals: those that came through.
        problem: why there is nothing; a shard that went well has none, whatever it found.
    """

    number: int
    funnel: Funnel
    crystals: Sequence[Crystal]
    problem: str = ""

    def record(self) -> dict[str, Any]:
        """As plain values."""
        passed = [[p.stage, p.entered, p.left, p.seconds, dict(p.missed)] for p in self.funnel.stages]
        return {
            "number": self.number,
            "funnel": passed,
            "crystals": [crystal_record(crystal) for crystal in self.crystals],
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Shard":
        """From plain values; raises KeyError, TypeError or ValueError for damaged ones."""
        funnel = Funnel(tuple(Passed(*one) for one in record["funnel"]))
        return cls(int(record["number"]), funnel, [crystal_of_record(c) for c in record["crystals"]])


def searched(campaign: bytes, number: int) -> Shard:
    """Draw and choose; what it takes is loaded once a process.

    Args:
        campaign: pickled.
        number: of the shard.
    """
    asked, generator, steps = _prepared(campaign)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeliveryWarning)  # the funnel tells it
        crystals = drawn(asked, generator, number * DRAWS, DRAWS)
    passed = [Passed("drawn", DRAWS, len(crystals), time.perf_counter() - began)]
    for step in steps:
        began, before = time.perf_counter(), len(crystals)
        told = step.tell(crystals) if crystals else []
        crystals = step.keep(told) if told else []
        missed = misses(asked, told) if step.tell is asked.guide else {}
        passed.append(Passed(step.name, before, len(crystals), time.perf_counter() - began, missed))
    return Shard(number, Funnel(tuple(passed)), crystals)


@lru_cache(maxsize=1)
def _prepared(campaign: bytes) -> tuple[Campaign, CrystalGenerator, list[Stage]]:
    torch.set_num_threads(1)  # shards are the parallelism
    asked: Campaign = pickle.loads(campaign)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is known: told once, where the campaign begins
        return asked, load(asked.checkpoint), stages(asked)


def drawn(campaign: Campaign, generator: CrystalGenerator, first: int, count: int) -> list[Crystal]:
    """The draws of a campaign from number ``first`` on; those that are not what was asked for are missing.

    Raises:
        ValueError: what can never be drawn is asked for.
    """
    known = generator.config.conditions
    steered = {name: w for name, w in campaign.windows if name in known} | dict(campaign.steer)
    try:
        return list(
            generator.sample(
                count,
                campaign.seed,
                request=campaign.request,
                conditions=steered,
                config=campaign.drawn(),
                descent=campaign.descent() if campaign.descent and campaign.config.tries > 1 else None,
                first=first,
            )
        )
    except NothingDrawnError:
        return []
