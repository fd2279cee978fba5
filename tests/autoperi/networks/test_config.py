from dataclasses import dataclass, field
from typing import Literal

import pytest

from autoperi.networks.config import ConfigError, build, check, merged, merged_from_toml


@dataclass(frozen=True)
class _Inner:
    width: int = 1
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        check(self, positive=("rate",), width=(1, 100))


@dataclass(frozen=True)
class _Outer:
    name: str = "x"
    inner: _Inner = field(default_factory=lambda: _Inner(width=7, rate=0.1))
    maybe: int | None = None
    extra: _Inner | None = None
    processes: int | Literal["auto"] = "auto"
    parts: tuple[str, ...] = ()
    ends: tuple[float, float] = (0.0, 1.0)
    windows: dict[str, tuple[float, float]] = field(default_factory=dict)


def test_a_part_keeps_its_sisters():
    """What is not set stays as in the base, at any depth, and not as the class has it."""
    base = _Outer(name="base", inner=_Inner(width=9, rate=0.2, kind="b"))
    found = merged(base, {"inner": {"rate": 2}})
    assert found == _Outer(name="base", inner=_Inner(width=9, rate=2.0, kind="b"))
    assert type(found.inner.rate) is float
    assert merged(base, {}) == base
    assert build(_Outer, {"inner": {"rate": 2}}).inner == _Inner(rate=2.0)


def test_plain_values_become_what_the_hints_say():
    values = {
        "maybe": 3,
        "extra": {"width": 2},
        "processes": 4,
        "parts": ["p", "q"],
        "ends": [1, 2.5],
        "windows": {"gap": [0, 1]},
    }
    found = build(_Outer, values)
    assert found.parts == ("p", "q")
    assert (found.extra, found.maybe, found.processes) == (_Inner(width=2), 3, 4)
    assert (found.ends, found.windows) == ((1.0, 2.5), {"gap": (0.0, 1.0)})
    assert build(_Outer, {"processes": "auto", "maybe": None}) == _Outer()


@dataclass(frozen=True)
class _Deep:
    depth: int = 2


@dataclass(frozen=True)
class _Either:
    part: _Inner | _Deep = field(default_factory=lambda: _Inner(rate=0.1))


def test_of_several_parts_the_one_with_these_fields_is_meant():
    """The base's own where it has them all, and for a typo; else the first that has."""
    for start in (merged, lambda base, values: build(type(base), values)):
        assert start(_Either(), {"part": {"depth": 3}}).part == _Deep(3)
    assert merged(_Either(), {"part": {"width": 3}}).part == _Inner(width=3, rate=0.1)
    assert merged(_Either(_Deep(5)), {"part": {}}).part == _Deep(5)
    with pytest.raises(ConfigError, match=r"part\.widht: there is no such field; did you mean 'width'"):
        merged(_Either(), {"part": {"widht": 3}})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"inner": {"width": "three"}}, "inner.width: expected a whole number: got 'three'"),
        ({"inner": {"width": 3.0}}, "inner.width: expected a whole number: got 3.0"),
        ({"inner": {"width": True}}, "inner.width: expected a whole number: got True"),
        ({"inner": {"width": 0}}, "inner.width: expected a number between 1 and 100: got 0"),
        ({"inner": {"rate": -1.0}}, "inner.rate: expected a number above 0: got -1.0"),
        ({"inner": {"rate": float("nan")}}, "inner.rate: expected a number: got nan"),
        ({"inner": {"rate": float("inf")}}, "inner.rate: expected a number above 0: got inf"),
        ({"inner": {"kind": "other"}}, "inner.kind: expected 'a' or 'b': got 'other'"),
        ({"inner": {"widht": 3}}, "inner.widht: there is no such field; did you mean 'width'?"),
        ({"inner": 3}, "inner: expected a section of width, rate, kind: got 3"),
        ({"extra": {"kidn": "a"}}, "extra.kidn: there is no such field; did you mean 'kind'?"),
        ({"processes": "all"}, "processes: expected a whole number or 'auto': got 'all'"),
        ({"parts": "abc"}, "parts: expected a list, each a text: got 'abc'"),
        ({"parts": [1]}, "parts: expected a text: got 1"),
        ({"ends": [1.0]}, "ends: expected a list of 2: a number, a number: got [1.0]"),
        ({"windows": {"gap": [0]}}, "windows.gap: expected a list of 2"),
        ({"zzz": 1}, "zzz: there is no such field; known: name, inner"),
    ],
)
def test_what_does_not_fit_is_named_with_its_section(values, text):
    """One line: section and field, what was expected, what was got; the nearest name of a typo."""
    for act in (lambda: merged(_Outer(), values), lambda: build(_Outer, values)):
        with pytest.raises(ConfigError) as refused:
            act()
        assert str(refused.value).startswith(text)
        assert "\n" not in str(refused.value)


def test_python_is_checked_too():
    with pytest.raises(ConfigError, match="width: expected a whole number: got 'three'"):
        _Inner(width="three")  # pyright: ignore[reportArgumentType]


def test_toml_names_its_file(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text("[inner]\nrate = 3\n")
    assert merged_from_toml(_Outer(), file).inner == _Inner(width=7, rate=3.0)
    for content, text in (
        ("[inner]\nrate = 'x'\n", r"recipe\.toml: inner\.rate: expected a number: got 'x'"),
        ("a = = 1", r"expected TOML in .*recipe\.toml"),
    ):
        file.write_text(content)
        with pytest.raises(ConfigError, match=text):
            merged_from_toml(_Outer(), file)
    with pytest.raises(ConfigError, match=r"expected a TOML file: got .*missing\.toml \(No such file"):
        merged_from_toml(_Outer(), tmp_path / "missing.toml")
