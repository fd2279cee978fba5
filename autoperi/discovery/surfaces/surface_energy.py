"""Energies of surfaces by a potential: what it costs to cut a crystal."""

from collections.abc import Sequence
from dataclasses import dataclass

from ase.units import _e
from pymatgen.core import Structure

from autoperi.discovery.surfaces.slabs import SlabSettings, area_of, cut
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.relaxation.relaxation import RelaxationSettings, relax, relax_together

_J_PER_M2 = 1e20 * _e
"""Of an eV/Å²."""
_BULK = RelaxationSettings(fmax=0.01, max_steps=500, keep_symmetry=True)
_SLAB = RelaxationSettings(fmax=0.02, max_steps=500, keep_cell=True)


@dataclass(frozen=True)
class SurfaceEnergy:
    """A relaxed slab and what its surfaces cost.

    Attributes:
        miller: plane.
        termination: which of the plane's.
        energy: (E_slab - N e_bulk) / 2A after the atoms have relaxed, J/m²; of a slab whose sides differ the
            mean of both.
        unrelaxed: the same as cut.
        symmetric: whether its sides are equal.
        converged: whether the relaxation came to its end.
        slab: relaxed.
    """

    miller: tuple[int, int, int]
    termination: int
    energy: float
    unrelaxed: float
    symmetric: bool
    converged: bool
    slab: Structure

    @property
    def name(self) -> str:
        """Plane and termination, for a file."""
        return f"{''.join(map(str, self.miller))}-{self.termination}"

    def row(self) -> dict[str, object]:
        """For a table."""
        plane, sides = "".join(map(str, self.miller)), "equal" if self.symmetric else "differ"
        named = {"plane": plane, "termination": self.termination, "atoms": len(self.slab)}
        figures = {"energy": round(self.energy, 4), "unrelaxed": round(self.unrelaxed, 4)}
        return {**named, **figures, "sides": sides, "converged": self.converged}


def surface_energies(
    bulk: Structure,
    planes: Sequence[tuple[int, int, int]],
    relaxer: BatchRelaxer,
    settings: SlabSettings | None = None,
) -> tuple[list[SurfaceEnergy], list[tuple[str, str]]]:
    """Surface energies of every termination, lowest first, and (plane, reason) of what has none.

    The bulk is relaxed first, its space group kept; slabs are cut from that, and their atoms relaxed.

    Raises:
        ValueError: a bulk that the potential cannot relax, or no plane.
    """
    relaxed = relax(bulk, _BULK, relaxer=relaxer)
    slabs, found, left_out = {}, [], []
    for miller in planes:
        kept, reasons = cut(relaxed.structure, miller, settings or SlabSettings())
        left_out += [("".join(map(str, miller)), reason) for reason in reasons]
        slabs |= {(miller, number): slab for number, slab in kept.items()}
    for name, outcome in relax_together(slabs.items(), _SLAB, relaxer=relaxer):
        (miller, number), slab = name, slabs[name]
        if isinstance(outcome, str):
            left_out.append(("".join(map(str, miller)), f"termination {number}: {outcome}"))
            continue
        unit = _J_PER_M2 * len(slab) / (2 * area_of(slab))
        energy = unit * (outcome.energy_per_atom - relaxed.energy_per_atom)
        unrelaxed = unit * (outcome.start_energy_per_atom - relaxed.energy_per_atom)
        sides, slab = slab.is_symmetric(), outcome.structure
        found.append(SurfaceEnergy(miller, number, energy, unrelaxed, sides, outcome.converged, slab))
    return sorted(found, key=lambda one: one.energy), left_out
