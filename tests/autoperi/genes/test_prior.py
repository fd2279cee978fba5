from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.labels import DEFAULT_CONDITIONS
from autoperi.crystals.wyckoff import relabellings, wyckoff_table
from autoperi.genes.batch import GeneBatch
from autoperi.genes.empirical import EmpiricalGenes
from autoperi.genes.network import GeneConfig, GeneNetwork, gene_loss
from autoperi.genes.prior import LearnedGenes
from autoperi.genes.request import GeneRequest
from autoperi.genes.search import OrbitSearch
from autoperi.genes.settings import DrawConfig
from autoperi.networks.condition import ConditionEmbedding


def crystal(group, letters, species, **properties):
    wyckoff = np.array([wyckoff_table().index(group, letter) for letter in letters])
    return Crystal(
        group, wyckoff, np.array(species), np.zeros((len(letters), 3)), np.zeros(6), properties=properties
    )


ROCK_SALT = crystal(225, "ab", [11, 17], band_gap=5.0)
PEROVSKITE = crystal(221, "abc", [56, 22, 8], band_gap=1.5)
FLUORITE = crystal(225, "ac", [20, 9], band_gap=7.5)
COPPER = crystal(225, "a", [29], band_gap=0.0)
LOW = crystal(2, "aii", [14, 8, 8], band_gap=3.5)
CRYSTALS = [ROCK_SALT, PEROVSKITE, FLUORITE, COPPER, LOW]
SMALL = GeneConfig(width=32, depth=2, heads=4, dropout=0.0)


@pytest.fixture(scope="module")
def fresh():
    """An untrained network: its samples are as wild as they can be."""
    torch.manual_seed(0)
    return LearnedGenes(GeneNetwork(SMALL))


@pytest.fixture(scope="module")
def trained():
    """A network that has learned the five crystals by heart."""
    torch.manual_seed(0)
    batch = GeneBatch.from_crystals(CRYSTALS * 8, DEFAULT_CONDITIONS)
    network = GeneNetwork(replace(SMALL, width=48, hint_share=0.2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=6e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    for _ in range(200):
        optimizer.zero_grad()
        torch.stack(list(gene_loss(network, batch).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        cosine.step()
    return LearnedGenes(network.eval())


def is_valid(c, low=1, high=20):
    table = wyckoff_table()
    first, end = table.group_start[c.space_group : c.space_group + 2].tolist()
    fixed = [p for p in c.wyckoff.tolist() if table.dim[p] == 0]
    return (
        all(first <= p < end for p in c.wyckoff)
        and len(fixed) == len(set(fixed))
        and low <= c.n_atoms <= high
        and sorted(zip(c.wyckoff, c.species, strict=True)) == list(zip(c.wyckoff, c.species, strict=True))
        and not c.free.any()
        and not c.lattice_coords.any()
    )


def amounts(c):
    out = Counter()
    for z, m in zip(c.species.tolist(), c.multiplicities.tolist(), strict=True):
        out[z] += m
    return out


def meets(c, request):
    counts = amounts(c)
    units = c.n_atoms // sum(request.ratios() or (c.n_atoms,))
    return (
        c.space_group in request.groups()
        and all(request.permitted()[z] for z in counts)
        and (request.amounts() is None or counts == {z: a * units for z, a in request.amounts().items()})
        and (
            request.ratios() is None
            or sorted(counts.values(), reverse=True) == [a * units for a in request.ratios()]
        )
        and (request.system() is None or set(counts) == request.system())
        and (request.positions() is None or tuple(sorted(c.wyckoff.tolist())) == request.positions())
        and is_valid(c, *(request.n_atoms or (1, 20)))
    )


REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "crystal_system": st.sampled_from(["cubic", "hexagonal", "tetragonal", "triclinic"]),
        "anonymous_formula": st.sampled_from(["A", "AB", "AB2", "ABC3", "A2BC4"]),
        "denied_elements": st.sampled_from([["O"], ["Fe", "H"]]),
        "n_atoms": st.sampled_from([(1, 6), (4, 12), (8, 24)]),
    },
)


@given(REQUESTS, st.integers(0, 1000))
@settings(deadline=None, max_examples=15)
def test_whatever_is_asked_is_given_exactly_even_by_an_untrained_network(fresh, fields, seed):
    request = GeneRequest(**fields)
    try:
        OrbitSearch(request, SMALL.n_max)
    except ValueError:
        with pytest.raises(ValueError, match=r"no combination|no multiple"):
            fresh.sample(range(4), seed, request)
        return
    drawn = fresh.sample(range(4), seed, request, config=DrawConfig(new_genes=1.0, temperature=3.0))
    assert all(meets(c, request) for c in drawn)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"formula": "BaTiO3"},
        {"formula": "BaTiO3", "space_groups": [221, 99], "n_atoms": (5, 10)},
        {"chemical_system": "Ba-Ti-O", "n_atoms": (3, 9)},
        {"chemical_system": "Ba-Ti-O", "anonymous_formula": "ABC3"},
        {"allowed_elements": ["Li", "Fe", "O"], "crystal_system": "orthorhombic"},
        {"gene": "221:abc", "formula": "SrTiO3"},
        {"gene": "225:ab"},
    ],
)
def test_requests_compose(fresh, fields):
    request = GeneRequest(**fields)
    drawn = fresh.sample(range(6), 3, request)
    assert all(meets(c, request) for c in drawn)
    assert all(
        meets(c, request)
        for c in fresh.draw_species([replace(c, species=0 * c.species) for c in drawn], range(6), 5, request)
    )


