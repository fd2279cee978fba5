"""The critic of stability: what it reads, what it learns, and which share of draws a threshold keeps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.described import LabelledGenes
from autoperi.genes.critics.kin import KIN
from autoperi.genes.critics.stability import (
    KINDS,
    StabilityConfig,
    StabilityCritic,
    kinds,
    stability_loss,
)
from autoperi.networks.config import ConfigError
from tests.autoperi.small import SOME_GROUPS, small_crystal

SMALL = StabilityConfig(width=16, dropout=0.0, members=2)


@pytest.fixture(scope="module")
def labelled() -> LabelledGenes:
    """Energies that follow from the distance of the nearest relative alone."""
    crystals = [small_crystal(group, seed) for group in SOME_GROUPS for seed in range(3)]
    kin = torch.rand(len(crystals), KIN, generator=torch.Generator().manual_seed(0)).sort(dim=1).values
    told = [
        replace(c, properties={"e": e}) for c, e in zip(crystals, (0.4 * kin[:, 0]).tolist(), strict=True)
    ]
    return LabelledGenes(GeneBatch.from_crystals(told, ["e"]), kin)


def made() -> StabilityCritic:
    torch.manual_seed(0)
    return StabilityCritic(SMALL).eval()


def test_it_learns_what_labels_follow_from(labelled):
    """A few steps of gradient descent rank the crystals."""
    critic = made()
    critic.standardise(labelled.genes, labelled.kin)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = stability_loss(critic, labelled)
        loss.backward()
        optimizer.step()
    found = critic(labelled.genes, labelled.kin).mean(dim=0)
    assert loss < 0.5
    assert torch.corrcoef(torch.stack([found, labelled.genes.conditions[:, 0]]))[0, 1] > 0.9


def test_order_of_sites_and_company_do_not_matter(labelled):
    """A crystal is judged alike in any batch and with its sites in any order."""
    critic = made()
    crystals = [small_crystal(group, 5) for group in (62, 166, 225)]
    kin = labelled.kin[:3]
    together = critic.expected(crystals, kin)
    for i, crystal in enumerate(crystals):
        order = np.random.default_rng(i).permutation(crystal.n_sites)
        turned = replace(crystal, wyckoff=crystal.wyckoff[order], species=crystal.species[order])
        assert critic.expected([turned], kin[i : i + 1])[0] == pytest.approx(together[i], abs=1e-5)


def test_no_relative_is_read_as_the_farthest():
    """Infinite distances give finite expectations, other ones than near relatives."""
    critic = made()
    crystals = [small_crystal(62, 5)]
    alone = critic.expected(crystals, torch.full((1, KIN), torch.inf))[0]
    assert np.isfinite(alone)
    assert alone != critic.expected(crystals, torch.zeros(1, KIN))[0]


def test_a_threshold_refuses_its_share_of_every_kind():
    """Of the draws that it was calibrated on; what is rare goes by the level of all."""
    critic = made()
    some = [small_crystal(group, seed) for group in (1, 2, 62) for seed in range(40)]
    oxides = [replace(c, species=np.full(c.n_sites, 8)) for c in some]
    metals = [replace(c, species=np.full(c.n_sites, 29)) for c in some]
    rare = [replace(some[0], species=np.full(some[0].n_sites, 57))]
    crystals = [*oxides, *metals, *rare]
    kin = torch.rand(len(crystals), KIN, generator=torch.Generator().manual_seed(0))
    critic.calibrate(crystals, kin)
    expected = np.array(critic.expected(crystals, kin))
    for refused in (0.25, 0.5, 0.75):
        over = expected > np.array(critic.thresholds(crystals, refused))
        assert over[:120].mean() == pytest.approx(refused, abs=0.03)
        assert over[120:240].mean() == pytest.approx(refused, abs=0.03)
        assert critic.thresholds(rare, refused)[0] == pytest.approx(
            np.quantile(expected, 1 - refused), abs=0.01
        )


def test_kinds_are_those_of_anions_and_lanthanides():
    """An oxyhalide is a halide; an alloy has a kind of its own."""
    gene = replace(small_crystal(1, 0, sites=3), wyckoff=np.zeros(3, int), free=np.zeros((3, 3)))
    named = ((57, 8, 17), (56, 22, 8), (28, 13, 13), (58, 28, 28))
    found = kinds([replace(gene, species=np.array(z)) for z in named])
    assert found.tolist() == [1, 2, 10, 11]
    assert KINDS == 12


def test_far_labels_count_as_far(labelled):
    """A crystal that exploded weighs no more than one that is merely bad."""
    critic = made()
    genes = labelled.genes
    broken = replace(labelled, genes=replace(genes, conditions=genes.conditions + 1e3))
    assert torch.isfinite(stability_loss(critic, broken))
    assert stability_loss(critic, broken) < 100


@pytest.mark.parametrize("wrong", [{"refused": 1.5}, {"members": 0}, {"dropout": -0.1}])
def test_sizes_are_refused(wrong):
    """With their name."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        StabilityConfig(**wrong)
