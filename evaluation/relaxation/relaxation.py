"""Relax many crystals together, or one by one with any ASE calculator."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from pymatgen.core import Structure

from evaluation.relaxation.chgnet import CHGNET
from evaluation.relaxation.fire import CellDescent
from evaluation.relaxation.operations import Operations, Projection, symmetric_crystal
from evaluation.relaxation.potential import BatchRelaxer, Forces, Graph, Potential, Relaxer
from evaluation.relaxation.quotient_graph import SKIN
from evaluation.relaxation.settings import RelaxationSettings

_STANDARD = RelaxationSettings()
Key = TypeVar("Key")
_FULL = 1.0  # gigabytes at which a batch takes no more
_GPA = 1 / 160.21766208  # eV/Å³


@dataclass(frozen=True)
class Step:
    """A crystal on its way: energy (eV/atom), longest force (eV/Å), cell (rows, Å), positions (Å)."""

    energy_per_atom: float
    largest_force: float
    cell: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class Relaxed:
    """Where a relaxation ended.

    Attributes:
        structure: final geometry, elements without charges; cell and order of atoms are the input's,
            see `symmetric_crystal` for the one exception.
        energy_per_atom: energy of it, eV/atom (no element references subtracted).
        steps: optimiser steps taken.
        converged: True when `fmax` was reached within `max_steps`.
        start_energy_per_atom: energy it began with, eV/atom; with `keep_symmetry` that of the crystal
            without its deviations from symmetry.
        largest_force: longest force left on an atom or a cell vector, eV/Å.
        trajectory: every step from the start to the end, if asked for.
    """

    structure: Structure
    energy_per_atom: float
    steps: int
    converged: bool
    start_energy_per_atom: float
    largest_force: float
    trajectory: tuple[Step, ...] = ()


class AseRelaxer(Relaxer):
    """A potential of one's own: any ASE calculator, one crystal at a time.

    Attributes:
        calculator: makes the calculator; called once per process, so it must be picklable (a
            function of a module) when several processes relax.
    """

    def __init__(self, name: str, calculator: Callable[[], Any]) -> None:
        super().__init__(name)
        self.calculator = calculator

    def static_energies(self, structures: Sequence[Structure]) -> Iterator[float]:
        """Yield the energy of each structure as it stands, eV/atom; NaN where there is none."""
        from ase import Atoms

        made = self.calculator()
        for structure in structures:
            atoms = Atoms(
                structure.atomic_numbers,
                scaled_positions=structure.frac_coords,
                cell=structure.lattice.matrix,
                pbc=True,
                calculator=made,
            )
            try:
                yield float(atoms.get_potential_energy()) / len(atoms)
            except Exception:
                yield float("nan")


def relax(
    structure: Structure,
    settings: RelaxationSettings = _STANDARD,
    device: str = "cpu",
    relaxer: BatchRelaxer = CHGNET,
) -> Relaxed:
    """Relax atoms and cell of one crystal.

    Raises:
        ValueError: when it cannot be treated (an atom without neighbours, an element the potential does
            not know, out of time); the message says why.
    """
    _, outcome = next(relax_together([(None, structure)], settings, device, relaxer))
    if isinstance(outcome, str):
        raise ValueError(f"relaxation of {structure.composition.alphabetical_formula}: {outcome}")
    return outcome


def relax_together(
    crystals: Iterable[tuple[Key, Structure]],
    settings: RelaxationSettings = _STANDARD,
    device: str = "cpu",
    relaxer: BatchRelaxer = CHGNET,
    batch_sites: int | None = None,
) -> Iterator[tuple[Key, Relaxed | str]]:
    """Relax crystals in one changing batch; yields each, or why it failed, in the order they finish.

    Every crystal follows its own FIRE. One that is done leaves the batch and the next one enters, so
    the batch stays full; results do not depend on the company (on a CPU to the last bit). When memory
    runs out, the largest crystal fails and the others go on.

    Args:
        crystals: names and crystals; taken one by one as there is room.
        settings: when a relaxation stops and what it keeps.
        device: torch device of the potential.
        relaxer: the potential.
        batch_sites: symmetry-distinct atoms (`Graph.sites`) computed together; None is the potential's own.
    """
    potential = relaxer.load(device)
    most = batch_sites or potential.batch_sites
    waiting, more = iter(crystals), True
    active: list[_Crystal] = []
    descent = CellDescent()
    while True:
        while (
            more and sum(c.graph.sites for c in active) < most and sum(c.graph.memory for c in active) < _FULL
        ):
            name, structure = next(waiting, (None, None))
            if structure is None:
                more = False
                break
            try:
                crystal = _Crystal(name, structure, settings, potential)
            except Exception as error:
                yield name, _named(error)  # type: ignore[misc]
                continue
            active.append(crystal)
            descent.enter(crystal.cell, crystal.cart)
        if not active:
            return
        started = time.perf_counter()
        positions, cells = descent.geometry()
        problems = [c.move(x, cell) for c, x, cell in zip(active, positions, cells, strict=True)]
        if any(problems):
            yield from ((c.name, p) for c, p in zip(active, problems, strict=True) if p)
            kept = np.array([not p for p in problems])
            active = [c for c, k in zip(active, kept, strict=True) if k]
            descent.keep(kept)
            continue
        try:
            result = _allowed(potential([c.graph for c in active], positions, list(cells)), active, settings)
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            widest = int(np.argmax([c.graph.memory for c in active]))
            descent.keep(np.arange(len(active)) != widest)
            dropped = active.pop(widest)
            yield dropped.name, f"out of memory at {dropped.graph.sites} symmetry-distinct atoms"
            continue
        forces, largest = descent.forces(result.gradients, result.virials)
        converged = largest < settings.fmax
        for k in np.flatnonzero(descent.steps == 0):
            active[k].start_energy = float(result.energies[k])
        if settings.trajectory:
            for crystal, energy, force in zip(active, result.energies, largest, strict=True):
                crystal.remember(float(energy), float(force))
        _share_time(active, time.perf_counter() - started)
        late = np.array([c.seconds > settings.max_seconds for c in active])
        broken = ~np.isfinite(result.energies) | ~np.isfinite(largest)
        done = converged | late | broken | (descent.steps >= settings.max_steps)
        for k in np.flatnonzero(done):
            crystal, steps = active[k], int(descent.steps[k])
            if broken[k]:
                yield crystal.name, f"energy or force not finite after {steps} steps"
            elif late[k] and not converged[k]:
                yield crystal.name, f"time-out: {settings.max_seconds:g} s used up after {steps} steps"
            else:
                yield crystal.name, crystal.relaxed(result.energies[k], steps, bool(converged[k]), largest[k])
        if done.any():
            rows = ~np.repeat(done, [len(c.numbers) + 3 for c in active])
            forces = forces[rows]
            active = [c for c, d in zip(active, done, strict=True) if not d]
            descent.keep(~done)
        if active:
            descent.step(forces)


class _Crystal:
    """A crystal in the batch: its symmetry, its graph, and where that graph was built."""

    def __init__(
        self, name: Any, structure: Structure, settings: RelaxationSettings, potential: Potential
    ) -> None:
        self.name = name
        self._potential = potential
        self.numbers = np.array(structure.atomic_numbers)
        self.cell = np.array(structure.lattice.matrix, dtype=float)
        frac = np.array(structure.frac_coords, dtype=float)
        if np.linalg.det(self.cell) == 0:
            raise ValueError("cell without volume")
        self.mobile = _mobile(structure, settings)
        self.operations = Operations.identity(len(frac))
        self.projection: Projection | None = None
        if settings.keep_symmetry:
            exact = symmetric_crystal(self.cell, frac, self.numbers, settings.symprec)
            self.cell, frac, self.numbers = exact.cell, exact.frac, exact.numbers
            self.operations = exact.operations
            self.mobile = np.ones((len(frac), 3), dtype=bool)
            self.projection = Projection(self.operations.images, self.operations.cartesian(self.cell))
        self.cart = frac @ self.cell
        self.seconds = 0.0
        self.start_energy = float("nan")
        self.trajectory: list[Step] = []
        self._build()

    def move(self, cart: np.ndarray, cell: np.ndarray) -> str:
        """Go to a new geometry; rebuilds the graph when something may have crossed a cut-off.

        A vector of length r now had at most the length ‖F⁻¹‖ (r + 2u) when the graph was built, F the
        deformation since then and u the largest displacement beside it. Returns why it cannot be
        treated, or "".
        """
        deformation = np.linalg.inv(self._built_cell) @ cell
        beside = cart - self._built_cart @ deformation
        beside -= (beside.max(axis=0) + beside.min(axis=0)) / 2
        farthest = np.linalg.norm(beside, axis=1).max()
        stretch = 1 / np.linalg.svd(deformation, compute_uv=False).min()
        self.cart, self.cell = cart, cell
        cutoff = self._potential.cutoff
        if (cutoff + 2 * farthest) * stretch <= cutoff + SKIN:
            return ""
        try:
            self._build()
        except Exception as error:
            return _named(error)
        return ""

    def remember(self, energy: float, largest: float) -> None:
        """Add the present geometry to the trajectory: eV and eV/Å."""
        self.trajectory.append(Step(energy / len(self.numbers), largest, self.cell, self.cart))

    def relaxed(self, energy: float, steps: int, converged: bool, largest: float) -> Relaxed:
        """The crystal as it is now, with what the last step found: eV and eV/Å."""
        final = Structure(self.cell, self.numbers.tolist(), self.cart, coords_are_cartesian=True)
        energies = np.array([energy, self.start_energy]) / len(self.numbers)
        trajectory = tuple(self.trajectory)
        return Relaxed(
            final, float(energies[0]), steps, converged, float(energies[1]), float(largest), trajectory
        )

    def _build(self) -> None:
        self.graph: Graph = self._potential.graph(self.cell, self.cart, self.numbers, self.operations)
        self._built_cart, self._built_cell = self.cart, self.cell


def _allowed(result: Forces, active: Sequence[_Crystal], settings: RelaxationSettings) -> Forces:
    """Slopes of the enthalpy along what may move: symmetric displacements, atoms not held, the cell."""
    gradients, virials = result.gradients, result.virials
    start = 0
    for k, crystal in enumerate(active):
        atoms = slice(start, start := start + len(crystal.numbers))
        virials[k] += settings.pressure * _GPA * abs(np.linalg.det(crystal.cell)) * np.eye(3)
        gradients[atoms] *= crystal.mobile
        if crystal.projection is not None:
            gradients[atoms] = crystal.projection.vectors(gradients[atoms])
            virials[k] = crystal.projection.tensor(virials[k])
    return Forces(result.energies, gradients, virials * (not settings.keep_cell))


def _mobile(structure: Structure, settings: RelaxationSettings) -> np.ndarray:
    """Directions in which each atom may move, [atoms, 3].

    Raises:
        ValueError: atoms that are held in a cell that is not kept, or in a symmetry that is.
    """
    told = structure.site_properties.get("selective_dynamics")
    if told is None:
        return np.ones((len(structure), 3), dtype=bool)
    mobile = np.array([[True] * 3 if row is None else row for row in told], dtype=bool)
    if not mobile.all() and (settings.keep_symmetry or not settings.keep_cell):
        raise ValueError("expected keep_cell and no keep_symmetry for a crystal with atoms that are held")
    return mobile


def _share_time(active: Sequence[_Crystal], seconds: float) -> None:
    """Charge each crystal its part of a step, by what is computed for it."""
    work = np.array([c.graph.work for c in active], dtype=float)
    for crystal, share in zip(active, seconds * work / work.sum(), strict=True):
        crystal.seconds += float(share)


def relax_with_calculator(structure: Structure, calculator: Any, settings: RelaxationSettings) -> Relaxed:
    """Relax one crystal with an ASE calculator: FIRE, FrechetCellFilter where the cell moves.

    Raises:
        TimeoutError: after `max_seconds`.
        ValueError: when it ends at no finite energy, or holds atoms that cannot be held. Whatever the
            calculator raises passes through.
    """
    from ase import Atoms
    from ase.constraints import FixCartesian, FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    cell, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
    numbers = np.array(structure.atomic_numbers)
    if settings.keep_symmetry:
        exact = symmetric_crystal(cell, frac, numbers, settings.symprec)
        cell, frac, numbers = exact.cell, exact.frac, exact.numbers
    atoms = Atoms(numbers, scaled_positions=frac, cell=cell, pbc=True, calculator=calculator)
    if settings.keep_symmetry:
        atoms.set_constraint(FixSymmetry(atoms, symprec=settings.symprec))
    elif not (mobile := _mobile(structure, settings)).all():
        atoms.set_constraint([FixCartesian(k, ~mobile[k]) for k in np.flatnonzero(~mobile.all(axis=1))])
    pressed = settings.pressure * _GPA
    both = atoms if settings.keep_cell else FrechetCellFilter(atoms, scalar_pressure=pressed)
    optimizer = FIRE(both, logfile=None)  # type: ignore[arg-type]
    started, converged = time.perf_counter(), False
    start = float(atoms.get_potential_energy()) / len(atoms)
    trajectory: list[Step] = []

    def remember() -> None:
        energy, force = atoms.get_potential_energy() / len(atoms), np.linalg.norm(both.get_forces(), axis=1)
        trajectory.append(
            Step(float(energy), float(force.max()), np.array(atoms.cell), atoms.get_positions())
        )

    if settings.trajectory:
        optimizer.attach(remember)
    for converged in optimizer.irun(fmax=settings.fmax, steps=settings.max_steps):
        if not converged and time.perf_counter() - started > settings.max_seconds:
            raise TimeoutError(f"{settings.max_seconds:g} s used up after {optimizer.nsteps} steps")
    energy = float(atoms.get_potential_energy()) / len(atoms)
    if not np.isfinite(energy):
        raise ValueError(
            f"relaxation of {structure.composition.alphabetical_formula} ended at energy {energy} eV/atom"
        )
    final = Structure(
        np.array(atoms.cell), numbers.tolist(), atoms.get_positions(), coords_are_cartesian=True
    )
    largest = float(np.linalg.norm(both.get_forces(), axis=1).max())
    steps = int(optimizer.nsteps)
    return Relaxed(final, energy, steps, bool(converged), start, largest, tuple(trajectory))


def _named(error: Exception) -> str:
    """Kind and message of an error, short enough for a table."""
    return f"{type(error).__name__}: {error}"[:300]
