from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from evaluation.facts.levels import LEVELS
from evaluation.facts.matching import MatchSettings
from evaluation.metric import BootstrapSettings
from evaluation.stability.protocols import PROTOCOLS, SunProtocol, stable_by_level, sun_metrics

FAST = BootstrapSettings(resamples=0)


def measured(name):
    protocol = PROTOCOLS[name]
    return protocol.measured("CHGNet 0.3.0", "MP-20", "mp_20 train", protocol.matcher)


def table():
    return pd.DataFrame(
        {
            "e_above_hull": [-0.02, 0.0, 0.08, 0.09, 0.1, 0.2, np.nan, -0.1, -0.1, -0.1],
            "duplicate_of": pd.array([None] * 7 + ["0", None, None], dtype="string"),
            "reference_twin": pd.array([None] * 8 + [4, None], dtype="Int64"),
            "space_group_loose": pd.array([225, 1, 2, 3, 4, 5, 6, 7, 8, None], dtype="Int16"),
        }
    )


@pytest.mark.parametrize(
    ("name", "stable", "sun", "ssun", "msun"),
    [
        ("cdvae", 5, 3, 1, 3),
        ("wyformer", 6, 4, 2, 2),
        ("mattergen", 8, 6, 4, 0),
        ("strict", 4, 2, 1, 4),
    ],
)
def test_counts_under_each_named_protocol(name, stable, sun, ssun, msun):
    found = {m.name: m for m in sun_metrics(table(), measured(name), bootstrap=FAST)}
    expected = {"stable": stable, "sun": sun, "ssun": ssun, "msun": msun}
    assert {key: round(10 * found[f"{key}_{name}"].value) for key in expected} == expected
    for metric in found.values():
        for part in ("CHGNet 0.3.0", "hull MP-20", "mp_20 train", "eV/atom", "StructureMatcher"):
            assert part in metric.protocol


def test_unreadable_items_stay_in_the_denominator():
    (stable, *_) = sun_metrics(table(), measured("strict"), unreadable=10, bootstrap=FAST)
    assert stable.n == 20
    assert stable.value == pytest.approx(0.2)


@pytest.mark.parametrize(
    "hole",
    [{"relaxer": ""}, {"hull": " "}, {"threshold": float("nan")}, {"reference": ""}, {"matcher": None}],
)
def test_no_sun_without_relaxer_hull_threshold_and_reference(hole):
    (name,) = hole
    with pytest.raises(ValueError, match=f"no S.U.N. without {name}"):
        sun_metrics(table(), replace(measured("wyformer"), **hole))
    with pytest.raises(ValueError, match="relaxer, hull, reference"):
        str(SunProtocol("own", 0.05))


def test_another_matcher_or_a_missing_column_is_refused():
    with pytest.raises(ValueError, match=r"stol=0.5.*got crystals matched by .*stol=0.3"):
        PROTOCOLS["cdvae"].measured("CHGNet", "MP-20", "mp_20", MatchSettings())
    with pytest.raises(ValueError, match="reference_twin"):
        sun_metrics(table().drop(columns="reference_twin"), measured("strict"))


def test_stable_shares_of_the_levels_of_novelty():
    """Of their own crystals each, a failed relaxation not stable."""
    rows = table().assign(novelty_level=["duplicate"] * 4 + ["substitution"] * 3 + ["known_gene"] * 3)
    found = stable_by_level(rows, measured("wyformer"), FAST)
    assert [m.name.removeprefix("stable_wyformer_") for m in found] == list(LEVELS)
    assert [(m.value, m.n) for m in found[:3]] == [(3 / 4, 4), (0, 3), (1, 3)]
    assert (found[3].n, np.isnan(found[3].value)) == (0, True)
    assert "e_above_hull <= 0.08 eV/atom" in found[0].protocol
