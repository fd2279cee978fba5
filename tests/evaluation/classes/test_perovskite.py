import pytest
from pymatgen.core import Lattice, Structure

from evaluation.classes.perovskite import judge
from tests.evaluation.crystals import diamond, disguised, perovskite, rocksalt


def test_perovskites_are_valid_in_any_cell():
    for structure in (perovskite(), perovskite("Ba", "Ti", 4.0), disguised(perovskite(), 1)):
        verdict = judge(structure)
        assert verdict.valid
        assert verdict.numbers["neutral"] == 1


def swapped():
    """Anion and cation have changed places."""
    structure = perovskite(a=5.0)
    structure[0], structure[2] = "O", "Sr"
    return structure


def scattered():
    sites = [[0, 0, 0], [0.5, 0.5, 0.15], [0.5, 0.5, 0.6], [0.1, 0.4, 0.7], [0.3, 0.0, 0.4]]
    return Structure(Lattice.cubic(6.0), ["Sr", "Ti", "O", "O", "O"], sites)


@pytest.mark.parametrize(
    ("structure", "told"),
    [
        (rocksalt(), "not five"),
        (diamond("C"), "not five"),
        (perovskite(a=2.6), "contact of"),
        (swapped(), "six anions"),
        (scattered(), "six anions"),
    ],
)
def test_what_is_no_perovskite_is_named(structure, told):
    verdict = judge(structure)
    assert not verdict.valid
    assert told in verdict.fault
