"""Typed settings: dataclasses from the plain values of TOML and JSON, their types and ranges checked."""

import contextlib
import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

T = typing.TypeVar("T")


class ConfigError(ValueError):
    """A setting that is unknown, of another type or out of range.

    Attributes:
        field: its name with the sections around it, e.g. ``flow.lr``.
    """

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}" if field else text)
        self.field, self.text = field, text

    def within(self, section: str) -> "ConfigError":
        """The same of a field of this section."""
        return ConfigError(".".join(filter(None, (section, self.field))), self.text)


def build(kind: type[T], values: Any) -> T:
    """A (nested) dataclass from plain values; a missing field has its class's default.

    Raises:
        ConfigError: an unknown field, a wrong type, or a value that the class refuses.
    """
    return _constructed(kind, None, values)


def merged(base: T, values: Any) -> T:
    """``base`` with some (nested) fields replaced by plain values; all others stay as they are.

    Raises:
        ConfigError: an unknown field, a wrong type, or a value that the class refuses.
    """
    return _constructed(type(base), base, values)


def merged_from_toml(base: T, path: Path) -> T:
    """``base`` with the fields that a TOML file sets.

    Raises:
        ConfigError: no such file, no TOML, an unknown field, a wrong type, or a value that a class refuses.
    """
    try:
        return merged(base, tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("", f"expected TOML in {path}: {error}") from error
    except OSError as error:
        raise ConfigError("", f"expected a TOML file: got {path} ({error.strerror})") from error
    except ConfigError as error:
        raise ConfigError("", f"{path}: {error}") from error


def check(config: Any, *, positive: Sequence[str] = (), **ranges: tuple[float, float]) -> None:
    """For ``__post_init__``: every field has its type, and numbers are finite and in their range.

    Args:
        config: a dataclass.
        positive: fields whose numbers are above zero.
        ranges: least and largest number of a field.

    Raises:
        ConfigError: what was got and expected.
    """
    for name, hint in _hints(type(config)).items():
        value = getattr(config, name)
        if not _is(value, hint):
            raise ConfigError(name, f"expected {_described(hint)}: got {value!r}")
        if name in positive and not 0 < value < math.inf:
            raise ConfigError(name, f"expected a number above 0: got {value}")
        if name in ranges and isinstance(value, int | float):
            least, most = ranges[name]
            if not least <= value <= most or math.isinf(value):
                wanted = f"of at least {least:g}" if math.isinf(most) else f"between {least:g} and {most:g}"
                raise ConfigError(name, f"expected a number {wanted}: got {value}")


def _constructed(kind: Any, base: Any, values: Any) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError("", f"expected a section of {', '.join(_hints(kind))}: got {values!r}")
    arguments = {}
    for name, value in values.items():
        hint = _hints(kind).get(name)
        if hint is None:
            near = difflib.get_close_matches(name, _hints(kind), 1, 0.5)
            advice = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(name, f"there is no such field{advice}; known: {', '.join(_hints(kind))}")
        try:
            arguments[name] = _converted(hint, value, getattr(base, name, None))
        except ConfigError as error:
            raise error.within(name) from None
    try:
        return kind(**arguments) if base is None else dataclasses.replace(base, **arguments)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError("", str(error)) from error


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}  # type: ignore[arg-type]


def _converted(hint: Any, value: Any, base: Any = None) -> Any:
    """A plain value as its hint says: lists become tuples, tables dataclasses, whole numbers floats."""
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _constructed(hint, base, value)
    if kind in (typing.Union, types.UnionType):
        if isinstance(value, Mapping) and any(map(dataclasses.is_dataclass, parts)):
            return _alternative(parts, value, base)
        for part in parts:
            with contextlib.suppress(ConfigError):
                return _converted(part, value, base)
    if kind is tuple and isinstance(value, list | tuple):
        inner = parts[:1] * len(value) if parts[1:] == (...,) else parts
        if len(inner) == len(value):
            value = tuple(_converted(h, v) for h, v in zip(inner, value, strict=True))
    if kind is dict and isinstance(value, Mapping):
        value = {name: _entry(parts[1], name, part) for name, part in value.items()}
    if kind is float and type(value) is int:
        value = float(value)
    if not _is(value, hint):
        raise ConfigError("", f"expected {_described(hint)}: got {value!r}")
    return value


def _alternative(parts: Sequence[Any], values: Mapping[str, Any], base: Any) -> Any:
    """One of several dataclasses: that of the base, or the first that knows every field."""
    kinds = sorted(filter(dataclasses.is_dataclass, parts), key=lambda kind: type(base) is not kind)
    kind = next((kind for kind in kinds if values.keys() <= _hints(kind).keys()), kinds[0])
    return _constructed(kind, base if type(base) is kind else None, values)


def _entry(hint: Any, name: str, value: Any) -> Any:
    try:
        return _converted(hint, value)
    except ConfigError as error:
        raise error.within(name) from None


def _is(value: Any, hint: Any) -> bool:
    """Whether a value has a type of ours; a bool is no number, a whole number is a float too."""
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is Any:
        return True
    if kind is typing.Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if kind in (typing.Union, types.UnionType):
        return any(_is(value, part) for part in parts)
    if kind is tuple:
        inner = parts[:1] * len(value) if parts[1:] == (...,) and isinstance(value, tuple) else parts
        fits = isinstance(value, tuple) and len(inner) == len(value)
        return fits and all(_is(v, h) for v, h in zip(value, inner, strict=True))
    if kind is dict:
        return isinstance(value, dict) and all(_is(v, parts[1]) for v in value.values())
    if kind in (int, float):
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        return number and not math.isnan(value)
    return isinstance(value, kind)


def _described(hint: Any) -> str:
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is typing.Literal:
        return " or ".join(map(repr, parts))
    if kind in (typing.Union, types.UnionType):
        return " or ".join(_described(part) for part in parts if part is not type(None))
    if kind is tuple:
        if parts[1:] == (...,):
            return f"a list, each {_described(parts[0])}"
        return f"a list of {len(parts)}: {', '.join(map(_described, parts))}"
    if kind is dict:
        return f"a table, each {_described(parts[1])}"
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(
        kind, getattr(kind, "__name__", str(kind))
    )
