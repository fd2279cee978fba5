"""Symmetrise: the same crystal, however it is written down, and the message for each bad input."""

import logging
import time
import warnings

import numpy as np
import pytest
import spglib
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from autoperi.crystals.symmetry import SymmetriseConfig, SymmetriseError, searchable, symmetrise
from tests.prototypes import PROTOTYPES, random_crystal

MATCHER = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)
TIGHT = SymmetriseConfig(symprec=0.01)
crystals = st.tuples(st.integers(1, 230), st.integers(0, 10**6)).map(lambda x: random_crystal(*x))
rngs = st.integers(0, 2**31).map(np.random.default_rng)
few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def _rotation(rng):
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def _fingerprint(crystal):
    """What may not depend on the description: group, species, volume, all short distances."""
    structure = crystal.to_structure()
    first, _, _, distances = structure.get_neighbor_list(4.0)
    return (
        crystal.space_group,
        sorted(structure.atomic_numbers),
        structure.volume,
        np.sort(distances) if len(first) else distances,
    )


def _assert_same(a, b):
    fa, fb = _fingerprint(a), _fingerprint(b)
    assert fa[:2] == fb[:2]
    assert fa[2] == pytest.approx(fb[2], rel=1e-4)
    keep = min(len(fa[3]), len(fb[3])) * 9 // 10  # the cutoff may cut a shell
    np.testing.assert_allclose(fa[3][:keep], fb[3][:keep], atol=2e-3)


@pytest.mark.parametrize("name", PROTOTYPES)
def test_prototypes(name, prototypes):
    """Group, atoms and structure of well-known crystals survive the round trip."""
    crystal = symmetrise(prototypes[name])
    rebuilt = crystal.to_structure()
    assert crystal.space_group == PROTOTYPES[name][0]
    assert MATCHER.fit(prototypes[name], rebuilt)
    found = spglib.get_symmetry_dataset(
        (rebuilt.lattice.matrix, rebuilt.frac_coords, rebuilt.atomic_numbers), symprec=0.01
    )
    assert found is not None
    assert found.number == crystal.space_group


@few
@given(crystals)
def test_round_trip_is_the_identity(crystal):
    """symmetrise(rebuild(crystal)) is the crystal: group, sites per letter set, and geometry."""
    again = symmetrise(crystal.to_structure(), TIGHT)
    assert again.n_sites == crystal.n_sites
    _assert_same(crystal, again)


@few
@given(crystals, rngs)
def test_rotation_origin_and_order_do_not_matter(crystal, rng):
    structure = crystal.to_structure()
    order = rng.permutation(len(structure))
    moved = Structure(
        Lattice(structure.lattice.matrix @ _rotation(rng)),
        [structure[i].specie for i in order],
        (structure.frac_coords + rng.random(3))[order],
    )
    _assert_same(crystal, symmetrise(moved, TIGHT))


@few
@given(crystals, rngs)
def test_choice_of_cell_does_not_matter(crystal, rng):
    """A unimodular change of the cell vectors, and a supercell."""
    structure = crystal.to_structure()
    change = np.eye(3, dtype=int)
    for _ in range(3):
        i, j = rng.choice(3, 2, replace=False)
        change[i] += rng.choice([-1, 1]) * change[j]
    lattice = change @ structure.lattice.matrix
    skewed = Structure(Lattice(lattice), structure.species, structure.frac_coords @ np.linalg.inv(change))
    _assert_same(crystal, symmetrise(skewed, TIGHT))
    if len(structure) < 60:
        doubled = structure.copy()
        doubled.make_supercell(rng.permutation([2, 1, 1]))
        _assert_same(crystal, symmetrise(doubled, TIGHT))


@few
@given(crystals, rngs)
def test_small_noise_is_removed(crystal, rng):
    structure = crystal.to_structure()
    noise = 0.003 * rng.normal(size=(len(structure), 3)) @ np.linalg.inv(structure.lattice.matrix)
    noisy = Structure(structure.lattice, structure.species, structure.frac_coords + noise)
    again = symmetrise(noisy)
    assert MATCHER.fit(structure, again.to_structure(), symmetric=False) or len(structure) > 60
    assert again.space_group >= 1


