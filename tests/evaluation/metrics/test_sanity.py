import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from evaluation.metrics.sanity import cif_round_trip, cif_round_trips, density_sane
from tests.evaluation.crystals import disguised, rocksalt, zoo


@pytest.mark.parametrize("crystal", zoo())
def test_real_crystals_pass(crystal):
    assert density_sane(crystal)
    assert cif_round_trip(crystal)
    assert cif_round_trip(disguised(crystal, 2))


def test_smoke_and_neutron_stars_are_no_solids():
    assert not density_sane(Structure(Lattice.cubic(30), ["H"], [[0, 0, 0]]))
    assert not density_sane(rocksalt(a=2.0))
    assert not density_sane(Structure(Lattice.cubic(1.2), ["H"], [[0, 0, 0]]))
    assert not density_sane(Structure(Lattice.cubic(np.nan), ["H"], [[0, 0, 0]]))


def test_sites_on_top_of_each_other_do_not_survive_a_cif():
    doubled = Structure(Lattice.cubic(5), ["Na", "Na"], [[0, 0, 0], [0, 0, 0]])
    assert cif_round_trips([doubled, rocksalt()]) == [False, True]
