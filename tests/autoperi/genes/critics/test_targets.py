"""The critic of targets: histograms of labels, what it learns of them, and chances of windows."""

from dataclasses import replace

import pytest
import torch

from autoperi.crystals.labels import Condition, Window
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.described import LabelledGenes
from autoperi.genes.critics.kin import KIN
from autoperi.genes.critics.targets import TargetConfig, TargetCritic, spread_labels, target_loss
from autoperi.networks.config import ConfigError
from tests.autoperi.small import SOME_GROUPS, small_crystal

CONDITIONS = {"band_gap": Condition("eV", 0.0, 8.0), "formation_energy": Condition("eV/atom", -4.0, 1.0)}
SMALL = TargetConfig(CONDITIONS, width=16, dropout=0.0, members=2)


def made() -> TargetCritic:
    torch.manual_seed(0)
    return TargetCritic(SMALL).eval()


@pytest.fixture(scope="module")
def labelled() -> LabelledGenes:
    """Gaps that follow from the distance of the nearest relative, none where it is near; few other labels."""
    crystals = [small_crystal(group, seed) for group in SOME_GROUPS for seed in range(3)]
    kin = torch.rand(len(crystals), KIN, generator=torch.Generator().manual_seed(0)).sort(dim=1).values
    gaps = (12 * kin[:, 0] - 1).clamp(min=0).tolist()
    told = [replace(c, properties={"band_gap": gap}) for c, gap in zip(crystals, gaps, strict=True)]
    return LabelledGenes(GeneBatch.from_crystals(told, CONDITIONS), kin)


def test_it_learns_what_labels_follow_from(labelled):
    """Medians come near the labels; a label that nobody has moves no weight of its histogram."""
    critic = made()
    critic.standardise(labelled.genes, labelled.kin)
    before = [one[-1].bias[81:].clone() for one in critic.members]
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        target_loss(critic, labelled).backward()
        optimizer.step()
    with torch.no_grad():
        middles = critic.middles(critic(labelled.genes, labelled.kin).exp().mean(dim=0))
    assert (middles[:, 0] - labelled.genes.conditions[:, 0]).abs().mean() < 0.2
    for one, old in zip(critic.members, before, strict=True):
        torch.testing.assert_close(one[-1].bias[81:], old)


def test_labels_are_histograms():
    """Sums of one; what is at the low end or beyond is there alone; the others keep their mean."""
    labels = torch.tensor([[0.0, -9.0], [2.5, -1.0], [99.0, 0.3]])
    edges = made().edges
    spread = spread_labels(labels, edges)
    torch.testing.assert_close(spread.sum(dim=-1), torch.ones(3, 2))
    assert spread[0, :, 0].tolist() == [1.0, 1.0]
    assert spread[1:, :, 0].abs().max() == 0
    centres = (edges[:, 1:] + edges[:, :-1]) / 2
    torch.testing.assert_close((spread[1, :, 1:] * centres).sum(dim=-1), labels[1], atol=0.02, rtol=0)


def test_chances_are_those_of_the_histogram():
    """Of the whole range 1, of parts their sum; metals count where zero lies in the window."""
    critic, crystals = made(), [small_crystal(group, 5) for group in (62, 166, 225)]
    kin = torch.rand(3, KIN, generator=torch.Generator().manual_seed(1)).sort(dim=1).values

    def chance(low: float, high: float) -> torch.Tensor:
        return critic.chances(crystals, kin, {"band_gap": Window(low, high)}).squeeze(1)

    whole = critic.histograms(crystals, kin)[:, 0]
    torch.testing.assert_close(chance(0.0, 8.0), torch.ones(3))
    torch.testing.assert_close(chance(0.0, 1.03) + chance(1.03, 8.0), torch.ones(3))
    torch.testing.assert_close(
        chance(0.0, 0.0), whole[:, 0] + 2.5 * whole[:, 1:].mean(dim=1), atol=2e-2, rtol=0
    )
    torch.testing.assert_close(chance(1.3, 1.3), chance(1.05, 1.55))
    both = critic.chances(crystals, kin, {"formation_energy": Window(-1, 1), "band_gap": Window(2, 3)})
    torch.testing.assert_close(both[:, 1], chance(2, 3))


def test_a_set_is_taken_apart_and_moved(labelled):
    """As training does."""
    part = labelled.select(torch.tensor([3, 1])).to(torch.device("cpu"))
    assert len(part) == 2
    torch.testing.assert_close(part.kin, labelled.kin[[3, 1]])


@pytest.mark.parametrize("wrong", [{"width": 0}, {"members": 0}, {"dropout": -0.1}])
def test_sizes_are_refused(wrong):
    """With their name."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TargetConfig(**wrong)
