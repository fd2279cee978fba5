from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from moyopy import Cell, MoyoDataset
from spglib import get_spacegroup_type, get_symmetry_from_database

import autoperi
from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.flow import sampler
from autoperi.flow.noise import seeded_noise
from autoperi.flow.sampler import FlowModel, _overlapping
from autoperi.flow.settings import FlowSettings, Restart, Solver
from autoperi.flow.velocity import latent_masks
from autoperi.generator import SampleConfig
from autoperi.networks.autoencoder import Latents
from tests.autoperi.small import SOME_GROUPS, largest, small_batch, small_crystal, tiny_model
from tests.prototypes import prototype

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spglib")
QUICK = FlowSettings(Solver("midpoint", steps=3), Restart(1, 0.5, steps=2), corrections=1, batch_size=128)


@pytest.fixture(scope="module")
def model() -> FlowModel:
    return tiny_model(torch.float64)


@cache
def _hall_numbers() -> dict[int, int]:
    """Hall number of the standard setting of each group: axis b, hexagonal axes, origin choice 2."""
    found: dict[int, int] = {}
    second = set()
    for hall in range(1, 531):
        kind = get_spacegroup_type(hall)
        if kind.number not in found or (kind.choice.startswith("2") and kind.number not in second):
            found[kind.number] = hall
            second |= {kind.number} if kind.choice.startswith("2") else set()
    return found


def _operations(number: int, hall: int) -> tuple[np.ndarray, np.ndarray]:
    """All operations of a group from spglib's database, in our primitive cell."""
    data = get_symmetry_from_database(hall)
    cell = wyckoff_table().primitive[number].numpy()
    inverse = np.linalg.inv(cell)
    return inverse @ data["rotations"] @ cell, data["translations"] @ inverse.T


def _violation(rotations, shifts, lattice, frac, species) -> float:
    """How far, in Å, the worst operation carries the lattice or an atom from where an atom is."""
    columns = lattice.T
    turn = columns @ rotations @ np.linalg.inv(columns)
    strain = np.abs(turn.transpose(0, 2, 1) @ turn - np.eye(3)).max()
    moved = np.einsum("oij,aj->oai", rotations, frac) + shifts[:, None]
    difference = moved[:, :, None] - frac[None, None]
    distance = np.linalg.norm((difference - np.round(difference)) @ lattice, axis=-1)
    distance[:, species[:, None] != species[None, :]] = np.inf
    return max(float(strain), float(distance.min(-1).max()))


@pytest.mark.parametrize(("dtype", "every"), [(torch.float32, 1), (torch.float64, 4)])
def test_every_point_of_the_trajectory_has_the_group(dtype, every):
    """From noise to data, each crystal is invariant under every operation of its gene's group.

    All 230 groups (in float32); the operations are spglib's, not ours; the network is as it was initialised.
    """
    model = tiny_model(dtype)
    genes = [replace(small_crystal(g, 3, sites=2, max_atoms=8), id=str(g)) for g in range(1, 231, every)]
    # every site its own species, so that invariance is not met by accident
    genes = [replace(c, species=np.arange(1, c.n_sites + 1)) for c in genes]
    steps = model.trajectory(genes, seed=0, settings=FlowSettings(Solver("euler", steps=2)))
    assert len(steps) == 3
    first, last = steps[0].to_crystals(), steps[-1].to_crystals()
    assert any(largest(torch.from_numpy(a.free - b.free)) > 1e-3 for a, b in zip(first, last, strict=True))
    hall = _hall_numbers()
    for batch in steps:
        for crystal in batch.to_crystals():
            operations = _operations(crystal.space_group, hall[crystal.space_group])
            assert _violation(*operations, *crystal.expand()) < 1e-6, crystal.space_group


@pytest.mark.parametrize("known", [True, False])
def test_drawn_crystals_have_the_group(model, known):
    """Restarts and corrections keep every operation of the gene's group, whether species are given or not."""
    genes = [small_crystal(g, 3, sites=2, max_atoms=8) for g in range(1, 231, 3)]
    genes = [replace(c, species=known * np.arange(1, c.n_sites + 1)) for c in genes]
    hall = _hall_numbers()
    for crystal in model.draw(genes, 0, settings=QUICK):
        operations = _operations(crystal.space_group, hall[crystal.space_group])
        assert _violation(*operations, *crystal.expand()) < 1e-6, crystal.space_group


