"""SevenNet as computed here, with the crystal's symmetry, against SevenNet as computed by its own package."""

import warnings
from functools import cache

import numpy as np
import pytest
from ase import Atoms
from pymatgen.core import Lattice, Structure

from evaluation.relaxation.operations import Operations, Projection, symmetric_crystal
from evaluation.relaxation.relaxation import RelaxationSettings, relax_together
from evaluation.relaxation.sevennet import SEVENNET, sevennet
from tests.evaluation.crystals import disguised, rocksalt, rutile, wurtzite, zoo

pytest.importorskip("sevenn", reason="sevenn is not installed")


@cache
def original():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sevenn.calculator import SevenNetCalculator  # type: ignore

        return SevenNetCalculator("7net-l3i5", device="cpu")


def predicted(numbers, cart, cell):
    """Energy, forces and strain derivative by the package's calculator."""
    atoms = Atoms(numbers, positions=cart, cell=cell, pbc=True, calculator=original())
    virial = atoms.get_stress(voigt=False) * atoms.get_volume()
    return atoms.get_potential_energy(), atoms.get_forces(), virial


@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("seed", [None, 0])
def test_one_site_of_each_orbit_is_enough(which, seed):
    """Chiral and polar crystals among them; strained, so that there is something to push."""
    crystal = zoo()[which] if seed is None else disguised(zoo()[which], seed)
    cell, numbers = np.array(crystal.lattice.matrix), np.array(crystal.atomic_numbers)
    exact = symmetric_crystal(cell, crystal.frac_coords, numbers, 0.01)
    cell, numbers, operations = 1.02 * exact.cell, exact.numbers, exact.operations
    cart = exact.frac @ cell
    graph = sevennet().graph(cell, cart, numbers, operations)
    assert graph.work < sevennet().graph(cell, cart, numbers, Operations.identity(len(numbers))).work / 3
    found = sevennet()([graph], [cart], [cell])
    energy, forces, virial = predicted(numbers, cart, cell)
    projection = Projection(operations.images, operations.cartesian(cell))
    assert found.energies[0] == pytest.approx(energy, abs=1e-5 * len(numbers))
    assert projection.vectors(found.gradients) == pytest.approx(-projection.vectors(forces), abs=2e-4)
    assert projection.tensor(found.virials[0]) == pytest.approx(
        projection.tensor(virial), abs=2e-4 * len(numbers)
    )


def test_without_symmetry_it_is_the_calculator():
    crystal = wurtzite().perturb(0.1)
    cart, cell = np.array(crystal.cart_coords), np.array(crystal.lattice.matrix)
    numbers = np.array(crystal.atomic_numbers)
    graph = sevennet().graph(cell, cart, numbers, Operations.identity(len(numbers)))
    found = sevennet()([graph], [cart], [cell])
    energy, forces, virial = predicted(numbers, cart, cell)
    assert found.energies[0] == pytest.approx(energy, abs=1e-5 * len(numbers))
    assert found.gradients == pytest.approx(-forces, abs=2e-4)
    assert found.virials[0] == pytest.approx(virial, abs=2e-3)


def test_results_do_not_depend_on_the_company():
    alone, other = rocksalt(a=5.9), rutile()
    settings = RelaxationSettings(max_steps=3, keep_symmetry=True)
    (_, first), *_ = relax_together([("a", alone)], settings, relaxer=SEVENNET)
    beside = dict(relax_together([("b", other), ("a", alone)], settings, relaxer=SEVENNET))
    assert beside["a"].energy_per_atom == first.energy_per_atom
    assert first.energy_per_atom < first.start_energy_per_atom


def test_an_element_it_does_not_know_costs_one_crystal():
    unknown = Structure(Lattice.cubic(4), ["Og"], [[0, 0, 0]])
    lonely = Structure(Lattice.cubic(40), ["Na"], [[0, 0, 0]])
    energies = list(SEVENNET.static_energies([unknown, rocksalt(), lonely]))
    assert np.isnan(energies[0])
    assert np.isfinite(energies[1])
    assert np.isnan(energies[2])
    outcomes = dict(relax_together([("u", unknown)], RelaxationSettings(), relaxer=SEVENNET))
    assert "does not know atomic numbers [118]" in outcomes["u"]


def test_formation_energies_are_those_of_the_materials_project():
    """Within what is stored as its error; an oxide with a Hubbard U and one without."""
    references = SEVENNET.references()
    assert references.provenance["val_mae"] < 0.015
    assert references.with_u["Fe"] != 0
    salt = rocksalt(a=5.6917)
    (energy,) = SEVENNET.static_energies([salt])
    assert references.formation_energy("NaCl", energy) == pytest.approx(-2.1, abs=0.05)
