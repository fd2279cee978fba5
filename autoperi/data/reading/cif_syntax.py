"""The syntax of CIF: data blocks of values and loops (Hall, Allen & Brown, Acta Cryst. A47 (1991) 655)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from autoperi.data.reading.rows import MAX_TEXT, ReadError

_TOKEN = re.compile(
    r"""^;[\s\S]*?(?:\n;|\Z)                  # text field
      | '[^'\n]*(?:'(?=\S)[^'\n]*)*(?:'|$)    # a quote ends before a blank
      | "[^"\n]*(?:"(?=\S)[^"\n]*)*(?:"|$)
      | \#[^\n]*
      | \S+""",
    re.MULTILINE | re.VERBOSE,
)
_CELL = "_cell_length_a"
_KEYWORDS = ("loop_", "data_", "save_")


@dataclass
class Block:
    """One data block.

    Attributes:
        values: of the names that stand alone, in lower case with dots as underscores.
        loops: column names and values, row after row; the last row may be cut off.
    """

    values: dict[str, str] = field(default_factory=dict)
    loops: list[tuple[list[str], list[str]]] = field(default_factory=list)

    def text(self, *names: str) -> str:
        """The first of the names that is stated, or the empty string; ``?`` and ``.`` state nothing."""
        return next((v for n in names if (v := self.values.get(n, "?")) not in ("?", ".", "")), "")

    def loop(self, *names: str) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the loop that has one of the names; a single item is a loop of one row.

        Raises:
            ReadError: its last row is cut off.
        """
        for name in names:
            for columns, values in self.loops:
                if name in columns:
                    n = len(columns)
                    if len(values) % n:
                        last = " ".join(values[len(values) - len(values) % n :])[:80]
                        raise ReadError(
                            f"expected {n} values per row of {name}: got {last!r}; the CIF is cut off"
                        )
                    return columns, [values[i : i + n] for i in range(0, len(values), n)]
            if name in self.values:
                stem = name.rsplit("_", 1)[0] if "_atom_site_" not in name else "_atom_site_"
                alone = {key: value for key, value in self.values.items() if key.startswith(stem)}
                return list(alone), [list(alone.values())]
        return [], []


def parse_block(text: str) -> Block:
    """The data block of a text; of several blocks the first that has a cell."""
    blocks = [Block()]
    tokens = iter(_TOKEN.findall(text))
    loop: tuple[list[str], list[str]] | None = None
    name = ""
    for token in tokens:
        first = token[0]
        if first == "#":
            continue
        if first == "_":
            key = token.lower().replace(".", "_")
            if loop is not None and not loop[1]:
                loop[0].append(key)
            else:
                loop, name = None, key
            continue
        if first in "'\";":
            value = _unquoted(token)
        else:
            value = token
            if first in "lLdDsS" and (keyword := token[:5].lower()) in _KEYWORDS:
                loop, name = None, ""
                if keyword == "loop_":
                    loop = ([], [])
                    blocks[-1].loops.append(loop)
                elif keyword == "data_":
                    blocks.append(Block())
                continue
        if loop is not None:
            loop[1].append(value)
        elif name:  # values of several words, not quoted, stand side by side
            known = blocks[-1].values.get(name)
            blocks[-1].values[name] = value if known is None else f"{known} {value}"
    return next((block for block in blocks if _CELL in block.values), blocks[-1])


def _unquoted(token: str) -> str:
    if token[0] == ";":
        return token[1:].removesuffix("\n;").strip()
    return token[1:-1] if len(token) > 1 and token[-1] == token[0] else token[1:]


def crystal_blocks(lines: Iterable[str]) -> Iterator[str]:
    """The text cut before every data block that follows a cell: one piece a crystal, all if there is none.

    Raises:
        ReadError: more text than one crystal can have.
    """
    piece: list[str] = []
    length, pieces = 0, 0
    in_field = has_cell = False
    for line in lines:
        if line.startswith(";"):
            in_field = not in_field
        elif not in_field and has_cell and line[:5].lower() == "data_":
            yield "".join(piece)
            piece, length, has_cell, pieces = [], 0, False, pieces + 1
        has_cell = has_cell or _CELL in line.lower()
        piece.append(line)
        length += len(line)
        if length > MAX_TEXT:
            raise ReadError(f"expected {MAX_TEXT} characters at most of one crystal: got more")
    if has_cell or not pieces:
        yield "".join(piece)
