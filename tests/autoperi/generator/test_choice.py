"""Which drawn genes are refused before geometry, and what is said where none can be."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autoperi.crystals.labels import DEFAULT_CONDITIONS, Window
from autoperi.crystals.symmetry import symmetrise
from autoperi.flow.relatives import Relatives
from autoperi.generator.choice import chosen_by
from autoperi.generator.settings import SampleConfig
from autoperi.genes.critics.kin import KIN
from autoperi.genes.critics.stability import StabilityConfig, StabilityCritic
from autoperi.genes.critics.targets import TargetConfig, TargetCritic
from autoperi.genes.empirical import EmpiricalGenes
from tests.prototypes import prototype


@pytest.fixture(scope="module")
def crystals():
    return [replace(symmetrise(prototype(n)), id=n) for n in ("NaCl", "CsCl", "CaF2 fluorite", "GaAs")]


@pytest.fixture(scope="module")
def parts(crystals):
    """A critic calibrated on four crystals, their relatives and genes; the last is not in training."""
    torch.manual_seed(0)
    critic = StabilityCritic(StabilityConfig(width=8, members=1)).eval()
    relatives = Relatives.from_crystals(crystals[:3])
    critic.calibrate(crystals, relatives.distances(crystals, KIN))
    return critic, None, relatives, EmpiricalGenes.from_crystals(crystals[:3])


def test_the_better_half_is_kept(crystals, parts):
    """By default, and as asked; nothing is refused at 0."""
    for asked, kept in ((None, 2), (0.5, 2), (0.75, 1)):
        excess = chosen_by(SampleConfig(stability=asked), *parts)
        assert excess is not None
        assert sum(miss <= 0 for miss in excess(crystals)) == kept
    assert chosen_by(SampleConfig(stability=0.0), *parts) is None


def test_known_crystals_are_refused(crystals, parts):
    """Formula and gene together; another formula of a known gene is new."""
    excess = chosen_by(SampleConfig(stability=0.0, novel=True), *parts)
    assert excess is not None
    potassium = replace(crystals[0], species=crystals[0].species + np.array([8, 0]))
    assert excess([*crystals, potassium]) == [*[float("inf")] * 3, 0.0, 0.0]


def test_without_a_critic_nothing_is_refused_unless_asked(parts):
    """A checkpoint of one's own draws as ever."""
    assert chosen_by(SampleConfig(), None, *parts[1:]) is None
    with pytest.raises(ValueError, match="no critic of stability: ask for stability 0"):
        chosen_by(SampleConfig(stability=0.5), None, *parts[1:])
    with pytest.raises(ValueError, match="cannot tell what is novel"):
        chosen_by(SampleConfig(novel=True), None, None, None, None)


@pytest.mark.parametrize("other", [{"genes": "empirical"}, {"species": "flow"}])
def test_other_ways_of_drawing_are_not_chosen_from(parts, other):
    """Silently by default, with a word where it was asked for."""
    assert chosen_by(SampleConfig(**other), *parts) is None
    with pytest.raises(ValueError, match="expected learned genes"):
        chosen_by(SampleConfig(stability=0.5, **other), *parts)


def test_the_likeliest_to_meet_what_is_asked_for_are_kept(crystals, parts):
    """A chance as asked is enough; below, the less likely misses more; nothing foretold, nothing chosen."""
    torch.manual_seed(0)
    critic = TargetCritic(
        TargetConfig({"band_gap": DEFAULT_CONDITIONS["band_gap"]}, width=8, members=1)
    ).eval()
    _, _, relatives, training = parts
    windows = {"band_gap": Window(0.0, 4.0)}
    chances = critic.chances(crystals, relatives.distances(crystals, KIN), windows).squeeze(1).tolist()
    least = sorted(chances)[1]
    config = SampleConfig(stability=0.0, likely=least)
    excess = chosen_by(config, None, critic, relatives, training, windows)
    assert excess is not None
    missed = excess(crystals)
    assert sum(miss <= 0 for miss in missed) == 3
    assert np.argmax(missed) == np.argmin(chances)
    for idle, asked in (
        (replace(config, likely=0.0), windows),
        (config, {}),
        (config, {"other": Window(0, 1)}),
    ):
        assert chosen_by(idle, None, critic, relatives, training, asked) is None
    assert chosen_by(config, None, None, relatives, training, windows) is None
