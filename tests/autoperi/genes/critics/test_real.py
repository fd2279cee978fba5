"""The critic: what it sees, what it learns, and what it does to the draws."""

import numpy as np
import pytest
import torch

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.kin import KIN
from autoperi.genes.critics.real import CriticConfig, GeneCritic, RealVsDrawn, critic_loss
from autoperi.genes.network import GeneConfig, GeneNetwork
from autoperi.genes.prior import LearnedGenes
from autoperi.genes.settings import DrawConfig


def crystal(group, letters, species):
    wyckoff = np.array([wyckoff_table().index(group, letter) for letter in letters])
    return Crystal(group, wyckoff, np.array(species), np.zeros((len(letters), 3)), np.zeros(6))


def kin(n, distance=0.3):
    return torch.full((n, KIN), distance)


ROCK_SALT, COPPER = crystal(225, "ab", [11, 17]), crystal(225, "a", [29])
LOW = crystal(2, "aii", [14, 8, 8])


def test_neighbours_in_the_batch_do_not_matter():
    """Padding and the order of sites leave a crystal's ratio as it is."""
    critic = GeneCritic().eval().double()
    turned = crystal(2, "iai", [8, 14, 8])
    together = critic(GeneBatch.from_crystals([ROCK_SALT, LOW, COPPER]), kin(3).double())
    for row, one in enumerate((ROCK_SALT, turned)):
        alone = critic(GeneBatch.from_crystals([one]), kin(1).double())
        torch.testing.assert_close(together[row], alone[0])


def taught(batch):
    """A small critic that has learned to tell the two kinds apart."""
    torch.manual_seed(0)
    critic = GeneCritic(CriticConfig(width=16, dropout=0.0, ceiling=1.2))
    critic.standardise(batch.genes, batch.kin)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        critic_loss(critic, batch).backward()
        optimizer.step()
    return critic


@pytest.fixture(scope="module")
def salt_lover():
    """A critic that has learned that rock salt is real and copper drawn."""
    batch = RealVsDrawn.of([ROCK_SALT] * 4, [COPPER] * 4, (kin(4), kin(4)))
    return taught(batch)


def test_the_loss_is_low_where_the_kinds_differ_and_ln_2_where_they_do_not(salt_lover):
    """Telling apart what can be told apart; unequal numbers are refused."""
    with torch.no_grad():
        assert critic_loss(salt_lover, RealVsDrawn.of([ROCK_SALT], [COPPER], (kin(1), kin(1)))) < 0.2
        blank = GeneCritic()
        torch.nn.init.zeros_(blank.layers[-1].weight)
        torch.nn.init.zeros_(blank.layers[-1].bias)
        both = RealVsDrawn.of([COPPER], [COPPER], (kin(1), kin(1)))
        assert critic_loss(blank, both).item() == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match=r"as many.*2: got 1"):
        RealVsDrawn.of([COPPER] * 2, [ROCK_SALT], (kin(2), kin(1)))


def test_acceptance_is_a_probability(salt_lover):
    """Likely crystals are kept for sure, unlikely ones seldom."""
    sure, seldom = salt_lover.acceptance(GeneBatch.from_crystals([ROCK_SALT, COPPER]), kin(2))
    assert sure == 1.0
    assert 0 < seldom < 0.3


def test_a_twin_in_the_training_set_is_told_from_a_near_relative():
    """What was learned by heart is refused, though neighbours in the periodic table are hardly farther."""
    twin, near = kin(4), kin(4)
    twin[:, 0], near[:, 0] = 0.0, 0.004
    batch = RealVsDrawn.of([ROCK_SALT] * 4, [ROCK_SALT] * 4, (near, twin))
    critic = taught(batch)
    kept, refused = critic.acceptance(
        GeneBatch.from_crystals([ROCK_SALT] * 2), torch.stack([near[0], twin[0]])
    )
    assert kept > 0.9
    assert refused < 0.2


def test_the_prior_asks_for_relatives(network):
    """The critic reads what was found of the very crystals that it judges."""
    seen = []

    def found(crystals):
        seen.extend(crystals)
        return kin(len(crystals))

    drawn = LearnedGenes(network, critic=Refusing(), kin=found).sample(range(6), 0)
    assert {c.formula for c in drawn} <= {c.formula for c in seen}


class Refusing(GeneCritic):
    """Keeps crystals of at most six atoms."""

    def acceptance(self, batch, kin):
        del kin
        atoms = (self.multiplicity[batch.wyckoff.clamp(min=0)] * (batch.wyckoff >= 0)).sum(dim=1)
        return (atoms <= 6).float()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return GeneNetwork(GeneConfig(width=32, depth=1, heads=2))


def test_refused_crystals_are_drawn_again(network):
    """What the critic never accepts is gone, what it accepts at once is as without it."""
    free = LearnedGenes(network).sample(range(60), 0)
    kept = LearnedGenes(network, critic=Refusing()).sample(range(60), 0)
    small = [c.n_atoms <= 6 for c in free]
    assert 0 < sum(small) < len(free)
    assert np.mean([c.n_atoms <= 6 for c in kept]) > 0.9
    for before, after, same in zip(free, kept, small, strict=True):
        if same:
            assert (before.gene, before.formula) == (after.gene, after.formula)
    assert [c.provenance["index"] for c in kept] == list(range(60))


def test_a_refused_crystal_depends_on_its_own_number_alone(network):
    """Neither batch size nor the first number changes it."""
    prior = LearnedGenes(network, critic=Refusing())
    whole = prior.sample(range(20), 3, config=DrawConfig(batch_size=7))
    part = prior.sample(range(12, 20), 3)
    assert [(c.gene, c.formula) for c in whole[12:]] == [(c.gene, c.formula) for c in part]


def test_genes_without_species_are_not_judged(network):
    """The critic sees whole crystals only."""
    alone = LearnedGenes(network).sample(range(20), 0, species=False)
    judged = LearnedGenes(network, critic=Refusing()).sample(range(20), 0, species=False)
    assert [c.gene for c in alone] == [c.gene for c in judged]
