"""Chains of least strain: periods that are measured, helices that repeat, one that is known."""

import numpy as np
import pytest

from autoperi.polymers.parameters import parameters
from autoperi.polymers.repeat_unit import PolymerError, RepeatUnit
from autoperi.polymers.winding import chains

pytest.importorskip("rdkit", reason="rdkit is not installed")


def wound(smiles, helix=""):
    unit = RepeatUnit.of(smiles)
    return chains(unit, parameters(unit), helix)


@pytest.mark.parametrize(
    ("smiles", "name", "period"),
    [("*CC*", "2/1", 2.55), ("*CC(C)*", "3/1", 6.50)],
)
def test_chains_have_their_measured_period(smiles, name, period):
    """A planar zigzag, and the helix of isotactic polypropylene: within 3%."""
    lowest = wound(smiles)[0]
    assert lowest.name == name
    assert lowest.period == pytest.approx(period, rel=0.03)


def test_the_planar_zigzag_stands_beside_the_lowest():
    """Poly(vinylidene fluoride): form I is planar, though a chain alone would wind."""
    lowest, longest = wound("*CC(F)(F)*")
    assert longest.name == "1/1"
    assert longest.period == pytest.approx(2.56, rel=0.02)
    assert longest.energy > lowest.energy


def test_a_known_helix_is_kept():
    """Polytetrafluoroethylene, form IV: 19.5 Å."""
    (chain,) = wound("*C(F)(F)*", "15/7")
    assert chain.name == "15/7"
    assert abs(np.degrees(chain.turn)) == pytest.approx(168)
    assert chain.period == pytest.approx(19.5, rel=0.02)


@pytest.mark.parametrize("helix", ["15", "7/15", "x/2", "3/0"])
def test_what_is_no_helix_is_refused(helix):
    with pytest.raises(PolymerError, match="units and turns of a helix"):
        wound("*CC*", helix)


def test_a_helix_that_no_conformation_has_is_refused():
    with pytest.raises(PolymerError, match="as 40/1: got none of"):
        wound("*CC*", "40/1")
