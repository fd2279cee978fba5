"""Distance least squares: derivatives, and wishes that can be met are met."""

from dataclasses import replace

import numpy as np
import pytest

from autoperi.crystals.symmetry import symmetrise
from autoperi.frameworks.distances import Wishes, _Space, contacts, fitted
from tests.evaluation.classes.test_zeolite import sodalite
from tests.evaluation.crystals import rutile, wurtzite


@pytest.fixture(params=[rutile, wurtzite, sodalite])
def crystal(request):
    return symmetrise(request.param())


def wishes_of(crystal, cutoff, stretch=1.0):
    near = contacts(crystal, cutoff)
    n = len(near.site)
    return Wishes(near.centre, near.atom, near.shift, stretch * near.distance, np.ones(n), np.full(n, False))


def test_contacts_are_those_of_the_structure(crystal):
    structure = crystal.to_structure()
    near = contacts(crystal, 3.0)
    for site, atom in enumerate(near.centre[np.unique(near.site, return_index=True)[1]]):
        own = sorted(n.nn_distance for n in structure.get_neighbors(structure[int(atom)], 3.0))
        assert near.distance[near.site == site] == pytest.approx(own)


def test_misfits_are_zero_where_wishes_are_what_is_there(crystal):
    space = _Space(crystal)
    misfits, _ = space.misfits(space.start, wishes_of(crystal, 3.0))
    assert misfits == pytest.approx(0, abs=1e-9)


def test_derivatives_are_those_by_differences(crystal):
    space = _Space(crystal)
    rng = np.random.default_rng(0)
    p, wanted = space.start + rng.normal(0, 0.01, len(space.start)), wishes_of(crystal, 3.0, 1.1)
    _, slope = space.misfits(p, wanted)
    for k in range(len(p)):
        step = np.zeros(len(p))
        step[k] = 1e-5
        by_differences = (space.misfits(p + step, wanted)[0] - space.misfits(p - step, wanted)[0]) / 2e-5
        assert slope[:, k] == pytest.approx(by_differences, abs=1e-4)


def test_a_strained_crystal_finds_its_distances_again(crystal):
    wanted = wishes_of(crystal, 3.0)
    rng = np.random.default_rng(1)
    moved = crystal.lattice_coords.copy()
    moved[5] += 0.03
    free = np.where(crystal.free == 0, 0.0, crystal.free + rng.normal(0, 0.01, crystal.free.shape))
    found, misfit = fitted(replace(crystal, free=free, lattice_coords=moved), wanted, rounds=1, steps=60)
    assert misfit < 1e-4
    assert found.gene == crystal.gene
    volume = abs(np.linalg.det(found.expand()[0])) / abs(np.linalg.det(crystal.expand()[0]))
    assert volume == pytest.approx(1, abs=1e-3)


def test_more_than_the_least_distance_is_as_good(crystal):
    wanted = replace(wishes_of(crystal, 3.0, 0.8), least=np.full(len(contacts(crystal, 3.0).site), True))
    misfits, slope = _Space(crystal).misfits(_Space(crystal).start, wanted)
    assert not misfits.any()
    assert not slope.any()
