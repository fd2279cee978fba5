"""Labels that crystals carry and networks are conditioned on: names, units, ranges."""

import math

SCALARS = {"band_gap": (0.0, 8.0), "formation_energy": (-4.0, 1.0), "e_above_hull": (0.0, 0.5)}
"""Conditions the models know and the range their embedding resolves: eV, eV/atom, eV/atom."""


def condition_row(values: dict[str, float], *, ignore_unknown: bool = False) -> list[float]:
    """One row of a condition tensor: NaN where nothing is asked; raises ValueError for unknown names."""
    unknown = set(values) - set(SCALARS)
    if unknown and not ignore_unknown:
        raise ValueError(f"expected conditions among {sorted(SCALARS)}: got {sorted(unknown)}")
    return [float(values.get(name, math.nan)) for name in SCALARS]
