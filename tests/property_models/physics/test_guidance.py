from dataclasses import replace

import numpy as np
import pytest
import torch
from moyopy import Cell, MoyoDataset

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.flow.sampler import FlowModel
from autoperi.flow.settings import FlowSettings, Restart, Solver
from autoperi.networks.physics import PhysicsWeights
from property_models.physics.contacts import barrier_loss, contact_ratio
from property_models.physics.guidance import Guidance, soft_species
from property_models.physics.losses import PhysicsLoss
from property_models.potentials.chgnet_potential import CHGNetPotential
from property_models.potentials.potential import element_weights
from tests.autoperi.small import largest, small_crystal, tiny_model

GROUPS = (2, 15, 62, 88, 148, 160, 194, 198)
QUICK = FlowSettings(Solver("euler", steps=12), Restart(rounds=0), corrections=0)


@pytest.fixture(scope="module")
def model() -> FlowModel:
    """Knows nothing, and believes in crystals with a third of the usual volume: too little room."""
    model = tiny_model(torch.float64)
    for scale in (model.velocity.scale, model.autoencoder.decoder.scale):
        scale.mean[:, 5] -= np.log(3) / 3
    return model


@pytest.fixture(scope="module")
def genes() -> list[Crystal]:
    return [small_crystal(g, 0, sites=2, max_atoms=8) for g in GROUPS]


def contacts(crystals: list[Crystal]) -> torch.Tensor:
    batch = CrystalBatch.from_crystals(crystals)
    return contact_ratio(batch, element_weights(batch))


def group(crystal: Crystal) -> int:
    lattice, frac, species = crystal.expand()
    return MoyoDataset(Cell(lattice.tolist(), frac.tolist(), species.tolist()), symprec=1e-4).number


def test_the_barrier_moves_atoms_apart_and_keeps_the_group(model, genes):
    """Of crowded crystals the smallest contact rises, and their groups stay to 1e-4 Å."""
    free = model.draw(genes, seed=0, settings=QUICK)
    guide = Guidance(barrier_loss, model, strength=2.0, start=0.0)
    guided = model.draw(genes, seed=0, settings=QUICK, guide=guide)
    before, after = contacts(free), contacts(guided)
    assert float(before.mean()) < 0.5
    assert float(after.mean()) > float(before.mean()) + 0.1
    assert bool((after >= before).all())  # one without overlap is left as it is
    assert [group(c) for c in guided] == [group(c) for c in free]
    for a, b in zip(free, guided, strict=True):
        assert a.gene == b.gene
        assert np.array_equal(a.free == 0, b.free == 0)


def test_crystals_settle_after_the_corrections(model, genes):
    """What the decoder has undone the guide does again: contacts rise, step by step, groups stay."""
    corrected = replace(QUICK, corrections=3)
    guide = Guidance(barrier_loss, model, strength=2.0)
    ratios = [
        float(contacts(model.draw(genes, 0, settings=replace(corrected, settling=k), guide=guide)).mean())
        for k in (0, 5, 20)
    ]
    assert ratios[0] < ratios[1] < ratios[2]
    settled = model.draw(genes, seed=0, settings=corrected, guide=guide)
    assert [group(c) for c in settled] == [group(c) for c in model.draw(genes, seed=0, settings=corrected)]


def test_no_strength_is_no_guidance(model, genes):
    """Bit for bit, with known and with unknown species; a strength changes something."""
    blank = [replace(c, species=np.zeros_like(c.species)) for c in genes]
    for crystals in (genes, blank):
        plain = model.draw(crystals, seed=1, settings=QUICK)
        for strength, same in ((0.0, True), (1.0, False)):
            drawn = model.draw(
                crystals, seed=1, settings=QUICK, guide=Guidance(barrier_loss, model, strength)
            )
            pairs = list(zip(plain, drawn, strict=True))
            assert same == all(
                np.array_equal(a.free, b.free)
                and np.array_equal(a.lattice_coords, b.lattice_coords)
                and np.array_equal(a.species, b.species)
                for a, b in pairs
            )


def test_a_guide_cannot_leave_the_free_directions(model, genes):
    """Whatever a guide answers, coordinates that symmetry fixes stay fixed."""

    def storm(_, point, __):
        return tuple(torch.ones_like(x) for x in point)

    drawn = model.draw(genes, seed=0, settings=QUICK, guide=storm)
    batch = CrystalBatch.from_crystals(drawn)
    assert largest(batch.free * (1 - batch.free_mask())) == 0
    plain = CrystalBatch.from_crystals(model.draw(genes, seed=0, settings=QUICK))
    assert largest((batch.lattice_coords - plain.lattice_coords) * (1 - batch.lattice_mask())) == 0
    assert largest(batch.lattice_coords - plain.lattice_coords) > 0.01


def test_first_step_goes_down_the_loss(model, genes):
    """A small step along the push lowers the loss by strength times the squared gradient: it is a descent."""
    batch = CrystalBatch.from_crystals(genes)
    blank = batch.with_species(torch.zeros_like(batch.species))
    scale = model.velocity.scale
    h = torch.randn(batch.n_sites, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    point = (h, batch.free, scale.from_coords(batch.lattice_coords - 0.3 * batch.lattice_mask(), batch))

    def value(point):
        logits = model.autoencoder.decoder(point, blank).logits
        at = blank.with_geometry(point[1], scale.to_coords(point[2], blank))
        return barrier_loss(at, soft_species(logits, blank.species))

    push = Guidance(barrier_loss, model, 1e-3, start=0.0)(torch.tensor(0.5), point, blank)
    with torch.no_grad():
        for k in range(3):
            moved = tuple(x + 0.1 * push[i] if i == k else x for i, x in enumerate(point))
            change = value(moved) - value(point)
            assert float(change.max()) <= 0, k  # zero where a crystal has nothing free
            assert float(change.min()) < -1e-11, k


def test_chgnet_guides_unknown_species(genes):
    """Forces on soft species steer the flow in single precision: other crystals, all finite."""
    blank = [replace(c, species=np.zeros_like(c.species)) for c in genes[:3]]
    single = tiny_model(torch.float32)
    guide = Guidance(PhysicsLoss(PhysicsWeights(force=1.0, barrier=1.0), CHGNetPotential()), single, 0.1, 0.8)
    settings = FlowSettings(Solver("euler", steps=6), corrections=0)
    plain = single.draw(blank, seed=0, settings=settings)
    for before, after in zip(plain, single.draw(blank, seed=0, settings=settings, guide=guide), strict=True):
        assert np.isfinite(after.free).all()
        assert np.isfinite(after.lattice_coords).all()
        assert np.abs(after.lattice_coords - before.lattice_coords).max() > 1e-5


def test_known_species_are_certain():
    logits = torch.randn(3, 101, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = soft_species(logits, torch.tensor([0, 94, 1]))
    assert largest(found.sum(-1) - 1) < 1e-12
    assert found[1, 93] == found[2, 0] == 1
    assert largest(found[0] - logits[0, 1:95].softmax(-1)) == 0
    with pytest.raises(ValueError, match="up to 94: got 95"):
        soft_species(logits, torch.tensor([0, 95, 1]))