def test_a_restart_goes_back_as_far_as_asked(model):
    """A late restart changes no distance between atoms, an early one does; the origin may always move."""
    genes = [small_crystal(g, 0, sites=2, max_atoms=8) for g in (15, 62, 166)]
    plain = replace(QUICK, restart=Restart(rounds=0), corrections=0)
    settings = [plain, *(replace(plain, restart=Restart(1, t, steps=2)) for t in (1 - 1e-9, 0.2))]
    drawn = [[c.to_structure() for c in model.draw(genes, 0, settings=s)] for s in settings]
    once, late, early = ([np.sort(s.distance_matrix.ravel()) for s in structures] for structures in drawn)
    assert max(np.abs(x - y).max() for x, y in zip(once, late, strict=True)) < 1e-5
    assert min(np.abs(x - y).max() for x, y in zip(once, early, strict=True)) > 1e-2


def test_atoms_that_meet_are_put_back(model):
    """A crystal whose atoms met goes back to the old point, unless they had met before; others go on."""
    batch = small_batch([62, 166, 194])
    z = model.velocity.scale.from_coords(batch.lattice_coords, batch)
    h = torch.zeros(batch.n_sites, model.velocity.config.latent).to(z)
    shrunk = model.velocity.scale.from_coords(
        batch.lattice_coords - torch.tensor([0, 0, 0, 0, 0, 3.0]).to(z), batch
    )
    which = torch.tensor([False, True, False])
    met = (h + 1, batch.free, torch.where(which[:, None], shrunk, z))
    assert _overlapping(model._at(met, batch)).tolist() == which.tolist()
    kept = model._unless_overlapping(met, (h, batch.free, z), batch)
    assert largest(kept[2] - z) == 0
    assert kept[0].mean(-1).tolist() == (~which).double()[batch.crystal].tolist()
    assert largest(model._unless_overlapping(met, met, batch)[2] - met[2]) == 0


def test_atoms_in_one_place_overlap():
    """A spinel whose anions (32e, x = 0.26) have fallen onto the cations on 8a, exactly or nearly."""
    spinel = symmetrise(prototype("MgAl2O4 spinel"))
    moving = CrystalBatch.from_crystals([spinel]).free_mask() > 0
    for x, overlaps in ((0.26, False), (0.02, True), (0.0, True)):
        batch = CrystalBatch.from_crystals([spinel])
        batch = batch.with_geometry(torch.where(moving, x, batch.free), batch.lattice_coords)
        assert _overlapping(batch).tolist() == [overlaps]


def test_a_crystal_with_overlapping_atoms_is_drawn_again(model, monkeypatch):
    """Only that one gets other noise, alone or in company the same; after five draws it is left as it is."""
    genes = [small_crystal(g, 0, sites=2, max_atoms=8) for g in (62, 166, 194)]
    plain = model.draw(genes, 0, settings=QUICK)
    integrate, keys = model._integrate, []

    def collapsing(batch, seeds, *rest):
        keys.append(list(seeds))
        done = integrate(batch, seeds, *rest)
        bad = torch.tensor([1 in seed[1:2] and len(seeds[0]) <= most for seed in seeds])
        smaller = done.lattice_coords - 4 * bad[:, None] * torch.eye(6, dtype=torch.float64)[5]
        return done.with_geometry(done.free, smaller)

    monkeypatch.setattr(model, "_integrate", collapsing)
    most = 2
    again = model.draw(genes, 0, settings=QUICK)
    assert [len(k) for k in keys] == [3, 1]
    assert [np.allclose(a.free, b.free) for a, b in zip(plain, again, strict=True)] == [True, False, True]
    assert again[1].provenance == plain[1].provenance
    alone = model.draw(genes[1:2], 0, settings=QUICK, keys=[(1,)])[0]
    np.testing.assert_allclose(alone.lattice_coords, again[1].lattice_coords, atol=1e-8)
    keys.clear()
    most = 4
    left = model.draw(genes, 0, settings=QUICK)[1]
    assert len(keys) == 5
    assert len({key for seeds in keys for key in seeds}) == 3 + 4
    assert left.to_structure().volume < 1e-3 * plain[1].to_structure().volume


