"""CIF: other programs read the declared group and the same crystal."""

import warnings

import numpy as np
import pytest
import spglib
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from scipy.spatial import cKDTree

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.symmetry import symmetrise
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.data.cif import write_cif, write_cifs
from tests.prototypes import random_crystal


def _read(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Structure.from_str(text, fmt="cif")


def _conventional_points(crystal):
    """All atoms of the conventional cell (fractional) from the primitive one, by its lattice translations."""
    cell = wyckoff_table().primitive[crystal.space_group].numpy()
    _, frac, species = crystal.expand()
    grid = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3), -1).reshape(-1, 3)
    points = ((frac[:, None] + grid) @ cell.T % 1.0).reshape(-1, 3)
    return points % 1.0, np.repeat(species, len(grid))


@pytest.mark.parametrize("group", range(1, 231))
def test_every_group_is_read_back(group):
    """spglib finds the declared group; every atom that pymatgen reads is one of ours, and none is missing."""
    crystal = random_crystal(group, 0)
    structure = _read(write_cif(crystal))
    found = spglib.get_symmetry_dataset(
        (structure.lattice.matrix, structure.frac_coords, structure.atomic_numbers), symprec=0.01
    )
    assert found is not None
    assert found.number == group
    ratio = structure.volume / abs(np.linalg.det(crystal.expand()[0]))
    assert len(structure) == round(ratio) * crystal.n_atoms
    points, species = _conventional_points(crystal)
    tree = cKDTree((points + 1e-7) % 1.0, boxsize=1.0)
    distance, nearest = tree.query((structure.frac_coords + 1e-7) % 1.0 % 1.0)
    assert distance.max() < 1e-5
    np.testing.assert_array_equal(species[nearest], structure.atomic_numbers)


@pytest.mark.parametrize("group", [5, 36, 70, 98, 146, 155, 182, 197, 205, 216])
def test_same_structure_for_pymatgen(group):
    crystal = random_crystal(group, 1)
    matcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)
    assert matcher.fit(_read(write_cif(crystal)), crystal.to_structure())


def test_text_names_group_sites_and_letters(prototypes):
    text = write_cif(symmetrise(prototypes["Si diamond"]))
    assert "_space_group_IT_number   227" in text
    assert "'F d -3 m:2'" in text
    assert text.count("'") == 2 * (192 + 3)
    assert "  Si  Si1  8  a  0.1250000000  0.1250000000  0.1250000000  1" in text


def test_many_equal_one_by_one():
    crystals = [random_crystal(group, 2) for group in (1, 62, 167, 227)]
    assert write_cifs(crystals) == [write_cif(c) for c in crystals]


def test_unknown_species_are_refused():
    crystal = Crystal(1, np.array([0]), np.array([0]), np.zeros((1, 3)), np.zeros(6), id="x")
    with pytest.raises(ValueError, match="unknown ones in 'x'"):
        write_cif(crystal)
