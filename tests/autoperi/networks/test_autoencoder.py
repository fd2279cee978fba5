from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from autoperi.flow.coupling import nearest_image
from autoperi.networks import autoencoder as autoencoder_module
from autoperi.networks.autoencoder import Autoencoder, Encoder, Latents
from tests.autoperi.small import (
    TINY_AUTOENCODER,
    largest,
    small_batch,
    small_crystal,
    without_symmetry,
)
from tests.prototypes import prototype

few = settings(max_examples=6, deadline=None)
seeds = st.integers(0, 10_000)


def _in_float64(make):
    """Modules with e3nn inside hold constants of the default precision."""
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        return make()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def encoder():
    return _in_float64(lambda: Encoder(TINY_AUTOENCODER))


@pytest.fixture(scope="module")
def autoencoder():
    autoencoder = _in_float64(lambda: Autoencoder(TINY_AUTOENCODER))
    autoencoder.decoder.scale.fit(small_batch())
    return autoencoder


def _both(latents: Latents) -> torch.Tensor:
    return torch.cat([latents.mean, latents.log_std], -1)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-10)])
def test_reduced_equals_full(encoder, dtype, tolerance):
    """q(h) from the sites alone equals q(h) of every atom of the whole cell without symmetry."""
    batch = small_batch()
    full, _ = without_symmetry(batch)
    mine = encoder if dtype == torch.float64 else _float32_encoder()
    reduced, whole = _both(mine(batch.to(dtype=dtype))), _both(mine(full.to(dtype=dtype)))
    assert float(reduced.std(0).min()) > 1e-3
    assert largest(whole - reduced[batch.atoms().site]) < tolerance


def _float32_encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(TINY_AUTOENCODER)


@torch.no_grad()
@few
@given(st.integers(1, 230), seeds)
def test_latents_do_not_see_origin_or_image(encoder, number, seed):
    """Any atom of an orbit may stand for it: q(h) is the same."""
    batch = small_batch([number], seed)
    start = torch.rand(batch.n_sites, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = replace(batch, free=nearest_image(batch, start))
    assert largest(_both(encoder(moved)) - _both(encoder(batch))) < 1e-8


@torch.no_grad()
@few
@given(st.sampled_from([(2, 1, 1), (1, 3, 1), (2, 1, 2)]), st.integers(-2, 2), seeds)
def test_latents_do_not_see_the_cell(encoder, size, shear, seed):
    """A sheared supercell with its origin moved repeats q(h) of the cell."""
    lattice, frac, species = small_crystal(1, seed).expand()
    shifts = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, 3)
    change = np.array([[1, 0, 0], [shear, 1, 0], [0, 0, 1.0]])
    copies = np.repeat(np.arange(len(frac)), len(shifts))
    moved = (frac[:, None] + shifts + [0.3, 0.8, 0.1]).reshape(-1, 3) / np.array(size)
    big = Crystal.without_symmetry(
        change @ (lattice * np.array(size)[:, None]), moved @ np.linalg.inv(change), species[copies]
    )
    plain = encoder(CrystalBatch.from_crystals([Crystal.without_symmetry(lattice, frac, species)]))
    assert largest(_both(encoder(CrystalBatch.from_crystals([big]))) - _both(plain)[copies]) < 1e-9


@torch.no_grad()
@pytest.mark.parametrize("name", ["NaCl", "TiO2 rutile", "ZnO wurtzite", "Bi2Te3"])
def test_latents_of_prototypes_do_not_see_the_setting(encoder, name):
    """The conventional cell and a sheared supercell of it give the same q(h) after symmetrise."""
    structure = prototype(name)
    found = []
    for same in (structure, structure.make_supercell([[1, 1, 0], [0, 1, 1], [1, 0, 1]], in_place=False)):
        batch = CrystalBatch.from_crystals([symmetrise(same)])
        rows = torch.cat([batch.species[:, None], batch.multiplicity()[:, None], _both(encoder(batch))], -1)
        found.append(_sorted(rows))
    assert largest(found[0] - found[1]) < 1e-5


def _sorted(rows: torch.Tensor) -> torch.Tensor:
    return torch.stack(sorted(rows, key=lambda row: row[:3].round(decimals=4).tolist()))