def test_a_symmetry_search_finds_the_group(model):
    """A symmetry search (symprec 1e-3 Å) finds at least as many operations as the gene has."""
    genes = [replace(small_crystal(g, 5), id=str(g)) for g in SOME_GROUPS]
    genes = [replace(c, species=np.arange(1, c.n_sites + 1)) for c in genes]
    hall = _hall_numbers()
    same = 0
    for batch in model.trajectory(genes, seed=1, settings=FlowSettings(Solver("euler", steps=2))):
        for crystal in batch.to_crystals():
            lattice, frac, species = crystal.expand()
            found = MoyoDataset(Cell(lattice.tolist(), frac.tolist(), species.tolist()), symprec=1e-3)
            expected = len(_operations(crystal.space_group, hall[crystal.space_group])[0])
            centring = round(1 / np.linalg.det(wyckoff_table().primitive[crystal.space_group].numpy()))
            assert len(found.operations) >= expected // centring
            same += found.number == crystal.space_group
    assert same > len(SOME_GROUPS)


def _same(a, b) -> float:
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        assert x.space_group == y.space_group
        assert (x.wyckoff == y.wyckoff).all()
        assert (x.species == y.species).all()
        turn = x.free - y.free
        worst = max(
            worst, np.abs(turn - np.round(turn)).max(), np.abs(x.lattice_coords - y.lattice_coords).max()
        )
    return worst


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_batch_size_does_not_matter(dtype, tolerance):
    """The same seed gives the same crystals whatever the batch size; another seed gives others."""
    model = tiny_model(dtype)
    genes = [small_crystal(g, 0, sites=2, max_atoms=8) for g in (1, 15, 36, 62, 166, 194, 225)]
    genes = [replace(c, id=f"gene {i}") for i, c in enumerate(genes)]
    draws = [model.draw(genes, 5, settings=replace(QUICK, batch_size=n)) for n in (1, 3, 128)]
    assert _same(draws[0], draws[1]) < tolerance
    assert _same(draws[0], draws[2]) < tolerance
    assert _same(draws[0], model.draw(genes, 5, settings=QUICK)) < tolerance
    assert _same(draws[0], model.draw(genes, 6, settings=QUICK)) > 0.01
    assert [c.id for c in draws[1]] == [c.id for c in genes]
    assert [c.provenance["index"] for c in draws[1]] == list(range(len(genes)))


def test_neither_seed_nor_index_repeats_noise(model):
    """Each of a thousand pairs of seed and index has noise of its own."""
    batch = small_batch([225])
    draws = {
        float(seeded_noise(batch, [(seed, index)], model.velocity.config.latent)[0][0, 0])
        for seed in (0, 1, 2, 1 << 33)
        for index in range(250)
    }
    assert len(draws) == 1000


def test_noise_follows_the_index(model):
    """Gene i drawn alone under its own index is the gene drawn among the others."""
    genes = [small_crystal(g, 0, sites=2, max_atoms=8) for g in (1, 62, 166)]
    together = model.draw(genes, 3, settings=QUICK)
    alone = [model.draw([g], 3, settings=QUICK, keys=[(i,)])[0] for i, g in enumerate(genes)]
    assert _same(together, alone) < 1e-9


def test_guidance_of_one_or_of_nothing_is_plain(model):
    """Guidance 1 is the conditional model, and guidance without conditions the unconditional one."""
    genes = [small_crystal(g, 0, sites=2, max_atoms=8) for g in (62, 194)]
    plain = model.draw(genes, 0, settings=QUICK)
    made = model.velocity.conditions.targets
    assert _same(plain, model.draw(genes, 0, made([{}, {}], 3.0), QUICK)) == 0
    assert _same(plain, model.draw(genes, 0, made([{}, {}]), QUICK)) == 0
    gap = {"band_gap": 2.0}
    asked = model.draw(genes, 0, made([gap, gap]), QUICK)
    assert _same(asked, plain) > 1e-6
    assert _same(asked, model.draw(genes, 0, made([gap, gap], 3.0), QUICK)) > 1e-6


