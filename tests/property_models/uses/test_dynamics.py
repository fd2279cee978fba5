"""Dynamics: energy is kept, the thermostat holds, what is written can be read, errors name their cause."""

from typing import ClassVar

import ase.io
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from property_models.potentials.calculator import PotentialCalculator
from property_models.potentials.distilled import load
from property_models.uses.dynamics import DynamicsSettings, molecular_dynamics, molecules_at_rest

COPPER = bulk("Cu", cubic=True).repeat((2, 2, 2))


def test_energy_is_kept_and_no_atom_flies_off(tmp_path):
    start = COPPER.get_positions()
    told = []
    settings = DynamicsSettings(picoseconds=1.0, timestep=2.0, every=10)
    found = molecular_dynamics(COPPER, EMT(), tmp_path, settings, told.append)
    assert abs(found.drift) < 0.5
    assert found.scatter < 0.5
    assert 0.05 < found.displacement < 1.0
    assert sum(told) == settings.steps == 500
    assert np.array_equal(COPPER.get_positions(), start)
    frames = ase.io.read(tmp_path / "trajectory.extxyz", index=":")
    assert len(frames) == len(found.table) == 51
    potential = frames[-1].get_potential_energy() / len(COPPER)
    assert potential == pytest.approx(found.table["potential"].iloc[-1])
    assert pd.read_csv(tmp_path / "dynamics.csv")["time"].iloc[-1] == pytest.approx(1.0)


def test_half_a_time_step_scatters_a_quarter(tmp_path):
    """Velocity Verlet is of second order: the energy's scatter falls with the square of the step."""
    scatter = [
        molecular_dynamics(
            COPPER, EMT(), tmp_path, DynamicsSettings(picoseconds=0.5, timestep=t, every=1)
        ).scatter
        for t in (8.0, 4.0)
    ]
    assert scatter[0] / scatter[1] == pytest.approx(4.0, rel=0.25)


def test_the_thermostat_heats_what_velocities_alone_would_leave_at_half(tmp_path):
    settings = DynamicsSettings("nvt", picoseconds=2.0, timestep=4.0, temperature=600.0, relaxation=50.0)
    found = molecular_dynamics(COPPER, EMT(), tmp_path, settings)
    assert found.table["temperature"].iloc[100 // 2 // 2 :].mean() == pytest.approx(600.0, rel=0.1)


def test_a_molecule_is_not_periodic(tmp_path):
    nitrogen = Atoms("N2", positions=[[0, 0, 0], [0, 0, 1.1]])
    found = molecular_dynamics(nitrogen, EMT(), tmp_path, DynamicsSettings(picoseconds=0.1, timestep=0.5))
    assert abs(found.table["total"].iloc[-1] - found.table["total"].iloc[0]) < 0.005
    assert not ase.io.read(tmp_path / "trajectory.extxyz").pbc.any()


class _Nowhere(Calculator):
    implemented_properties: ClassVar = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": float("nan"), "forces": np.zeros((len(self.atoms), 3))}


def test_what_cannot_move_says_why(tmp_path):
    with pytest.raises(ValueError, match="expected atoms to move"):
        molecular_dynamics(Atoms(), EMT(), tmp_path)
    with pytest.raises(ValueError, match="shorter time step"):
        molecular_dynamics(COPPER, _Nowhere(), tmp_path)
    with pytest.raises(ValueError, match="expected positive times"):
        DynamicsSettings(timestep=0.0)


def test_molecules_move_side_by_side_as_each_does_alone(tmp_path):
    """Each has its own energy and temperature, and does not feel the others."""
    potential = PotentialCalculator(load())
    both = molecules_at_rest(("H2O", "CO2"), potential)
    assert np.abs(potential.get_forces(both)).max() < 0.01
    settings = DynamicsSettings(picoseconds=0.02, timestep=0.5, every=1)
    found = molecular_dynamics(both, potential, tmp_path, settings)
    water, _ = found.molecules
    assert water.atoms.get_chemical_formula() == "H2O"
    assert [one.table["temperature"].iloc[0] for one in found.molecules] == pytest.approx([300.0, 300.0])
    mean = sum(one.table["total"] for one in found.molecules) / 2
    assert mean.to_numpy() == pytest.approx(found.table["total"].to_numpy(), abs=1e-5)
    assert np.abs(water.atoms.get_momenta().sum(axis=0)).max() < 1e-4
    assert found.broken == water.broken == 0
    alone = molecular_dynamics(both[:3], potential, tmp_path, settings)
    assert alone.molecules == ()
    assert alone.table["total"].std() == pytest.approx(water.table["total"].std(), rel=0.5)


class _Parting(Calculator):
    """Pulls the second atom away."""

    implemented_properties: ClassVar = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions[1, 2]
        self.results = {"energy": -2.0 * x, "forces": np.array([[0, 0, -2.0], [0, 0, 2.0]])}


def test_a_bond_that_breaks_is_counted(tmp_path):
    """Across the border of a cell too."""
    for box in ([0, 0, 0], [9, 9, 1.3]):
        nitrogen = Atoms("N2", positions=[[0, 0, 0.1], [0, 0, 1.2]], cell=box, pbc=any(box))
        settings = DynamicsSettings(picoseconds=0.03, timestep=0.5, every=1)
        found = molecular_dynamics(nitrogen, _Parting(), tmp_path, settings)
        assert found.table["broken"].iloc[0] == 0
        assert found.broken == (2 if any(box) else 1)
    assert found.summary()["broken bonds"] == "2"


def test_strange_molecules_are_refused():
    with pytest.raises(ValueError, match=r"g2 set \(2-butyne .*: got H3O"):
        molecules_at_rest(("H2O", "H3O"), EMT())
    with pytest.raises(ValueError, match="got Li, which is one atom"):
        molecules_at_rest(("Li",), EMT())
