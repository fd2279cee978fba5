"""Crystals of polymers: measured cells within 5%, bonds of the repeat unit alone, no clashes."""

from dataclasses import replace

import numpy as np
import pytest

from autoperi.polymers.crystal import base_of, fault_of, polymer_crystals
from autoperi.polymers.packing import packings
from autoperi.polymers.parameters import parameters
from autoperi.polymers.relaxed import relaxed
from autoperi.polymers.repeat_unit import RepeatUnit
from autoperi.polymers.winding import chains

pytest.importorskip("rdkit", reason="rdkit is not installed")


def test_orthorhombic_polyethylene_is_among_the_crystals():
    """Within 5% of the measured cell (Bunn 1939); `scripts/checks/polymers.py` has more."""
    found = polymer_crystals("p", "*CC*")
    assert found[0].energy == 0
    assert [c.energy for c in found] == sorted(c.energy for c in found)
    assert len({c.crystal.id for c in found}) == len(found)
    (best,) = (c for c in found if c.crystal.space_group == 62)
    assert (*best.base[:2], best.period) == pytest.approx((7.42, 4.95, 2.55), rel=0.05)
    assert best.density == pytest.approx(0.995, rel=0.05)
    assert best.crystal.provenance["made"] == "built"
    assert best.row()["density"] == pytest.approx(best.crystal.to_structure().density, rel=5e-3)


@pytest.fixture(scope="module")
def polyethylene():
    unit = RepeatUnit.of("*CC*")
    field = parameters(unit)
    packing = packings(chains(unit, field)[0], field, mirrors=True, most=6)[0]
    return relaxed(packing, field), packing, field


def test_a_crystal_at_rest_has_no_fault(polyethylene):
    assert fault_of(*polyethylene) == ""


def test_clashes_voids_broken_and_new_bonds_are_named(polyethylene):
    at_rest, packing, field = polyethylene
    across = np.array([[0.72], [0.72], [1.0]])
    axis = at_rest.positions.mean((1, 2), keepdims=True)
    crowded = replace(at_rest, cell=at_rest.cell * across, positions=at_rest.positions - axis * (1 - 0.72))
    assert "clash" in fault_of(crowded, packing, field)
    longer = replace(at_rest, cell=at_rest.cell * [[1], [1], [1.6]])
    assert "bonded in the repeat unit" in fault_of(longer, packing, field)
    apart = replace(at_rest, cell=at_rest.cell * [[1.5], [1], [1]])
    assert "a unit takes" in fault_of(apart, packing, field)
    merged = replace(at_rest, cell=at_rest.cell * [[0.3], [0.3], [1]])
    assert "are not bonded in the repeat unit" in fault_of(merged, packing, field)


@pytest.mark.parametrize(
    ("cell", "base"),
    [
        ([[7.4, 0, 0.3], [0, 4.9, 0], [0, 0, 2.5]], (7.4, 4.9, 90.0)),
        ([[3.7, 2.45, 0], [-3.7, 2.45, 1.1], [0, 0, 2.5]], (7.4, 4.9, 90.0)),
        ([[0, 4.9, 0], [3.7, 2.45, 0], [0, 0, 2.5]], (7.4, 4.9, 90.0)),
        ([[5.66, 0, 0], [-2.83, 4.9017, 0], [0, 0, 19.5]], (9.8034, 5.66, 90.0)),
        ([[6.0, 0, 0], [8.0, 4.0, 0], [0, 0, 9.0]], (5.6569, 4.4721, 108.43)),
        ([[2.5, 0, 0], [0, 4.0, 0], [0, 3.0, 3.0]], (2.8284, 2.5, 90.0)),
    ],
)
def test_a_base_is_a_rectangle_where_there_is_one(cell, base):
    """Seen along the chain: plain, centred in two settings, hexagonal, oblique, and with a leaning axis."""
    a, b, gamma = base_of(np.array(cell))
    assert sorted((a, b)) == pytest.approx(sorted(base[:2]), abs=1e-3)
    assert gamma == pytest.approx(base[2], abs=0.01)