def test_every_crystal_has_its_own_target(model):
    """Targets belong to crystals, whatever the batches: the first as if alone, the second as if unasked."""
    genes = [small_crystal(g, 0, sites=3, max_atoms=8) for g in (194, 62)]
    made = model.velocity.conditions.targets
    plain = model.draw(genes, 0, settings=QUICK)
    asked = model.draw(genes, 0, made([{"band_gap": 2.0}] * 2), QUICK)
    mixed = model.draw(genes, 0, made([{"band_gap": 2.0}, {}]), replace(QUICK, batch_size=1))
    assert _same(mixed[:1], asked[:1]) < 1e-9
    assert _same(mixed[1:], plain[1:]) < 1e-9
    assert _same(asked[1:], plain[1:]) > 1e-6


def test_unknown_conditions_are_refused(model):
    """A condition the model does not know is an error with the known ones named."""
    with pytest.raises(ValueError, match=r"expected conditions among .*band_gap.*got \['colour'\]"):
        model.velocity.conditions.targets([{"colour": 1.0}])


def test_known_species_stay(model):
    """Species given are kept, unknown ones become elements from 1 to 100, and nothing else of the gene."""
    genes = [small_crystal(g, 1, sites=4) for g in (1, 62, 166, 194, 221)]
    genes = [replace(c, species=np.where(np.arange(c.n_sites) % 2, 0, c.species)) for c in genes]
    for gene, crystal in zip(genes, model.draw(genes, 0, settings=QUICK), strict=True):
        known = gene.species > 0
        assert (crystal.species[known] == gene.species[known]).all()
        assert ((crystal.species >= 1) & (crystal.species <= 100)).all()
        assert crystal.gene == gene.gene
        assert ((crystal.free >= 0) & (crystal.free < 1)).all()


def test_impossible_settings_are_refused():
    """No batch, no negative corrections, no restart from the crystal itself."""
    with pytest.raises(ValueError, match="batch_size >= 1"):
        FlowSettings(batch_size=0)
    with pytest.raises(ValueError, match="corrections and settling from 0 to"):
        FlowSettings(corrections=-1)
    with pytest.raises(ValueError, match="0 <= time < 1"):
        Restart(time=1.0)


def test_encode_and_decode_fit_together(model):
    """Encoding in parts is encoding at once, and decoding returns crystals of the same genes."""
    crystals = [small_crystal(g, 0, sites=2, max_atoms=8) for g in (1, 62, 166)]
    together, parts = model.encode(crystals), model.encode(crystals, batch_size=1)
    for a, b in zip(together, parts, strict=True):
        assert largest(a.mean - b.mean) < 1e-10
        assert largest(a.log_std - b.log_std) < 1e-10
    decoded = model.decode(together, crystals)
    assert [c.gene for c in decoded] == [c.gene for c in crystals]


def test_log_prob_without_flow_is_the_base():
    """If nothing moves, log p is the base density of (h, z), and that of ℓ by the change of variables."""
    model = tiny_model(torch.float64)

    def still(*_):
        return lambda _, point: tuple(x * 0 for x in point)

    model.velocity.field = still
    crystals = [small_crystal(g, 0, sites=2, max_atoms=8) for g in (1, 62, 225)]
    batch = CrystalBatch.from_crystals(crystals)
    found = model.log_prob(crystals, Solver(steps=2)).value
    masks = latent_masks(batch, 3)
    normal = torch.distributions.Normal(
        torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    )
    scale, h = model.velocity.scale, model.encode(crystals)
    z = scale.from_coords(batch.lattice_coords, batch)
    for i in range(3):
        free = masks[2][i] > 0
        spread = scale.spread[batch.family()[i]][free]
        expected = normal.log_prob(h[i].mean).sum() + (normal.log_prob(z[i][free]) - spread.log()).sum()
        assert largest(found[i] - expected) < 1e-9