def test_impossible_requests_are_refused_before_drawing(fresh):
    with pytest.raises(ValueError, match=r"widen .*--atoms"):
        fresh.sample(range(1), 0, GeneRequest(formula="Li7La3Zr2O12"))
    with pytest.raises(ValueError, match="cannot become"):
        fresh.draw_species(
            [replace(PEROVSKITE, species=np.array([0, 0, 16]))], [0], 0, GeneRequest(formula="BaTiO3")
        )
    with pytest.raises(ValueError, match="none of the 5 training crystals"):
        EmpiricalGenes.from_crystals(CRYSTALS).sample(range(1), 0, GeneRequest(space_groups=[62]))
    with pytest.raises(ValueError, match="temperature"):
        DrawConfig(temperature=0.0)


def asked(prior, n, guidance=1.0, **values):
    return prior.network.condition.targets([values] * n, guidance)


def same(a, b):
    return a.gene == b.gene and np.array_equal(a.wyckoff, b.wyckoff) and np.array_equal(a.species, b.species)


def test_same_seed_same_crystals_whatever_the_batch(fresh):
    whole = fresh.sample(range(10), 7)
    pieces = fresh.sample(range(10), 7, config=DrawConfig(batch_size=3))
    late = fresh.sample(range(6, 10), 7)
    assert all(map(same, whole, pieces))
    assert all(map(same, whole[6:], late))
    assert [c.provenance["index"] for c in late] == [6, 7, 8, 9]
    assert not all(map(same, whole, fresh.sample(range(10), 8)))


def test_absent_conditions_are_the_null_and_given_ones_are_not(fresh):
    plain = fresh.sample(range(6), 1)
    assert all(map(same, plain, fresh.sample(range(6), 1, targets=asked(fresh, 6))))
    assert all(map(same, plain, fresh.sample(range(6), 1, targets=asked(fresh, 6, 3.0))))


def test_learns_a_tiny_set_by_heart(trained):
    prior = trained
    drawn = prior.sample(range(200), 0)
    known = {(c.gene, tuple(c.species)) for c in CRYSTALS}
    share = np.mean([(c.gene, tuple(c.species)) in known for c in drawn])
    assert share > 0.9
    found = Counter(c.gene for c in drawn)
    assert all(found[c.gene] > 15 for c in CRYSTALS)


def test_conditions_and_formulas_steer_what_was_learned(trained):
    prior = trained
    metals = prior.sample(range(50), 0, targets=asked(prior, 50, band_gap=0.0))
    assert np.mean([c.gene == COPPER.gene for c in metals]) > 0.8
    guided = prior.sample(range(50), 0, targets=asked(prior, 50, 1.5, band_gap=7.5))
    assert np.mean([c.formula == "CaF2" for c in guided]) > 0.5
    perovskites = prior.sample(range(50), 0, GeneRequest(formula="BaTiO3"))
    assert np.mean([c.gene == "221:abc" for c in perovskites]) > 0.8


def test_given_species_stay_and_complete_the_rest(trained):
    prior = trained
    open_crystals = [replace(PEROVSKITE, species=np.array([56, 0, 0]))] * 20
    filled = prior.draw_species(
        open_crystals, range(len(open_crystals)), 0, config=DrawConfig(temperature=0.5)
    )
    assert all(c.species[0] == 56 for c in filled)
    assert np.mean([c.species.tolist() == [56, 22, 8] for c in filled]) > 0.8


def test_another_origin_is_the_same_gene(trained):
    """Titanium sits on a and barium on b once the origin is at the centre of the cube: letters abd."""
    shifted = crystal(221, "abd", [22, 56, 8])
    assert torch.allclose(trained.log_prob([shifted]), trained.log_prob([PEROVSKITE]))
    filled = trained.draw_species(
        [replace(shifted, species=np.array([0, 56, 0]))] * 20,
        range(20),
        0,
        config=DrawConfig(temperature=0.5),
    )
    assert np.mean([c.species.tolist() == [22, 56, 8] for c in filled]) > 0.8


