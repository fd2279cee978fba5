"""Ids as text for people and programs: one line, names of files, cells of a table."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_LONGEST = 120
"""Bytes of a file's name, well below the 255 of most file systems: endings are added to it."""
_FEW = 3
"""Ids that stand for many."""
_FORMULA = re.compile(r"'*[=+\-@]")


def one_line(text: str) -> str:
    r"""A text as one line of printable characters.

    Line breaks and tabs become blanks; what a terminal would obey or no file can hold (escape sequences,
    other control characters, bytes that are no UTF-8) is spelt out, ``\x1b``.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else _spelt(c) for c in text)


def unique_ids(ids: Iterable[str], nameless: str = "crystal") -> list[str]:
    """Ids as one line each, no two alike: empty ones are numbered, repeated ones too.

    An id that occurs once stays what it is, also where another, numbered, would have become it.
    """
    given = [one_line(i) for i in ids]
    first: dict[str, int] = {}
    for k, name in enumerate(given):
        first.setdefault(name, k)
    taken = set(given) - {""}
    unique = []
    for k, name in enumerate(given):
        base = name or f"{nameless}-{k:05d}"
        unique.append(base if name and first[name] == k else _numbered(base, taken, again=bool(name)))
    return unique


def counted(ids: Sequence[str], what: str) -> str:
    """How many there are of something, and the first few of them: ``3 without a label (a, b, c)``."""
    few = ", ".join([*ids[:_FEW], *["…"] * (len(ids) > _FEW)])
    return f"{len(ids)} {what}" + (f" ({one_line(few)})" if few else "")


def file_names(ids: Sequence[str]) -> list[str]:
    """A name of a file for each id: safe on any file system, at most 120 bytes, no two alike.

    Letters, digits and ``-_.+`` stay, everything else becomes ``_``. An id that is such a name keeps it;
    others that would fall together, in upper or lower case, are numbered.
    """
    safe = [_safe(name) for name in ids]
    taken: set[str] = set()
    names: list[str | None] = []
    for given, name in zip(ids, safe, strict=True):
        keeps = given == name and _folded(name) not in taken
        if keeps:
            taken.add(_folded(name))
        names.append(name if keeps else None)
    return [own or _free(name, taken) for own, name in zip(names, safe, strict=True)]


def without_formulas(table: "pd.DataFrame") -> "pd.DataFrame":
    """A table to be written as CSV, in which no text is a formula to a spreadsheet.

    A text that begins with ``= + - @`` and is no number gets an apostrophe in front, as spreadsheets
    write such texts themselves; ``with_formulas`` takes it away again. Every text is one line.
    """
    return _each_text(table, _guarded)


def with_formulas(table: "pd.DataFrame") -> "pd.DataFrame":
    """The texts of a table that was written ``without_formulas``, as they were."""
    return _each_text(table, _bare)


def _each_text(table: "pd.DataFrame", change: Callable[[str], str]) -> "pd.DataFrame":
    """A table with its texts changed; columns of numbers and their kinds are what they were."""
    changed = table.copy()
    for column in table.columns[[dtype.kind not in "biuf" for dtype in table.dtypes]]:
        cells = [change(cell) if isinstance(cell, str) else cell for cell in table[column]]
        changed[column] = type(table[column])(cells, index=table.index, dtype=table[column].dtype)
    return changed


def _spelt(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def _numbered(base: str, taken: set[str], again: bool) -> str:
    name, count = (f"{base}-2", 3) if again else (base, 2)
    while name in taken:
        name, count = f"{base}-{count}", count + 1
    taken.add(name)
    return name


def _safe(name: str, longest: int = _LONGEST) -> str:
    kept = "".join(c if c.isalnum() or c in "-_.+" else "_" for c in name)
    return kept.encode()[:longest].decode(errors="ignore").lstrip(".") or "_"


def _folded(name: str) -> str:
    """What a file system that ignores case and forms of accents sees."""
    return unicodedata.normalize("NFKC", name).casefold()


def _free(name: str, taken: set[str]) -> str:
    free, count = name, 2
    while _folded(free) in taken:
        ending = f"-{count}"
        free, count = _safe(name, _LONGEST - len(ending)) + ending, count + 1
    taken.add(_folded(free))
    return free


def _guarded(text: str) -> str:
    text = one_line(text)
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def _bare(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
