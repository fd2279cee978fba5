"""Refusals of what a generator is not to be asked, before any work."""

from collections.abc import Mapping

import numpy as np

from autoperi.crystals.labels import Asked, Condition, Window
from autoperi.generator.settings import SampleConfig
from autoperi.genes.request import GeneRequest

MOST = 1_000_000
"""Crystals of one draw."""


def check_count(n: int, first: int = 0) -> None:
    """Raise ValueError for no crystals, or for more than are held in memory."""
    if n < 1 or first < 0 or first + n > MOST:
        raise ValueError(
            f"expected to sample at least one crystal and at most {MOST}, all held in memory: got "
            f"n = {n}; draw more with other seeds"
        )


def check_types(n: object, seed: object, request: object, conditions: object, config: object) -> None:
    """Raise TypeError with the remedy; what numbers and names may be is for those who read them to say."""
    for name, number in (("n", n), ("seed", seed)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise TypeError(f"expected an integer as {name}: got {number!r}")
    remedies = (
        ("request", request, GeneRequest, 'autoperi.GeneRequest(formula="BaTiO3")'),
        ("conditions", conditions, Mapping, '{"band_gap": 1.3}'),
        ("config", config, SampleConfig, "autoperi.SampleConfig(temperature=0.8)"),
    )
    for name, value, kind, example in remedies:
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"expected a {kind.__name__} as {name}, e.g. {example}: got {value!r}")


def windows_within(asked: Mapping[str, Asked] | None, known: Mapping[str, Condition]) -> dict[str, Window]:
    """Windows by name, open ends closed by the conditions' ranges; ValueError for what is no window."""
    windows: dict[str, Window] = {}
    for name, one in sorted((asked or {}).items()):
        if name not in known:
            among = f"among {sorted(known)}" if known else "of no kind: this checkpoint has none"
            raise ValueError(
                f"expected conditions {among}: got {name!r}; `autoperi train --condition` adds one of your "
                "own"
            )
        try:
            windows[name] = Window.of(one).within(known[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return windows
