"""Molecular dynamics with any ASE calculator: a test of a potential that relaxations do not make.

ASE's integrators do the work; this file starts them, watches energy and displacements, and writes frames.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.io import write
from ase.md.bussi import Bussi
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet

_MILLI = 1000.0
"""fs in a ps, meV in an eV."""


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
            displacement (largest of any atom from where it began, Å, its centre of mass at rest).
        atoms: as they stand at the end, velocities included.
    """

    table: pd.DataFrame
    atoms: Atoms

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
        }


def molecular_dynamics(
    atoms: Atoms,
    calculator: Calculator,
    out: Path,
    settings: DynamicsSettings | None = None,
    progress: Callable[[int], None] | None = None,
) -> Dynamics:
    """Move atoms; periodic or not, as ``atoms.pbc`` says.

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
    rng = np.random.default_rng(settings.seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=settings.temperature, rng=rng)
    Stationary(atoms)
    step = settings.timestep * units.fs
    integrator = (
        VelocityVerlet(atoms, step)
        if settings.ensemble == "nve"
        else Bussi(atoms, step, settings.temperature, settings.relaxation * units.fs, rng=rng)
    )
    start = atoms.get_positions()
    rows: list[dict[str, float]] = []

    def look() -> None:
        potential = float(atoms.get_potential_energy()) / len(atoms)
        kinetic = float(atoms.get_kinetic_energy()) / len(atoms)
        time = integrator.nsteps * settings.timestep / _MILLI
        if not np.isfinite(potential + kinetic):
            raise ValueError(
                f"expected finite energies: got {potential} + {kinetic} eV/atom after {time:.3f} ps; use a "
                "shorter time step, or another potential"
            )
        moved = np.linalg.norm(atoms.get_positions() - start, axis=1).max()
        rows.append(
            {
                "time": time,
                "total": potential + kinetic,
                "potential": potential,
                "kinetic": kinetic,
                "temperature": float(atoms.get_temperature()),
                "displacement": float(moved),
            }
        )
        write(frames, atoms, format="extxyz", append=True)
        if progress and integrator.nsteps:
            progress(settings.every)

    integrator.attach(look, interval=settings.every)
    integrator.run(settings.steps)
    table = pd.DataFrame(rows)
    table.to_csv(out / "dynamics.csv", index=False)
    return Dynamics(table, atoms)
