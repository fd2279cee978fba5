import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from evaluation.relaxation.chgnet import CHGNET
from evaluation.stability.phonons import PhononSettings, Spectrum, least_frequency, repeats, spectrum
from tests.prototypes import prototype


def test_supercells_reach_as_far_as_asked_or_as_atoms_allow():
    cell = Structure(
        Lattice.from_parameters(3, 5, 12, 90, 90, 60), ["Si", "Si"], [[0, 0, 0], [0.3, 0.3, 0.3]]
    )
    times = repeats(cell, PhononSettings(extent=9.0))
    normals = np.linalg.inv(cell.lattice.matrix).T
    assert (times / np.linalg.norm(normals, axis=1)).min() >= 9.0
    assert times[2] == 1
    assert repeats(cell, PhononSettings(most_atoms=4)).prod() * len(cell) <= 4


def test_a_stable_crystal_has_no_imaginary_phonon_and_a_stretched_one_has():
    """Silicon at its equilibrium; blown up beyond what its bonds can hold."""
    pytest.importorskip("phonopy", reason="phonopy is not installed")
    silicon = prototype("Si diamond").get_primitive_structure()
    settings = PhononSettings()
    assert settings.stable(least_frequency(silicon, CHGNET, settings))
    silicon.scale_lattice(1.5 * silicon.volume)
    found = spectrum(silicon, CHGNET, settings)
    assert not settings.stable(found.decisive)
    assert not settings.stable(found.interpolated)
    assert "imaginary below -0.1 THz" in str(settings)


def test_elements_beyond_uranium_have_masses():
    """Phonopy's own table has none."""
    pytest.importorskip("phonopy", reason="phonopy is not installed")
    cell = Structure(Lattice.cubic(2.95), ["Pu", "N"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert np.isfinite(least_frequency(cell, CHGNET, PhononSettings(extent=4.0)))


def test_the_free_energy_is_that_of_harmonic_oscillators():
    """Against ASE's of the same quanta; what is imaginary counts as real, what vanishes adds nothing."""
    from ase.thermochemistry import HarmonicThermo
    from ase.units import _e, _hplanck

    frequencies = np.array([[2.0, 5.0, 11.0], [3.0, 4.0, -1.0], [1e-5, 7.0, 8.0]])
    weights, temperatures = np.array([0.25, 0.5, 0.25]), np.array([0.0, 300.0, 1200.0])
    found = Spectrum(frequencies, weights, 0.0)
    assert found.interpolated == -1.0
    expected = np.zeros(3)
    for row, weight in zip(frequencies, weights, strict=True):
        quanta = HarmonicThermo(1e12 * _hplanck / _e * np.abs(row)[np.abs(row) > 0.01])
        zero = quanta.get_ZPE_correction()
        parts = [zero] + [quanta.get_helmholtz_energy(t, verbose=False) for t in temperatures[1:]]
        expected += weight * np.array(parts)
    assert found.free_energy(temperatures) == pytest.approx(expected, abs=1e-9)
