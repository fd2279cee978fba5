"""Energies of surfaces: per area, the same of any thickness; close-packed planes cost least."""

import pytest

from autoperi.discovery.surfaces.slabs import SlabSettings
from autoperi.discovery.surfaces.surface_energy import surface_energies
from evaluation.relaxation.chgnet import CHGNET
from tests.autoperi.discovery.surfaces.test_slabs import MAGNESIA
from tests.prototypes import prototype


def test_close_packed_planes_cost_least_and_thickness_nothing():
    copper, planes = prototype("Cu fcc"), [(1, 1, 1), (1, 1, 0)]
    thin, left_out = surface_energies(copper, planes, CHGNET)
    assert left_out == []
    assert [one.miller for one in thin] == planes
    assert all(0 < one.energy <= one.unrelaxed and one.converged and one.symmetric for one in thin)
    thick, _ = surface_energies(copper, planes[:1], CHGNET, SlabSettings(thickness=18.0))
    assert len(thick[0].slab) > len(thin[0].slab)
    assert thick[0].energy == pytest.approx(thin[0].energy, rel=0.05)
    assert thin[0].row()["plane"] == "111"


def test_planes_without_a_slab_are_named():
    found, left_out = surface_energies(MAGNESIA, [(1, 1, 1), (1, 0, 0)], CHGNET)
    assert [one.miller for one in found] == [(1, 0, 0)]
    ((plane, reason),) = left_out
    assert plane == "111"
    assert reason.startswith("termination 0: polar")
