import pytest
from pymatgen.core import Lattice, Structure

from evaluation.classes.carbon import judge
from tests.evaluation.crystals import diamond, rocksalt


def graphite():
    sites = [[0, 0, 0.25], [0, 0, 0.75], [1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    return Structure(Lattice.hexagonal(2.46, 6.7), ["C"] * 4, sites)


def test_diamond_and_graphite():
    assert judge(diamond("C", 3.567)).numbers["coordination"] == 4
    assert judge(graphite()).numbers["coordination"] == 3
    assert judge(diamond("C", 3.567)).valid
    assert judge(graphite()).valid


@pytest.mark.parametrize(
    ("structure", "told"),
    [
        (rocksalt(), "carbon alone"),
        (diamond("C", 2.6), "bond of"),
        (diamond("C", 4.6), "0 bonds"),
        (Structure(Lattice.cubic(1.6), ["C"], [[0, 0, 0]]), "6 bonds"),
        (diamond("C", 3.567) * [6, 6, 6], "too many"),
    ],
)
def test_what_is_no_carbon_is_named(structure, told):
    verdict = judge(structure)
    assert not verdict.valid
    assert told in verdict.fault