def test_probabilities_are_normalised(trained):
    prior = trained
    log_p = prior.log_prob(CRYSTALS)
    assert log_p.shape == (5, 2)
    assert torch.allclose(log_p[:, 0].exp(), torch.full((5,), 0.2).double(), atol=0.12)
    # the sum over the genes of a group with few atoms, and over one site's elements, is exactly one
    prior.network.config, kept = replace(prior.network.config, n_max=2), prior.network.config
    try:
        table = wyckoff_table()
        named = {g: relabellings(225, tuple(table.index(225, x) for x in g))[0][0] for g in _genes(225, 2)}
        genes = {name: g for g, name in named.items()}.values()
        assert 1 < len(genes) < len(named)
        scores = prior.log_prob([crystal(225, g, [1] * len(g)) for g in genes])[:, 0]
        group = prior.network.letter_logits(
            GeneBatch.from_crystals([replace(COPPER, properties={})], DEFAULT_CONDITIONS)
        )[0]
        assert scores.exp().sum().item() == pytest.approx(group.softmax(-1)[0, 225].item(), rel=1e-4)
    finally:
        prior.network.config = kept
    elements = prior.log_prob([crystal(225, "a", [z]) for z in range(1, 101)])[:, 1]
    assert elements.exp().sum().item() == pytest.approx(1.0, rel=1e-5)


def _genes(group, most):
    table = wyckoff_table()
    letters = "abcdefghijkl"
    sizes = {x: int(table.multiplicity[table.index(group, x)]) for x in letters}
    for i, x in enumerate(letters):
        if sizes[x] <= most:
            yield x
        for y in letters[i + 1 :]:
            if sizes[x] + sizes[y] <= most:
                yield x + y


def test_sites_are_a_set_and_many_of_them_are_fine(fresh):
    swapped = replace(LOW, species=np.array([14, 8, 9]), properties={})
    other = replace(LOW, species=np.array([14, 9, 8]), properties={})
    batch = GeneBatch.from_crystals([swapped, other], DEFAULT_CONDITIONS)
    hidden = replace(batch, species=batch.species.clone().index_fill_(1, torch.tensor([0]), 0))
    first = torch.zeros(2, dtype=torch.long)
    logits = fresh.network.species_logits(hidden, torch.arange(2), first)[:, 1:]
    assert torch.allclose(logits[0], logits[1], atol=1e-5)
    many = crystal(1, "a" * 300, [14] * 100 + [8] * 200)
    assert fresh.log_prob([many, LOW])[:, 0].isfinite().all()


def test_padding_does_not_change_the_logits_or_the_loss_gradient_of_others(fresh):
    batch = GeneBatch.from_crystals([replace(c, properties={}) for c in CRYSTALS], DEFAULT_CONDITIONS)
    group, orbit = fresh.network.letter_logits(batch)
    crystals, sites = (batch.wyckoff >= 0).nonzero(as_tuple=True)
    blank = replace(batch, species=torch.zeros_like(batch.species))
    species = fresh.network.species_logits(blank, crystals, sites)
    for i, c in enumerate(CRYSTALS):
        alone = batch.take(torch.tensor([i]))
        g, o = fresh.network.letter_logits(alone)
        each = torch.arange(c.n_sites)
        blank = replace(alone, species=torch.zeros_like(alone.species))
        s = fresh.network.species_logits(blank, torch.zeros_like(each), each)
        assert torch.allclose(g[0], group[i], atol=1e-5)
        assert torch.allclose(o[0], orbit[i, : c.n_sites + 1], atol=1e-5)
        assert torch.allclose(s, species[crystals == i], atol=1e-5)


def test_letters_do_not_see_what_follows_nor_the_species(fresh):
    a = GeneBatch.from_crystals([replace(PEROVSKITE, properties={})], DEFAULT_CONDITIONS)
    b = replace(a, wyckoff=a.wyckoff.clone(), species=a.species + 1)
    b.wyckoff[0, 2] += 1
    one, two = fresh.network.letter_logits(a), fresh.network.letter_logits(b)
    assert torch.allclose(one[0], two[0])
    assert torch.allclose(one[1][:, :3], two[1][:, :3], atol=1e-6)