def test_no_symmetry_is_space_group_one():
    rng = np.random.default_rng(3)
    structure = Structure(
        Lattice.from_parameters(6, 7, 8, 81, 93, 104), ["Si", "O", "Na", "O"], rng.random((4, 3))
    )
    crystal = symmetrise(structure)
    assert crystal.space_group == 1
    assert crystal.n_sites == 4


def test_tolerance_really_used_is_told():
    crystal = symmetrise(Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]]))
    assert crystal.provenance["symprec"] == 0.1


NACL = Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (Structure(Lattice.cubic(4), [], []), "structure with atoms: got none"),
        (Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]]), "fully occupied sites"),
        (Structure(Lattice.cubic(4), ["X0+"], [[0, 0, 0]]), "elements with Z from 1 to 100"),
        (Structure(Lattice.cubic(4), ["Lr"], [[0, 0, 0]]), "elements with Z from 1 to 100"),
        (Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.01, 0, 0]]), "0.4 Å apart"),
        (Structure(Lattice([[1, 0, 0], [0, 1, 0], [1, 1, 1e-4]]), ["Na"], [[0, 0, 0]]), "at least 0.1 Å³"),
        (Structure(Lattice.cubic(4), ["Na"], [[np.nan, 0, 0]]), "finite coordinates"),
    ],
)
def test_bad_input_is_explained(structure, message):
    with pytest.raises(SymmetriseError, match=message):
        symmetrise(structure)


def test_atom_on_its_own_image_is_an_overlap():
    thin = Structure(Lattice.from_parameters(0.3, 9, 9, 90, 90, 90), ["Na"], [[0, 0, 0]])
    with pytest.raises(SymmetriseError, match="apart"):
        symmetrise(thin)


NEEDLE = Structure(Lattice([[0.3, -1.351, -1.1], [60, 0, 0], [0.6786, 1.5792, 0]]), ["Ga"], [[0.1, 0.2, 0.3]])


def test_a_needle_is_searched_where_the_search_ends():
    """In a reduced cell of 1.5 x 1.7 x 44 Å moyo never ends at 0.1 Å, and does at less."""
    crystal = symmetrise(NEEDLE)
    assert float(crystal.provenance["symprec"]) < 0.1
    assert MATCHER.fit(crystal.to_structure(), NEEDLE)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [((2.5, 2.5, 80), True), ((3.0, 3.0, 120), True), ((1.5, 1.7, 44), False), ((1.1, 5, 5), False)],
)
def test_which_cells_are_searched(lengths, expected):
    """Slabs with much vacuum are; needles and cells as narrow as the tolerance are not, however skewed."""
    cell = np.diag(lengths).astype(float)
    assert searchable(cell, 0.1) is expected
    assert searchable(np.array([[1, 0, 0], [5, 1, 0], [-3, 2, 1]]) @ cell, 0.1) is expected


def test_supercells_do_not_warn(caplog, capfd):
    """moyo warns about every supercell through logging: that one message is dropped, at its logger."""
    doubled = NACL.copy()
    doubled.make_supercell([1, 2, 3])
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        symmetrise(doubled)
    assert "Omitted" not in caplog.text + "".join(capfd.readouterr())


def test_large_cells_take_linear_time():
    """A cell of 1,000 atoms without symmetry, as of frameworks and surfaces."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(10)] * 3), -1).reshape(-1, 3) / 10
    structure = Structure(
        Lattice.cubic(25), rng.choice(["Si", "O", "C"], 1000).tolist(), grid + 0.02 * rng.random((1000, 3))
    )
    start = time.perf_counter()
    crystal = symmetrise(structure)
    assert crystal.n_atoms == 1000
    assert time.perf_counter() - start < 20
