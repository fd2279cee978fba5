"""Packings: energies are those of all pairs of two chains, one chain comes from the other as it should."""

import numpy as np
import pytest
import torch

from autoperi.polymers.conformations import Chain
from autoperi.polymers.force_field import far_energies
from autoperi.polymers.packing import ARRANGEMENTS, packings
from autoperi.polymers.parameters import parameters
from autoperi.polymers.relaxed import near_pairs
from autoperi.polymers.repeat_unit import RepeatUnit
from autoperi.polymers.winding import chains

pytest.importorskip("rdkit", reason="rdkit is not installed")

REACH = 7.0


@pytest.fixture(scope="module")
def polyethylene():
    unit = RepeatUnit.of("*CC*")
    field = parameters(unit)
    return chains(unit, field)[0], field


def test_energies_are_those_of_all_pairs_of_two_chains(polyethylene):
    chain, field = polyethylene
    found = packings(chain, field, mirrors=True, most=len(ARRANGEMENTS))
    assert {packing.arrangement for packing in found} == {a.name for a in ARRANGEMENTS}
    for packing in found:
        count, units, atoms, _ = packing.positions.shape
        x = packing.positions.reshape(-1, 3)
        first, second, image = near_pairs(packing.cell, x, REACH)
        place = np.indices((count, units, atoms)).reshape(3, -1)
        two = (place[0, first] != place[0, second]) | (image[:, :2] != 0).any(1)
        first, second, image = first[two], second[two], image[two]
        a, b = place[2, first], place[2, second]
        d = np.linalg.norm(x[second] + image @ packing.cell - x[first], axis=1)
        values = d, field.far_radius[a, b], field.far_depth[a, b], field.charges[a] * field.charges[b]
        total = far_energies(*map(torch.from_numpy, values), REACH).sum() / (count * units)
        assert packing.energy == pytest.approx(float(total), abs=2e-3), packing.arrangement


def test_mirror_images_stay_away_from_chiral_chains(polyethylene):
    chain, field = polyethylene
    found = packings(chain, field, mirrors=False, most=9)
    assert {p.arrangement for p in found} == {"one chain", "screw along the chain", "screw across the chain"}


def test_long_chains_stand_alone(polyethylene):
    """A cell with two would have more than 120 atoms."""
    chain, field = polyethylene
    long = Chain(chain.unit, chain.rise, chain.turn, chain.glide, 22)
    assert {p.arrangement for p in packings(long, field, mirrors=True, most=9)} == {"one chain"}


def test_the_second_chain_comes_from_the_first_by_the_operation(polyethylene):
    for packing in packings(*polyethylene, mirrors=True, most=9):
        if packing.arrangement == "glide along the chain":
            first, second = packing.positions
            away = second - first * [-1, 1, 1]
            assert away == pytest.approx(np.broadcast_to(away[0, 0], away.shape))
            assert packing.directions == (1, 1)
            return
    pytest.fail("no packing by a glide")
