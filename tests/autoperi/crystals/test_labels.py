"""Windows: what people write, what is drawn from it, what is refused."""

import math

import numpy as np
import pytest

from autoperi.crystals.labels import DEFAULT_CONDITIONS, Condition, Window

GAP = Condition("eV", 0.0, 8.0)


@pytest.mark.parametrize(
    ("asked", "low", "high", "target"),
    [
        (1.3, 1.3, 1.3, 1.3),
        (0, 0.0, 0.0, 0.0),
        (np.float32(2.5), 2.5, 2.5, 2.5),
        ("1.3", 1.3, 1.3, 1.3),
        ("-1e-1", -0.1, -0.1, -0.1),
        ("1.1:1.7", 1.1, 1.7, None),
        (" 1.1 : 1.7 ", 1.1, 1.7, None),
        ((1.1, 1.7), 1.1, 1.7, None),
        (":0.1", -math.inf, 0.1, None),
        ("2:", 2.0, math.inf, None),
        ((2, None), 2.0, math.inf, None),
        (Window.around(1.5, 0.25), 1.25, 1.75, 1.5),
    ],
)
def test_a_window_is_read_as_it_is_written(asked, low, high, target):
    window = Window.of(asked)
    assert (window.low, window.high, window.target) == (low, high, target)


@pytest.mark.parametrize(
    "asked",
    [
        "",
        ":",
        "wide",
        "1:2:3",
        "nan",
        "inf",
        "1:-inf",
        "1.1:nan",
        float("nan"),
        None,
        True,
        (1, 2, 3),
        (None, None),
        [1, 2],
    ],
)
def test_what_is_no_window_is_refused(asked):
    with pytest.raises(ValueError, match=r"expected a value \(1.3\), a range .* got"):
        Window.of(asked)


def test_a_window_upside_down_is_refused():
    with pytest.raises(ValueError, match=r"from 2\.0 to 1\.0"):
        Window.of("2:1")


@pytest.mark.parametrize("asked", ["9", "-0.1", "7:9", "-1:", 1e308])
def test_what_lies_beyond_the_model_is_refused(asked):
    with pytest.raises(ValueError, match="from 0 to 8 eV, which the model was made for: got"):
        Window.of(asked).within(GAP)


@pytest.mark.parametrize(
    ("asked", "low", "high"), [(":0.1", 0, 0.1), ("2:", 2, 8), ("1:2", 1, 2), ("0", 0, 0)]
)
def test_open_ends_end_with_the_range(asked, low, high):
    window = Window.of(asked).within(GAP)
    assert (window.low, window.high, window.unit) == (low, high, "eV")


def test_values_are_drawn_uniformly_and_a_target_is_met():
    drawn = np.array([Window.of("2:").within(GAP).draw(np.random.default_rng(i)) for i in range(2000)])
    assert Window.of("2:").hits(drawn).all()
    assert drawn.max() <= 8
    assert np.histogram(drawn, bins=6, range=(2, 8))[0] == pytest.approx(2000 / 6, rel=0.25)
    assert Window.around(1.5, 0.3).draw(np.random.default_rng(0)) == 1.5


def test_known_values_in_the_window_are_drawn():
    """As often as there are of each; none inside, and the window is drawn from uniformly."""
    known = np.array([0.0, 0.0, 2.5, 2.5, 2.5, 4.0, 9.0])
    window = Window.of("2:").within(GAP)
    drawn = np.array([window.draw(np.random.default_rng(i), known) for i in range(2000)])
    assert set(drawn) == {2.5, 4.0}
    assert (drawn == 2.5).mean() == pytest.approx(0.75, abs=0.05)
    assert 5 <= Window(5.0, 6.0).draw(np.random.default_rng(0), known) <= 6
    assert Window.around(1.5, 0.3).draw(np.random.default_rng(0), known) == 1.5


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_a_condition_has_a_range(low, high):
    with pytest.raises(ValueError, match="low < high"):
        Condition("eV", low, high)


def test_what_shipped_weights_were_made_for_cannot_be_changed():
    """Another condition is named in a config; the defaults are those of checkpoints that name none."""
    with pytest.raises(TypeError, match="does not support item assignment"):
        DEFAULT_CONDITIONS["x"] = Condition("", 0.0, 1.0)  # pyright: ignore[reportIndexIssue]
