"""Crystals at rest: all pairs found, energies of a cell and of a larger one of the same crystal alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.neighborlist import primitive_neighbor_list

from autoperi.polymers.packing import packings
from autoperi.polymers.parameters import parameters
from autoperi.polymers.relaxed import _Crystal, near_pairs, relaxed
from autoperi.polymers.repeat_unit import RepeatUnit
from autoperi.polymers.winding import chains

pytest.importorskip("rdkit", reason="rdkit is not installed")


@pytest.fixture(scope="module")
def packed():
    unit = RepeatUnit.of("*CC(F)(F)*")
    field = parameters(unit)
    chain = chains(unit, field)[-1]
    found = packings(chain, field, mirrors=True, most=6)
    return next(p for p in found if p.arrangement == "screw across the chain"), field


def test_pairs_are_those_of_ase():
    random = np.random.default_rng(0)
    cell = np.array([[4.0, 0, 0.7], [1.5, 3.0, 0], [0, 0.4, 2.6]])
    x = random.uniform(-6, 6, (5, 3))
    first, second, image = near_pairs(cell, x, 5.0)
    i, d = primitive_neighbor_list("id", [True] * 3, cell, x, 5.0, self_interaction=False)
    own = np.linalg.norm(x[second] + image @ cell - x[first], axis=1)
    assert np.sort(np.concatenate([own, own])) == pytest.approx(np.sort(d))
    assert len(i) == 2 * len(first)


def test_a_doubled_cell_has_the_same_energy_a_unit(packed):
    """Along the chain, whose second one runs the other way, and across."""
    packing, field = packed
    once = _Crystal(packing.cell, packing.positions, packing.directions, field)
    start = torch.zeros(6 + packing.positions.size, dtype=torch.float64)
    cell, x = packing.cell, packing.positions
    steps = np.array(packing.directions)[:, None, None, None] * cell[2]
    longer = np.concatenate([x, x + steps], axis=1)
    twice = _Crystal(cell * [[1], [1], [2]], longer, packing.directions, field)
    wider = _Crystal(cell * [[2], [1], [1]], np.concatenate([x, x + cell[0]]), packing.directions * 2, field)
    for other in (twice, wider):
        begun = torch.zeros(6 + 2 * x.size, dtype=torch.float64)
        assert float(other.energy(begun)) == pytest.approx(float(once.energy(start)), abs=1e-9)


def test_relaxation_goes_down_to_rest(packed):
    packing, field = packed
    begun = _Crystal(packing.cell, packing.positions, packing.directions, field)
    before = float(begun.energy(torch.zeros(6 + packing.positions.size, dtype=torch.float64)))
    at_rest = relaxed(packing, field)
    assert at_rest.energy < before
    again = relaxed(replace(packing, cell=at_rest.cell, positions=at_rest.positions), field)
    assert again.energy == pytest.approx(at_rest.energy, abs=0.01)
    assert again.cell == pytest.approx(at_rest.cell, abs=0.05)
