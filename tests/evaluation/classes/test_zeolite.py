import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from evaluation.classes import zeolite
from evaluation.classes.zeolite import angle_rings, coordination_sequence, judge
from tests.evaluation.crystals import disguised, rocksalt

EIGHTH = 1 / 8


def sodalite(a=8.83, x=0.1485):
    return Structure.from_spacegroup("Im-3m", Lattice.cubic(a), ["Si", "O"], [[0.25, 0.5, 0], [x, x, 0.5]])


def cristobalite(a=7.13):
    sites = [[0, 0, 0], [EIGHTH] * 3]
    return Structure.from_spacegroup("Fd-3m", Lattice.cubic(a), ["Si", "O"], sites)


def net_of(structure):
    """The net, as ``judge`` sees it."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zeolite, "_type", lambda net, rings: found.append((net, rings)) or "x")
        judge(structure)
    return found[0]


def test_sodalite_has_its_published_sequence_and_rings():
    """Of the IZA database: SOD, vertex symbol 4.4.6.6.6.6."""
    net, rings = net_of(sodalite())
    assert coordination_sequence(net, 0) == (4, 10, 20, 34, 52, 74, 100, 130, 164, 202)
    assert set(rings) == {(4, 4, 6, 6, 6, 6)}


def test_cristobalite_is_the_net_of_diamond():
    net, rings = net_of(cristobalite())
    assert coordination_sequence(net, 0)[:5] == (4, 12, 24, 42, 64)
    assert angle_rings(net, 0) == rings[0] == (6,) * 6


def test_verdict_of_a_framework():
    verdict = judge(sodalite())
    assert verdict.valid
    assert verdict.numbers["framework_density"] == pytest.approx(12 / 0.688466, rel=1e-3)
    assert verdict.numbers["smallest_ring"] == 4


def test_type_is_that_of_every_description_and_of_no_other_framework():
    own = judge(sodalite())
    turned = judge(disguised(sodalite(), 3))
    supercell = sodalite()
    supercell.make_supercell([[1, 0, 0], [0, 1, 0], [0, 1, 2]])
    assert own.identity == turned.identity == judge(supercell).identity
    assert own.identity != judge(cristobalite()).identity


def without_an_oxygen():
    structure = sodalite()
    structure.remove_sites([structure.species.index(structure[-1].specie)])
    return structure


def displaced():
    structure = sodalite()
    structure.translate_sites([0], [0.08, 0, 0])
    return structure


def slab():
    """The framework with a vacuum: bonds are cut, oxygens hang."""
    structure = sodalite()
    cell = structure.lattice.matrix.copy()
    cell[2] *= 2
    return Structure(Lattice(cell), structure.species, structure.cart_coords, coords_are_cartesian=True)


@pytest.mark.parametrize(
    ("structure", "told"),
    [
        (rocksalt(), "formula is not TO2"),
        (without_an_oxygen(), "formula is not TO2"),
        (displaced(), "a bond below 1.45"),
        (slab(), "not every T site"),
        (sodalite(a=7.6), "below 1.45"),
        (cristobalite(a=6.9), "framework density"),
        (sodalite() * [4, 4, 4], "too many"),
    ],
)
def test_what_is_no_framework_is_named(structure, told):
    verdict = judge(structure)
    assert not verdict.valid
    assert told in verdict.fault
    assert verdict.identity == ""


def test_two_frameworks_in_one_cell_are_no_framework():
    """Interpenetrating nets are connected within themselves alone."""
    one = cristobalite(a=8.4)
    moved = one.copy()
    moved.translate_sites(range(len(moved)), [0.5, 0.0, 0.0])
    both = Structure.from_sites([*one, *moved])
    assert np.isclose(both.volume, one.volume)
    assert not judge(both).valid