def test_log_prob_by_probes_tends_to_the_exact_one(model):
    """The Hutchinson likelihood scatters about the exact one as its standard error says, seeded."""
    crystals = [small_crystal(g, 0, sites=2, max_atoms=4) for g in (62, 225)]
    solver = Solver("euler", steps=2)
    exact = model.log_prob(crystals, solver)
    few, many = (model.log_prob(crystals, solver, probes=n, seed=1) for n in (4, 60))
    again = model.log_prob(crystals, solver, probes=4, seed=1)
    assert torch.equal(few.value, again.value)
    assert torch.equal(few.error, again.error)
    assert largest(model.log_prob(crystals, solver, probes=4, seed=2).value - few.value) > 0
    threads = model.log_prob(crystals, solver, probes=4, seed=1, workers=2)
    assert torch.allclose(threads.value, few.value, atol=1e-3)
    assert torch.allclose(threads.error, few.error, atol=1e-3)
    assert exact.error.tolist() == [0, 0]
    assert bool((many.error > 0).all())
    assert bool((many.error < few.error).all())
    assert bool(((many.value - exact.value).abs() < 3 * many.error).all())
    assert not few.value.requires_grad


def test_one_probe_has_no_standard_error(model):
    """So it is refused."""
    with pytest.raises(ValueError, match="at least two"):
        model.log_prob([small_crystal(225, 0)], probes=1)


def test_large_crystals_are_estimated_and_small_ones_exact(model, monkeypatch):
    """By the number of their own coordinates alone."""
    small, large = small_crystal(225, 0, sites=1, max_atoms=4), small_crystal(1, 0, sites=4, max_atoms=4)
    monkeypatch.setattr(sampler, "_EXACT", 12)
    found = model.log_prob([large, small], Solver("euler", steps=2))
    assert found.error[0] > 0
    assert found.error[1] == 0


def test_the_log_density_of_a_crystal_depends_on_seed_and_number_alone(model):
    """Neither on how many are asked for, nor on batches and their order: probes are of (seed, number)."""
    crystals = [small_crystal(g, 0, sites=2, max_atoms=4) for g in (62, 225, 166, 2)]
    solver = Solver("euler", steps=2)
    together = model.log_prob(crystals, solver, probes=3, seed=5)
    for size in (1, 3):
        parts = model.log_prob(crystals, solver, probes=3, seed=5, batch_size=size)
        assert largest(parts.value - together.value) < 1e-9
    last = model.log_prob(crystals[2:], solver, probes=3, seed=5, indices=[2, 3])
    assert largest(last.value - together.value[2:]) < 1e-9
    assert largest(last.error - together.error[2:]) < 1e-9


def test_log_prob_does_not_depend_on_the_neighbours(model):
    """The log-density of a crystal in a batch is that of the crystal alone."""
    crystals = [small_crystal(g, 0, sites=2, max_atoms=4) for g in (62, 225)]
    solver = Solver("euler", steps=2)
    together = model.log_prob(crystals, solver).value
    for i, crystal in enumerate(crystals):
        assert largest(model.log_prob([crystal], solver).value - together[i]) < 1e-9


def test_latents_of_a_batch_belong_to_its_sites(model):
    """Encode returns one row per site of each crystal."""
    batch = small_batch((1, 225))
    for latents, crystal in zip(model.encode(batch.to_crystals()), batch.to_crystals(), strict=True):
        assert isinstance(latents, Latents)
        assert len(latents.mean) == crystal.n_sites


def test_the_shipped_likelihood_is_integrated_to_half_a_nat_and_its_error_bar_holds():
    """Against twice as many steps, with the same probes; small crystals exactly, beside their estimates."""
    model = autoperi.load()
    crystals = [c for c in model.sample(60, 0, config=SampleConfig(stability=0.0)) if c.n_sites <= 2][:3]
    fine = replace(sampler.LIKELIHOOD_SOLVER, steps=2 * sampler.LIKELIHOOD_SOLVER.steps)
    usual = model.flow.log_prob(crystals, probes=2)
    assert largest(usual.value - model.flow.log_prob(crystals, fine, probes=2).value) < 0.5
    coarse = Solver("midpoint", steps=3)
    exact = model.flow.log_prob(crystals, coarse)
    assert exact.error.tolist() == [0] * len(crystals)
    estimated = model.flow.log_prob(crystals, coarse, probes=16)
    assert bool(((estimated.value - exact.value).abs() < 4 * estimated.error).all())
