import numpy as np
import pytest
import torch

from autoperi.crystals.crystal import CrystalBatch
from autoperi.flow.noise import seeded_noise
from autoperi.flow.settings import FlowSettings, Restart, Solver
from autoperi.flow.starts import Begin
from autoperi.flow.steering import Held, Hold
from autoperi.flow.velocity import LATENT_MANIFOLD
from tests.autoperi.small import SOME_GROUPS, largest, small_crystal, tiny_model

QUICK = FlowSettings(Solver(steps=3), Restart(2, 0.5, steps=2), corrections=1)
GENES = [small_crystal(g, 1) for g in SOME_GROUPS]


def held(crystal, cell=True) -> Held:
    """Every other site."""
    return Held(np.arange(crystal.n_sites) % 2 == 0, cell)


@pytest.mark.parametrize("time", [0.0, 0.8])
def test_what_is_held_is_there_in_the_end_and_the_rest_is_drawn(time):
    """In all families, from noise and from the geometry itself, through restarts and corrections."""
    model = tiny_model()
    drawn = model.draw(GENES, 0, settings=QUICK, begins=[Begin(time, held=held(g)) for g in GENES])
    free = model.draw(GENES, 0, settings=QUICK, begins=[Begin(time)] * len(GENES))
    moved = 0.0
    for gene, one, other in zip(GENES, drawn, free, strict=True):
        stays = held(gene).sites
        away = one.free - gene.free
        assert np.abs((away - away.round())[stays]).max(initial=0) < 1e-9
        assert np.abs(one.lattice_coords - gene.lattice_coords).max() < 1e-9
        moved = max(moved, np.abs(away[~stays]).max(initial=0))
        assert np.abs(other.lattice_coords - gene.lattice_coords).max() > 1e-3
    assert moved > 0.05


def test_crystals_that_hold_nothing_do_not_notice_those_that_do():
    """In one batch."""
    model = tiny_model()
    begins = [
        Begin(held=Held(np.zeros(g.n_sites, bool), True)) if k % 2 else Begin() for k, g in enumerate(GENES)
    ]
    mixed = model.draw(GENES, 0, settings=QUICK, begins=begins)
    alone = model.draw(GENES, 0, settings=QUICK)
    for k, (one, other) in enumerate(zip(mixed, alone, strict=True)):
        same = np.abs(one.free - other.free).max() < 1e-9
        assert same or k % 2
    assert Hold.of([None, None], CrystalBatch.from_crystals(GENES[:2]), ()) is None


def test_on_the_way_what_is_held_is_as_far_from_noise_as_the_time_says():
    """At time t it lies at the share t of the shortest way, whatever the velocity would do."""
    batch = CrystalBatch.from_crystals(GENES)
    noise = seeded_noise(batch, [(0, k) for k in range(len(GENES))], 3)
    place = (torch.zeros_like(noise[0]), batch.free, noise[2] + 1)
    hold = Hold.of([held(g) for g in GENES], batch, place)
    assert hold is not None
    assert hold.origin
    wild = hold.field(lambda _, point: tuple(x + 7 for x in point), noise, 0.0)
    step = tuple(0.3 * v for v in wild(torch.tensor(0.0), noise))
    here = LATENT_MANIFOLD.exp(noise, step)
    noised = hold.noised(place, batch, noise, 0.3)
    for mask, one, other in zip(hold.mask, here, noised, strict=True):
        gap = (one - other)[mask]
        assert largest((gap - gap.round()) if gap.numel() else torch.zeros(1)) < 1e-12
    assert not bool(hold.mask[0].any())
