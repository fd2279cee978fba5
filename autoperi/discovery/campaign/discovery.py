"""A campaign from start to end: shards in order, until enough is found or the budget is spent."""

import json
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.labels import Window
from autoperi.data.cache import written_whole
from autoperi.discovery.campaign.executors import Executor, in_processes
from autoperi.discovery.campaign.funnel import Funnel
from autoperi.discovery.campaign.settings import ENERGY, Campaign
from autoperi.discovery.campaign.shard import DRAWS, Shard
from evaluation.facts.matching import Kinds

SHARDS = "shards"
MOST = 100
"""Draws for each crystal that is asked for, at most, unless more are allowed."""

Progress = Callable[[int, int], None]
"""Told how many crystals have been found, and how many drawn."""


def _silent(found: int, drawn: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Discovery:
    """What a campaign has found.

    Attributes:
        crystals: the best first, each with ``rank``, energies, predictions and judgements among its
            properties, and novelty, what it is akin to, start and seed in its provenance.
        funnel: how many came how far.
        ended: why it ended: ``found``, ``draws`` (as many as were allowed) or ``budget`` (of time).
        failures: (shard, where, reason) of shards that were lost.
    """

    crystals: Sequence[Crystal]
    funnel: Funnel
    ended: str
    failures: Sequence[tuple[str, str, str]] = ()

    def table(self) -> pd.DataFrame:
        """One row per crystal: what ``discovered.csv`` holds."""
        told = ("novelty", "akin_to", "decomposes_to", "start", "relative", "seed")
        rows = [
            {
                "rank": rank,
                "id": crystal.id,
                "formula": crystal.formula,
                "space_group": crystal.space_group,
                "gene": crystal.gene,
                "atoms": crystal.n_atoms,
                **{name: value for name, value in crystal.properties.items() if name != "rank"},
                **{name: crystal.provenance.get(name) for name in told},
            }
            for rank, crystal in enumerate(self.crystals, 1)
        ]
        fixed = ["rank", "id", "formula", "space_group", "gene", "atoms", ENERGY, *told[:3]]
        columns = list(dict.fromkeys([*fixed, *(name for row in rows for name in row)]))
        return pd.DataFrame(rows, columns=columns)


def discover(
    campaign: Campaign,
    n: int = 100,
    *,
    rank: str = ENERGY,
    draws: int | None = None,
    budget: float = float("inf"),
    executor: Executor | None = None,
    folder: Path | None = None,
    progress: Progress = _silent,
) -> Discovery:
    """Draw, choose, relax and judge until n crystals are found: the first n, in the order of their numbers.

    What is found depends on the campaign and n alone, and on the budget where that ends it; not on who works
    or how many.

    Args:
        campaign: what is looked for.
        n: how many.
        rank: property that the crystals found are ordered by, the least first: height above the hull, where
            the worse of CHGNet's and the guide's counts, as one alone is too low now and then; one with a
            window by how near its middle it is, or how far inside where the window has one end; ``chance``:
            those first that most likely meet all windows.
        draws: after so many, rounded up to whole shards, the campaign ends; by default 100 for each crystal.
        budget: seconds after which it ends.
        executor: who works; by default this process.
        folder: keeps finished shards, so that the same call goes on after an interruption.
        progress: told of what is done.

    Raises:
        ValueError: numbers out of range, an unknown property, a request that cannot be met.
    """
    for name, number in (("n", n), ("draws", 1 if draws is None else draws), ("budget", budget)):
        if not number > 0:
            raise ValueError(f"expected {name} above 0: got {number:g}")
    order = ranking(campaign, rank)
    ends = time.monotonic() + budget
    count = -(-(draws or MOST * n) // DRAWS)
    done = _read(folder, count) if folder else {}
    found, merged, ended = _Found(n), 0, "draws"
    waiting = (executor or in_processes())(pickle.dumps(campaign), [k for k in range(count) if k not in done])
    try:
        while True:
            while merged in done:
                found.add(done[merged])
                merged += 1
                progress(len(found.crystals), merged * DRAWS)
                if found.enough:
                    break
            if found.enough or merged == count or time.monotonic() > ends:
                ended = "found" if found.enough else "draws" if merged == count else "budget"
                break
            shard = next(waiting)
            done[shard.number] = shard
            if folder and not shard.problem:
                _write(shard, folder)
    finally:
        if close := getattr(waiting, "close", None):
            close()
    crystals = [
        replace(c, properties={"rank": k, **c.properties})
        for k, c in enumerate(sorted(found.crystals, key=order), 1)
    ]
    return Discovery(crystals, found.funnel(), ended, found.failures)


class _Found:
    """What shards have brought, in their order, each crystal once."""

    def __init__(self, n: int) -> None:
        self._n, self._kinds, self._funnels = n, Kinds(), []
        self.crystals: list[Crystal] = []
        self.failures: list[tuple[str, str, str]] = []

    @property
    def enough(self) -> bool:
        return len(self.crystals) == self._n

    def add(self, shard: Shard) -> None:
        if shard.problem:
            self.failures.append((str(shard.number), "shard", shard.problem))
        self._funnels.append(shard.funnel)
        for crystal in shard.crystals:
            if not self.enough and self._kinds.add(crystal.to_structure()) is None:
                self.crystals.append(crystal)

    def funnel(self) -> Funnel:
        return Funnel.summed(self._funnels).then("returned", len(self.crystals))


def ranking(campaign: Campaign, name: str) -> Callable[[Crystal], float]:
    """By what crystals are ordered, the least first; missing values come last.

    Raises:
        ValueError: a property that the campaign does not tell.
    """
    windows = dict(campaign.windows)
    known = [ENERGY, "formation_energy", "atoms", *windows, *(["chance"] if windows else [])]
    if name not in known:
        raise ValueError(f"expected to rank by one of {', '.join(dict.fromkeys(known))}: got {name!r}")
    window = windows.get(name)

    def key(crystal: Crystal) -> float:
        if name == "atoms":
            return crystal.n_atoms
        if name == "chance":
            chances = [crystal.properties.get(f"predicted_{one}_chance", np.nan) for one in windows]
            return -float(np.nan_to_num(np.prod(chances)))
        told = [crystal.properties.get(one, np.nan) for one in (name, f"predicted_{name}")]
        value = max(told) if name == ENERGY else float(told[0] if name in crystal.properties else told[1])
        return np.inf if np.isnan(value) else value if window is None else _inwards(window, value)

    return key


def _inwards(window: Window, value: float) -> float:
    """Smaller the better a value is for who asked for the window."""
    if np.isinf(window.high):
        return -value
    return value if np.isinf(window.low) else abs(value - (window.low + window.high) / 2)


def _write(shard: Shard, folder: Path) -> None:
    (folder / SHARDS).mkdir(exist_ok=True)
    with written_whole(folder / SHARDS / f"{shard.number:06d}.json") as part:
        part.write_text(json.dumps(shard.record()), encoding="utf-8")


def _read(folder: Path, count: int) -> dict[int, Shard]:
    """Shards that an earlier run has left."""
    found = {}
    for file in sorted((folder / SHARDS).glob("*.json")):
        try:
            shard = Shard.of_record(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged: delete it, and the shard is done again") from error
        if shard.number < count:
            found[shard.number] = shard
    return found
