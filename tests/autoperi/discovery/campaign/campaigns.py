"""Campaigns and shards for tests: nothing is drawn, relaxed or learned for them."""

from dataclasses import replace

import numpy as np

from autoperi.discovery.campaign.funnel import Funnel, Passed
from autoperi.discovery.campaign.settings import Campaign
from autoperi.discovery.campaign.shard import DRAWS, Shard
from tests.autoperi.small import small_crystal


def unchanged(crystals):
    """A guide that has nothing to tell; at the top of a module, so that it can be pickled."""
    return list(crystals)


def campaign(**settings):
    return Campaign(unchanged, **settings)


def shard(number):
    """Some crystals of a shard, by its number alone; every third shard has found none."""
    rng = np.random.default_rng(number)
    count = 0 if number % 3 == 2 else 4
    crystals = [
        replace(
            small_crystal(221, 10 * number + k),
            id=f"{number * DRAWS + k:06d}",
            properties={"e_above_hull": float(rng.normal(0, 0.02))},
            provenance={"novelty": "substitution", "akin_to": "NaCl (225, mp_20 train)", "seed": 0},
        )
        for k in range(count)
    ]
    return Shard(
        number, Funnel((Passed("drawn", DRAWS, 90, 1.0), Passed("stable", 90, count, 2.0))), crystals
    )


def in_order(order):
    """An executor whose shards are done in another order than asked for."""

    def execute(_, numbers):
        for number in order(list(numbers)):
            yield shard(number)

    return execute