@torch.no_grad()
def test_batch_equals_single(encoder):
    """q(h) of a crystal does not depend on the crystals beside it."""
    batch = small_batch((2, 62, 166, 225))
    together = _both(encoder(batch))
    for i in range(batch.n_crystals):
        alone = _both(encoder(batch.select(torch.tensor([i]))))
        assert largest(alone - together[batch.crystal == i]) < 1e-11


def test_no_gradient_between_crystals(encoder):
    """q(h) of one crystal has no derivative with respect to another crystal's geometry."""
    batch = small_batch((2, 62, 166))
    leaves = (batch.free.requires_grad_(), batch.lattice_coords.requires_grad_())
    own = batch.crystal == 1
    free, lattice = torch.autograd.grad(encoder(batch).mean[own].sum(), leaves)
    assert largest(free[~own]) == 0
    assert largest(free[own]) > 0
    assert largest(lattice[[0, 2]]) == 0


def test_kl_formula():
    """Latents.kl is the divergence of torch.distributions, summed over channels."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    log_std = 0.5 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(0.0, 1.0)).sum(-1)
    assert largest(Latents(mean, log_std).kl() - expected) < 1e-12


def test_latents_sample_their_normal():
    """Draws have the mean and spread announced, and the same generator gives the same draw."""
    latents = Latents(torch.full((50_000, 2), 0.3), torch.full((50_000, 2), -1.0))
    draw = latents.sample(torch.Generator().manual_seed(0))
    assert draw.mean().item() == pytest.approx(0.3, abs=0.01)
    assert draw.std().item() == pytest.approx(np.exp(-1), rel=0.02)
    assert torch.equal(draw, latents.sample(torch.Generator().manual_seed(0)))


@torch.no_grad()
def test_corrections_stay_in_the_gene(autoencoder):
    """Δs is zero where nothing is free, Δz where the family fixes the lattice; s stays in [0, 1)."""
    batch = small_batch(range(1, 231, 3), sites=2)
    h = torch.randn(batch.n_sites, TINY_AUTOENCODER.latent, dtype=torch.float64)
    z = autoencoder.decoder.scale.from_coords(batch.lattice_coords, batch)
    decoded = autoencoder.decoder((h, batch.free, z), batch)
    assert largest(decoded.step[0] * (1 - batch.free_mask())) == 0
    assert largest(decoded.step[1] * (1 - batch.lattice_mask())) == 0
    _, s, _ = autoencoder.decoder.correct((h, batch.free, z), batch)
    assert bool(((s >= 0) & (s < 1)).all())


def test_overfits_one_batch():
    """A hundred steps on eight crystals: the loss falls and species are read from h."""
    torch.manual_seed(0)
    batch = small_batch((2, 15, 62, 141, 166, 194, 216, 221)).to(dtype=torch.float32)
    model = Autoencoder(TINY_AUTOENCODER)
    model.decoder.scale.fit(batch)
    blank = batch.with_species(torch.zeros_like(batch.species))
    z = model.decoder.scale.from_coords(batch.lattice_coords, batch)

    @torch.no_grad()
    def judge() -> tuple[float, float]:
        logits = model.decoder((model.encoder(batch).mean, batch.free, z), blank).logits
        losses = [model.loss(batch, torch.Generator().manual_seed(i))["total"].item() for i in range(4)]
        return (logits.argmax(-1) == batch.species).double().mean().item(), sum(losses) / 4

    accuracy, loss = judge()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(100):
        optimizer.zero_grad()
        model.loss(batch, torch.Generator().manual_seed(100 + step))["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    better, lower = judge()
    assert accuracy < 0.3
    assert better > 0.8
    assert lower < 0.8 * loss


def test_every_parameter_is_trained(autoencoder):
    """One backward pass reaches every parameter, as distributed training requires."""
    autoencoder.zero_grad()
    autoencoder.loss(small_batch((62, 166)), torch.Generator().manual_seed(0))["total"].backward()
    assert [n for n, p in autoencoder.named_parameters() if p.grad is None] == []
    autoencoder.zero_grad()


def test_no_hidden_species_is_no_trouble(autoencoder, monkeypatch):
    """A batch whose species are all known has a species loss of zero, not NaN."""
    monkeypatch.setattr(autoencoder_module, "known_sites", lambda species, *_: species)
    terms = autoencoder.loss(small_batch([225]), torch.Generator().manual_seed(0))
    assert largest(terms["species"]) == 0
    assert bool(terms["total"].isfinite())
