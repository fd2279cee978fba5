"""Conditions: nulls, ranges and the difference between zero and small."""

import math

import pytest
import torch

from autoperi.crystals.labels import SCALARS, condition_row
from autoperi.networks.condition import ConditionEmbedding, drop_conditions


def test_row_is_nan_where_nothing_is_asked():
    row = condition_row({"band_gap": 1.5})
    assert row[list(SCALARS).index("band_gap")] == 1.5
    assert sum(math.isnan(v) for v in row) == len(SCALARS) - 1


def test_unknown_condition_is_refused():
    with pytest.raises(ValueError, match="hardness"):
        condition_row({"hardness": 1.0})


def test_dropping_hides_about_seventy_percent_and_changes_nothing_else():
    given = torch.rand(4000, len(SCALARS))
    dropped = drop_conditions(given, torch.Generator().manual_seed(0))
    assert 0.65 < dropped.isnan().float().mean() < 0.75
    assert torch.equal(dropped[~dropped.isnan()], given[~dropped.isnan()])


def test_embedding_is_finite_and_tells_absent_zero_small_and_large_apart():
    torch.manual_seed(0)
    embed = ConditionEmbedding(16)
    rows = torch.full((5, len(SCALARS)), math.nan)
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
