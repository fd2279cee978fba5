"""Molecules that come to rest on a surface, and what holds them there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from ase.io import write
from pymatgen.core import Structure

from autoperi.discovery.surfaces.adsorbates import Adsorbate, symbols
from autoperi.discovery.surfaces.placement import Placement
from autoperi.discovery.surfaces.slabs import standing
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.relaxation.relaxation import RelaxationSettings, relax, relax_together

RELAXATION = RelaxationSettings(fmax=0.05, max_steps=300, keep_cell=True)
_GONE = 3.5
"""Å from the slab at which a molecule has left it."""


@dataclass(frozen=True)
class Surface:
    """A relaxed slab whose lower half is held: structure, and its energy in eV."""

    structure: Structure
    energy: float

    @property
    def held(self) -> np.ndarray:
        """Which atoms are held, [atoms]."""
        mobile = np.array(self.structure.site_properties["selective_dynamics"], dtype=bool)
        return np.logical_not(mobile[:, 0])


@dataclass(frozen=True)
class Adsorbed:
    """What a placement relaxed to.

    Attributes:
        start: where it began.
        energy: E(slab + molecule) - E(slab) - E(gas), eV: negative where it is held.
        state: ``intact``, ``dissociated`` (a bond of the molecule is broken), ``gone`` (it has left the
            surface) or why there is no energy.
        structure: relaxed; None without an energy.
        steps: of the relaxation.
    """

    start: Placement
    energy: float
    state: str
    structure: Structure | None = None
    steps: int = 0


def prepared(slab: Structure, relaxer: BatchRelaxer) -> Surface:
    """A slab with its upper half relaxed.

    Raises:
        ValueError: no vacuum, or what the potential cannot relax.
    """
    bare = standing(slab)
    heights = bare.frac_coords[:, 2]
    upper = heights > (heights.min() + heights.max()) / 2 - 1e-6
    held = bare.copy(site_properties={"selective_dynamics": [[bool(u)] * 3 for u in upper]})
    found = relax(held, RELAXATION, relaxer=relaxer)
    done = found.structure.copy(site_properties=held.site_properties)
    return Surface(done, found.energy_per_atom * len(done))


def adsorb(
    surface: Surface, adsorbate: Adsorbate, starts: Sequence[Placement], relaxer: BatchRelaxer
) -> list[Adsorbed]:
    """Relax every placement with the upper half of the slab; in the order of the starts."""
    slab, whole = surface.structure, {}
    for k, start in enumerate(starts):
        crystal = slab.copy()
        for symbol, position in zip(symbols(adsorbate.numbers), start.positions(adsorbate), strict=True):
            properties = {"selective_dynamics": [True] * 3}
            crystal.append(symbol, position, coords_are_cartesian=True, properties=properties)
        whole[k] = crystal
    found: dict[int, Adsorbed] = {}
    for k, outcome in relax_together(whole.items(), RELAXATION, relaxer=relaxer):
        if isinstance(outcome, str):
            found[k] = Adsorbed(starts[k], float("nan"), outcome)
            continue
        energy = outcome.energy_per_atom * len(whole[k]) - surface.energy - adsorbate.gas
        state = _state(outcome.structure, len(slab), adsorbate)
        if not outcome.converged:
            state = f"{state}, not at rest"
        found[k] = Adsorbed(starts[k], energy, state, outcome.structure, outcome.steps)
    return [found[k] for k in range(len(starts))]


def save(found: Sequence[Adsorbed], out: Path) -> pd.DataFrame:
    """Write ``adsorption.csv`` and ``placed.extxyz``, strongest first; the table is returned."""
    strongest = sorted(found, key=lambda one: (np.isnan(one.energy), one.energy))
    rows = [{"energy": one.energy, "state": one.state, "steps": one.steps} for one in strongest]
    out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows)
    table.to_csv(out / "adsorption.csv", index_label="number")
    write(out / "placed.extxyz", [one.structure.to_ase_atoms() for one in strongest if one.structure])
    return table


def _state(structure: Structure, slab: int, adsorbate: Adsorbate) -> str:
    """What has become of the molecule, whose atoms come after those of the slab."""
    if not adsorbate.intact(structure.cart_coords[slab:]):
        return "dissociated"
    return "gone" if structure.distance_matrix[slab:, :slab].min() > _GONE else "intact"
