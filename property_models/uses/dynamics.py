"""Molecular dynamics with any ASE calculator: a test of a potential that relaxations do not make.

ASE's integrators do the work; this file starts them, watches energy and displacements, and writes frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.collections import g2
from ase.io import write
from ase.md.bussi import Bussi
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import natural_cutoffs, neighbor_list
from ase.optimize import BFGS

_MILLI = 1000.0
"""fs in a ps, meV in an eV."""
_BONDED, _BROKEN = 1.25, 1.5
"""Sums of covalent radii up to which atoms are bonded; lengths of a bond at which it is broken."""
_APART = 25.0
"""Å between molecules that should not feel each other."""
MOLECULE = "molecule"
"""Array of atoms: the number of the molecule that each belongs to."""


@dataclass(frozen=True)
class DynamicsSettings:
    """How atoms move.

    Attributes:
        ensemble: ``nve`` keeps the energy (velocity Verlet); ``nvt`` the temperature (stochastic velocity
            rescaling, Bussi et al., doi:10.1063/1.2408420).
        picoseconds: length of the run.
        timestep: fs.
        temperature: K; of the first velocities, and of the thermostat. In ``nve`` about half of it goes
            into the potential when the atoms start where the forces vanish.
        relaxation: fs in which the thermostat corrects the temperature.
        every: steps between the frames and rows that are kept.
        seed: of the velocities and the thermostat.
    """

    ensemble: Literal["nve", "nvt"] = "nve"
    picoseconds: float = 10.0
    timestep: float = 2.0
    temperature: float = 300.0
    relaxation: float = 100.0
    every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.picoseconds, self.timestep, self.temperature, self.relaxation) <= 0 or self.every < 1:
            raise ValueError(f"expected positive times and temperature, and every >= 1: got {self}")

    @property
    def steps(self) -> int:
        """Of the integrator."""
        return max(1, round(_MILLI * self.picoseconds / self.timestep))


@dataclass(frozen=True)
class Dynamics:
    """What came of a run.

    Attributes:
        table: one row per frame: time (ps), total, potential and kinetic energy (eV/atom), temperature (K),
            displacement (largest of any atom from where it began, Å, its centre of mass at rest), and
            number of broken bonds.
        atoms: as they stand at the end, velocities included.
        molecules: the same of each, where the atoms are those of several.
    """

    table: pd.DataFrame
    atoms: Atoms
    molecules: tuple["Dynamics", ...] = ()

    @property
    def broken(self) -> int:
        """Most bonds that were broken at once: longer than half as long again as in the beginning."""
        return int(self.table["broken"].to_numpy().max())

    @property
    def drift(self) -> float:
        """Slope of the total energy, meV/atom per ps: zero for an exact integrator of a true gradient."""
        return _MILLI * float(self._line()[0])

    @property
    def scatter(self) -> float:
        """Standard deviation of the total energy about that slope, meV/atom."""
        left = self.table["total"].to_numpy() - np.polyval(self._line(), self.table["time"].to_numpy())
        return float(_MILLI * np.std(left))

    def _line(self) -> np.ndarray:
        return np.polyfit(self.table["time"].to_numpy(), self.table["total"].to_numpy(), 1)

    @property
    def displacement(self) -> float:
        """Largest of any atom at any time, Å; an atom that flies off passes its neighbours' distance."""
        return float(self.table["displacement"].to_numpy().max())

    def summary(self) -> dict[str, str]:
        """For people."""
        last = self.table["temperature"].to_numpy()[len(self.table) // 2 :]
        return {
            "atoms": str(len(self.atoms)),
            "length": f"{self.table['time'].to_numpy()[-1]:.1f} ps",
            "temperature": f"{last.mean():.0f} ± {last.std():.0f} K in the second half",
            "energy drift": f"{self.drift:+.3f} meV/atom per ps",
            "energy scatter": f"{self.scatter:.3f} meV/atom",
            "largest displacement": f"{self.displacement:.2f} Å",
            "broken bonds": str(self.broken),
        }


def molecular_dynamics(
    atoms: Atoms,
    calculator: Calculator,
    out: Path,
    settings: DynamicsSettings | None = None,
    progress: Callable[[int], None] | None = None,
) -> Dynamics:
    """Move atoms; periodic or not, as ``atoms.pbc`` says.

    Atoms with an array ``molecule`` are those of several, none of which moves as a whole at first; they share
    a thermostat and a time step, and have energies of their own.

    Writes ``out/trajectory.extxyz`` (positions unwrapped, velocities, energy, forces) frame by frame, so that
    a run that is stopped has left what it did, and ``out/dynamics.csv``.

    Args:
        atoms: where they start; not changed.
        calculator: energy and forces.
        out: folder.
        settings: how they move.
        progress: told how many steps were just made.

    Raises:
        ValueError: no atoms, or an energy that is not finite: the time step is too long, or the potential
            is not made for what the atoms have become.
    """
    settings = settings or DynamicsSettings()
    if not len(atoms):
        raise ValueError("expected atoms to move: got none")
    out.mkdir(parents=True, exist_ok=True)
    frames = out / "trajectory.extxyz"
    frames.unlink(missing_ok=True)
    atoms = atoms.copy()
    atoms.calc = calculator
    owner = atoms.arrays.get(MOLECULE, np.zeros(len(atoms), dtype=int))
    rng = np.random.default_rng(settings.seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=settings.temperature, rng=rng)
    watched = [_Watched(atoms, owner == k) for k in np.unique(owner)]
    for each in watched:
        each.bring_to_rest(settings.temperature)
    step = settings.timestep * units.fs
    integrator = (
        VelocityVerlet(atoms, step)
        if settings.ensemble == "nve"
        else Bussi(atoms, step, settings.temperature, settings.relaxation * units.fs, rng=rng)
    )
    whole = _Watched(atoms, np.ones(len(atoms), dtype=bool))

    def look() -> None:
        time = integrator.nsteps * settings.timestep / _MILLI
        whole.look(time, np.full(len(atoms), atoms.get_potential_energy() / len(atoms)))
        if len(watched) > 1:
            energies = atoms.get_potential_energies()
            for each in watched:
                each.look(time, energies)
        write(frames, atoms, format="extxyz", append=True)
        if progress and integrator.nsteps:
            progress(settings.every)

    integrator.attach(look, interval=settings.every)
    integrator.run(settings.steps)
    found = whole.dynamics()
    found.table.to_csv(out / "dynamics.csv", index=False)
    parts = tuple(each.dynamics() for each in watched) if len(watched) > 1 else ()
    return replace(found, molecules=parts)


def molecules_at_rest(names: Sequence[str], calculator: Calculator) -> Atoms:
    """Molecules of ASE's g2 set beyond each other's reach, each where the forces on it vanish (0.01 eV/Å).

    Raises:
        ValueError: a name that is not in the set, one atom alone, or one that does not come to rest.
    """
    together, numbers = Atoms(), []
    for name in names:
        if name not in g2.names:
            raise ValueError(f"expected molecules of ASE's g2 set ({' '.join(sorted(g2.names))}): got {name}")
        one = molecule(name)
        if len(one) == 1:
            raise ValueError(f"expected molecules: got {name}, which is one atom")
        one.calc = calculator
        if not BFGS(one, logfile=None).run(fmax=0.01, steps=300):  # type: ignore[arg-type]
            raise ValueError(f"expected a molecule that comes to rest: {name} does not in 300 steps")
        one.positions += [_APART * len(numbers), 0, 0] - one.get_center_of_mass()
        numbers.append(len(one))
        together += one
    together.set_array(MOLECULE, np.repeat(np.arange(len(numbers)), numbers))
    return together


class _Watched:
    """Atoms that belong together while all move: the rows of their table."""

    def __init__(self, atoms: Atoms, own: np.ndarray) -> None:
        self._atoms, self._own = atoms, own
        self._start = atoms.get_positions()[own]
        bonds, lengths = _bonds(atoms)
        mine = own[bonds[0]]
        self._bonds, self._bond_lengths = tuple(b[mine] for b in bonds), lengths[mine]
        self._rows: list[dict[str, float]] = []

    def bring_to_rest(self, temperature: float) -> None:
        """Take the velocity of the centre of mass away and keep the temperature, K."""
        velocities, masses = self._atoms.get_velocities(), self._atoms.get_masses()[self._own]
        velocities[self._own] -= masses @ velocities[self._own] / masses.sum()
        self._atoms.set_velocities(velocities)
        if (now := self._temperature()) > 0:
            velocities[self._own] *= np.sqrt(temperature / now)
            self._atoms.set_velocities(velocities)

    def look(self, time: float, energies: np.ndarray) -> None:
        """Add a row: time in ps, potential energy of every atom in eV."""
        potential, kinetic = float(energies[self._own].mean()), self._kinetic() / int(self._own.sum())
        if not np.isfinite(potential + kinetic):
            raise ValueError(
                f"expected finite energies: got {potential} + {kinetic} eV/atom after {time:.3f} ps; use a "
                "shorter time step, or another potential"
            )
        moved = np.linalg.norm(self._atoms.positions[self._own] - self._start, axis=1).max()
        broken = _lengths(self._atoms, self._bonds) > _BROKEN * self._bond_lengths
        self._rows.append(
            {
                "time": time,
                "total": potential + kinetic,
                "potential": potential,
                "kinetic": kinetic,
                "temperature": self._temperature(),
                "displacement": float(moved),
                "broken": int(broken.sum()),
            }
        )

    def dynamics(self) -> Dynamics:
        """What was seen."""
        return Dynamics(pd.DataFrame(self._rows), self._atoms[self._own])

    def _kinetic(self) -> float:
        squares = (self._atoms.get_velocities()[self._own] ** 2).sum(axis=1)
        return float(self._atoms.get_masses()[self._own] @ squares / 2)

    def _temperature(self) -> float:
        """Of all motions but that of the centre of mass, K."""
        return 2 * self._kinetic() / (units.kB * max(1, 3 * int(self._own.sum()) - 3))


def _bonds(atoms: Atoms) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Pairs of bonded atoms, with the image of the second, and their distances, Å."""
    reach = [_BONDED * radius for radius in natural_cutoffs(atoms)]
    first, second, images, lengths = neighbor_list("ijSd", atoms, reach)
    once = first < second  # a bond with an own image cannot break
    return (first[once], second[once], images[once]), lengths[once]


def _lengths(atoms: Atoms, bonds: tuple[np.ndarray, ...]) -> np.ndarray:
    """Lengths of bonds, Å; positions are continuous, so that images stay what they were."""
    first, second, images = bonds
    apart = atoms.positions[second] + images @ np.array(atoms.cell) - atoms.positions[first]
    return np.linalg.norm(apart, axis=1)
