"""Geometry of genes: several tries of each where asked, of which the lowest in energy is kept."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import torch

from autoperi.crystals.crystal import Crystal
from autoperi.flow.relatives import Relatives
from autoperi.flow.sampler import FlowModel
from autoperi.flow.starts import starts
from autoperi.flow.steering import Guide
from autoperi.generator.settings import SampleConfig
from autoperi.networks.condition import Targets

Stage = Literal["genes", "geometry"]
Progress = Callable[[Stage, int], None]
"""Told how many crystals have just passed a stage."""
Descent = Callable[[Sequence[Crystal]], list[tuple[Crystal, float]]]
"""Each crystal some steps further down an energy, and that energy in eV/atom."""

Drawn = TypeVar("Drawn")

_TRY = 1 << 18
"""Keeps the noise of further tries apart from all other noise."""


def silent(stage: Stage, crystals: int) -> None:
    """Tell nobody."""


def drawn_geometry(
    flow: FlowModel,
    relatives: Relatives | None,
    start_time: float,
    genes: Sequence[Crystal],
    keys: Sequence[tuple[int, ...]],
    seed: int,
    targets: Targets,
    config: SampleConfig,
    progress: Progress,
    guide: Guide | None,
    descent: Descent | None,
) -> list[Crystal]:
    """Whole crystals of genes, in their order, each from the noise of its key.

    Try j of a gene begins from its j-th nearest relative, from fresh noise where there are no more. The
    first try is what a single one would be. How far relatives are taken as they are is ``start_time`` where
    the settings do not say.

    Raises:
        ValueError: several tries and no descent that would tell the better one.
    """
    if config.tries > 1 and descent is None:
        raise ValueError(
            f"expected an energy by which one of {config.tries} tries is kept: got no descent, e.g. "
            "property_models.physics.descent.shipped_descent()"
        )
    settings = config.flow
    kind, time = settings.start.kind, settings.start.time or start_time
    begun = [starts(genes, relatives, kind, time, rank) for rank in range(config.tries)]
    variants = [gene for own in begun for gene in own.genes]
    begins = [begin for own in begun for begin in own.begins]
    noises = [(*key, _TRY, rank) if rank else key for rank in range(config.tries) for key in keys]
    late = np.array([begin.time for begin in begins]) >= time
    order = np.lexsort((np.array([-g.n_sites * g.n_atoms for g in variants]), late))
    size = max(1, min(settings.batch_size, math.ceil(len(variants) / config.workers)))
    parts = [order[i : i + size].tolist() for i in range(0, len(order), size)]

    def geometry(part: list[int]) -> list[tuple[Crystal, float]]:
        own = targets.select([i % len(genes) for i in part])
        drawn = flow.draw(
            [variants[i] for i in part],
            seed,
            own,
            settings,
            [noises[i] for i in part],
            guide,
            [begins[i] for i in part],
        )
        progress("geometry", sum(i < len(genes) for i in part))
        if config.tries == 1 or descent is None:
            return [(crystal, 0.0) for crystal in drawn]
        return descent(drawn)

    done = in_threads([partial(geometry, part) for part in parts], config.workers)
    found = dict(zip(order.tolist(), [one for part in done for one in part], strict=True))
    return [
        _lowest([found[rank * len(genes) + i] for rank in range(config.tries)]) for i in range(len(genes))
    ]


def _lowest(tries: Sequence[tuple[Crystal, float]]) -> Crystal:
    """The try of lowest energy, the first of equals; it says which it was."""
    best = min(range(len(tries)), key=lambda k: tries[k][1])
    crystal, energy = tries[best]
    if len(tries) == 1:
        return crystal
    told = {"try": best + 1, "tries": len(tries)} | ({"energy": energy} if math.isfinite(energy) else {})
    return replace(crystal, provenance={**crystal.provenance, **told})


def in_threads(jobs: Sequence[Callable[[], list[Drawn]]], workers: int) -> list[list[Drawn]]:
    """Results in the order of the jobs; one-threaded workers beat one worker with many threads."""
    if workers == 1:
        return [job() for job in jobs]
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(lambda job: job(), jobs))
