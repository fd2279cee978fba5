import numpy as np
import pytest

from autoperi.crystals.labels import Window
from autoperi.discovery.campaign.discovery import SHARDS, discover, ranking
from autoperi.discovery.campaign.funnel import Funnel
from autoperi.discovery.campaign.shard import DRAWS, Shard
from tests.autoperi.discovery.campaign.campaigns import campaign, in_order, shard


def shuffled(numbers):
    return np.random.default_rng(1).permutation(numbers[:8]).tolist()


@pytest.mark.parametrize("order", [list, shuffled, lambda numbers: numbers[7::-1]])
def test_what_is_found_does_not_depend_on_who_is_first(order):
    """The first ten, in the order of their numbers; then the best come first."""
    found = discover(campaign(), 10, executor=in_order(order))
    assert found.ended == "found"
    assert {c.id for c in found.crystals} == {f"{s * DRAWS + k:06d}" for s in (0, 1) for k in range(4)} | {
        f"{3 * DRAWS + k:06d}" for k in range(2)
    }
    heights = [c.properties["e_above_hull"] for c in found.crystals]
    assert heights == sorted(heights)
    assert found.table()["rank"].tolist() == list(range(1, 11))
    assert [(p.stage, p.left) for p in found.funnel.stages] == [
        ("drawn", 360),
        ("stable", 12),
        ("returned", 10),
    ]


def test_a_crystal_that_two_shards_bring_is_returned_once():
    def execute(_, numbers):
        for number in numbers:
            yield Shard(number, shard(0).funnel, shard(0).crystals)

    found = discover(campaign(), 5, draws=4 * DRAWS, executor=execute)
    assert found.ended == "draws"
    assert len(found.crystals) == 4


def test_finished_shards_are_not_done_again(tmp_path):
    """Those of a run that was interrupted; the result is that of one that was not."""
    asked = []

    def interrupted(_, __):
        yield shard(1)
        yield shard(0)
        raise KeyboardInterrupt

    def counted(_, numbers):
        for number in numbers:
            asked.append(number)
            yield shard(number)

    with pytest.raises(KeyboardInterrupt):
        discover(campaign(), 10, executor=interrupted, folder=tmp_path)
    found = discover(campaign(), 10, executor=counted, folder=tmp_path)
    assert asked == [2, 3]
    whole = discover(campaign(), 10, executor=in_order(list))
    assert found.table().equals(whole.table())
    assert found.funnel == whole.funnel


def test_a_damaged_shard_is_named(tmp_path):
    discover(campaign(), 2, executor=in_order(list), folder=tmp_path)
    (file,) = (tmp_path / SHARDS).glob("*.json")
    file.write_text("{")
    with pytest.raises(ValueError, match=r"000000.json is damaged: delete it"):
        discover(campaign(), 2, executor=in_order(list), folder=tmp_path)


def test_a_lost_shard_is_told_and_tried_again(tmp_path):
    def losing(_, numbers):
        for number in numbers:
            yield Shard(number, Funnel(), [], "was killed") if number == 0 else shard(number)

    found = discover(campaign(), 4, executor=losing, folder=tmp_path)
    assert found.failures == [("0", "shard", "was killed")]
    assert {c.id[:4] for c in found.crystals} == {"0001"}
    again = discover(campaign(), 4, executor=in_order(list), folder=tmp_path)
    assert not again.failures
    assert {c.id[:4] for c in again.crystals} == {"0000"}


def test_time_and_draws_end_a_campaign(monkeypatch):
    """With what was found so far."""
    assert discover(campaign(), 100, draws=250, executor=in_order(list)).funnel.drawn == 300
    clock = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    found = discover(campaign(), 100, budget=2.5, executor=in_order(list))
    assert found.ended == "budget"
    assert 0 < len(found.crystals) < 12


@pytest.mark.parametrize("wrong", [{"n": 0}, {"draws": 0}, {"budget": 0.0}, {"rank": "beauty"}])
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        discover(campaign(), **{"n": 1, **wrong}, executor=in_order(list))


def test_what_crystals_are_ordered_by():
    """Height: the worse of two; a window: its middle, or how far inside."""
    one = shard(0).crystals[0]
    told = {
        "e_above_hull": -0.3,
        "predicted_e_above_hull": 0.01,
        "predicted_band_gap": 1.2,
        "predicted_band_gap_chance": 0.6,
    }
    crystal = type(one)(**{**vars(one), "properties": told})
    windows = (("band_gap", Window.of("1:2")),)
    assert ranking(campaign(), "e_above_hull")(crystal) == 0.01
    assert ranking(campaign(windows=windows), "band_gap")(crystal) == pytest.approx(0.3)
    assert ranking(campaign(windows=(("band_gap", Window.of("1:")),)), "band_gap")(crystal) == -1.2
    assert ranking(campaign(windows=(("band_gap", Window.of(":2")),)), "band_gap")(crystal) == 1.2
    assert ranking(campaign(windows=(("bulk_modulus", Window.of("1:")),)), "bulk_modulus")(crystal) == np.inf
    assert ranking(campaign(windows=windows), "chance")(crystal) == -0.6
    assert ranking(campaign(), "atoms")(crystal) == crystal.n_atoms


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stable": float("nan")}, "finite height"),
        ({"known": ()}, "known crystals"),
        ({"windows": (("band_gap", Window.of("1.3")),)}, r"a range of band_gap, e.g. 1.1:1.5"),
    ],
)
def test_a_campaign_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        campaign(**wrong)
