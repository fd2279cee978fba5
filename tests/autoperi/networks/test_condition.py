"""Conditions: nulls, ranges and the difference between zero and small."""

import math

import pytest
import torch

from autoperi.crystals.labels import DEFAULT_CONDITIONS, Condition, condition_row
from autoperi.networks.condition import ConditionEmbedding, drop_conditions


def test_row_is_nan_where_nothing_is_asked():
    row = condition_row({"band_gap": 1.5}, DEFAULT_CONDITIONS)
    assert row[list(DEFAULT_CONDITIONS).index("band_gap")] == 1.5
    assert sum(math.isnan(v) for v in row) == len(DEFAULT_CONDITIONS) - 1


def test_unknown_condition_is_refused():
    with pytest.raises(ValueError, match="hardness"):
        ConditionEmbedding(4).targets([{"hardness": 1.0}])


def test_dropping_hides_about_seventy_percent_and_changes_nothing_else():
    given = torch.rand(4000, len(DEFAULT_CONDITIONS))
    dropped = drop_conditions(given, torch.Generator().manual_seed(0))
    assert 0.65 < dropped.isnan().float().mean() < 0.75
    assert torch.equal(dropped[~dropped.isnan()], given[~dropped.isnan()])


def test_embedding_is_finite_and_tells_absent_zero_small_and_large_apart():
    torch.manual_seed(0)
    embed = ConditionEmbedding(16)
    rows = torch.full((5, len(DEFAULT_CONDITIONS)), math.nan)
    rows[1:, 0] = torch.tensor([0.0, 0.01, 3.0, 1e6])
    out = embed(rows)
    assert out.isfinite().all()
    distance = torch.cdist(out, out) + torch.eye(5)
    assert distance.min() > 0.05
    assert torch.equal(out[0], torch.zeros(16))
    assert torch.allclose(embed(rows[3:4]), out[3:4])
    beyond = rows[4:].clone()
    beyond[0, 0] = 8.0
    assert torch.allclose(embed(beyond), out[4:])


def test_conditions_go_by_their_names():
    """A value is embedded by its own rows, and what was learned moves with its name."""
    torch.manual_seed(0)
    old = ConditionEmbedding(8)
    torch.nn.init.normal_(old.null)
    more = {"energy_per_atom": Condition("eV/atom", -10.0, 0.0), **dict(reversed(DEFAULT_CONDITIONS.items()))}
    new = ConditionEmbedding(8, more)
    with torch.no_grad():
        new.null[0] = 0
    new.keep(old)
    asked = [{"band_gap": 1.5}, {"e_above_hull": 0.1, "formation_energy": -1.0}, {}]
    assert torch.allclose(new(new.targets(asked).values), old(old.targets(asked).values), atol=1e-6)
    with pytest.raises(ValueError, match=r"got \['energy_per_atom'\]"):
        old.targets([{"energy_per_atom": -3.0}])


def test_guidance_counts_only_where_something_is_asked():
    embed = ConditionEmbedding(4)
    assert not embed.targets([{}, {}], 2.0).guided
    assert not embed.targets([{"band_gap": 1.0}], 1.0).guided
    assert embed.targets([{}, {"band_gap": 1.0}], 2.0).guided
    assert not embed.targets([{}, {"band_gap": 1.0}], 2.0).select([0]).guided


def test_a_condition_not_yet_learned_says_nothing_and_can_be_learned():
    """Asked of a network that kept its weights, it must not push at random."""
    torch.manual_seed(0)
    old = ConditionEmbedding(4)
    new = ConditionEmbedding(4, {**DEFAULT_CONDITIONS, "energy_per_atom": Condition("eV/atom", -10.0, 0.0)})
    new.keep(old)
    rows = torch.tensor([[1.0, math.nan, 0.1, -3.0], [1.0, math.nan, 0.1, math.nan]])
    torch.testing.assert_close(new(rows), old(rows[:, :3]))
    new(rows).square().sum().backward()
    assert new.project.grad is not None
    assert new.project.grad[3].abs().sum() > 0