def test_reading_token_by_token_gives_the_same_letters(fresh):
    network = fresh.network
    whole = GeneBatch.from_crystals([PEROVSKITE], DEFAULT_CONDITIONS)
    group, orbit = network.letter_logits(whole)
    tokens = torch.zeros(1, network.config.depth, 0, 2, network.config.width)
    found = []
    for length in (0, *range(whole.wyckoff.shape[1] + 1)):
        prefix = replace(whole, wyckoff=whole.wyckoff[:, :length], species=whole.species[:, :length])
        logits, own = network.next_letter(prefix, network.positions(), tokens)
        tokens = torch.cat([tokens, own[:, :, None]], dim=2)
        found.append(logits[0])
    assert torch.allclose(found[0], group[0], atol=1e-5)
    assert torch.allclose(torch.stack(found[1:]), orbit[0], atol=1e-5)


def test_what_is_forgotten_is_read_again(fresh, monkeypatch):
    whole = fresh.sample(range(8), 3, config=DrawConfig(batch_size=4))
    monkeypatch.setattr("autoperi.genes.draw._REMEMBERED", 0)
    assert all(map(same, whole, fresh.sample(range(8), 3, config=DrawConfig(batch_size=4))))


def test_loss_is_a_pure_function_of_its_generator(fresh):
    batch = GeneBatch.from_crystals(CRYSTALS, DEFAULT_CONDITIONS)
    first, second = (gene_loss(fresh.network, batch, torch.Generator().manual_seed(3)) for _ in range(2))
    assert set(first) == {"group", "letters", "species"}
    assert all(torch.equal(first[k], second[k]) and first[k] > 0 for k in first)


def test_empirical_genes_resample_the_training_set():
    prior = EmpiricalGenes.from_crystals(CRYSTALS * 3)
    drawn = prior.sample(range(300), 0)
    assert {c.gene for c in drawn} == {c.gene for c in CRYSTALS}
    assert all(is_valid(c) for c in drawn)
    assert not any(c.species.any() for c in drawn)
    again = EmpiricalGenes.from_state_dict(prior.state_dict())
    assert all(map(same, drawn, again.sample(range(300), 0)))
    assert all(map(same, drawn[5:9], prior.sample(range(5, 9), 0)))
    genes = prior.sample(range(50), 0, GeneRequest(formula="MgO"))
    assert {c.gene for c in genes} == {"225:ab"}
    embedding = ConditionEmbedding(4)
    gaps = [{"band_gap": gap} for gap in (0.0, 7.5)] * 25
    metals = prior.sample(range(50), 0, targets=embedding.targets(gaps))
    assert [c.gene for c in metals] == ["225:a", "225:ac"] * 25
    cubic = GeneRequest(crystal_system="cubic")
    assert {c.space_group for c in prior.sample(range(50), 1, cubic)} == {221, 225}


def test_temperature_keeps_the_chance_of_repeating_an_element():
    from autoperi.genes.draw import _tempered

    logits = np.array([-np.inf, 2.0, 1.0, 0.5, -1.0])
    allowed, present = np.array([False, True, True, True, True]), np.array([False, True, False, False, True])
    cold = np.exp(_tempered(logits, allowed, present, 0.1))
    warm = np.exp(logits) * allowed
    assert cold[present].sum() == pytest.approx(warm[present].sum())
    assert cold[2] / cold[~present].sum() > warm[2] / warm[~present].sum()


def test_new_genes_are_drawn_until_they_are_new(fresh):
    drawn = fresh.sample(range(60), 0, species=False)
    wyckoff = {(c.space_group, tuple(c.wyckoff.tolist())) for c in drawn}
    prior = LearnedGenes(fresh.network, {relabellings(*gene)[0][0] for gene in wyckoff})
    plain = prior.sample(range(60), 0, species=False, config=DrawConfig(new_genes=0.0))
    half = prior.sample(range(60), 0, species=False, config=DrawConfig(new_genes=0.5))
    assert not any(c.provenance["new_gene"] for c in plain)
    assert 0.3 < np.mean([c.provenance["new_gene"] for c in half]) < 0.7
    assert all(
        c.gene == other.gene or other.provenance["new_gene"] for c, other in zip(plain, half, strict=True)
    )
    again = prior.sample(range(20, 30), 0, species=False, config=DrawConfig(new_genes=0.5, batch_size=4))
    assert [c.gene for c in again] == [c.gene for c in half[20:30]]


def test_a_gene_is_not_new_under_another_name(fresh):
    prior = LearnedGenes(fresh.network, EmpiricalGenes.from_crystals(CRYSTALS).names())
    table = wyckoff_table()
    assert not prior.is_new(221, [table.index(221, x) for x in "abd"])
    assert prior.is_new(221, [table.index(221, x) for x in "acd"])
    fixed = prior.sample(range(3), 0, GeneRequest(gene="221:abd"), config=DrawConfig(new_genes=1.0))
    assert [c.provenance["new_gene"] for c in fixed] == [0, 0, 0]
