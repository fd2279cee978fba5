"""CSV tables with a crystal in one column, and labels without crystals (``id_prop.csv`` of CGCNN)."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

from autoperi.data.reading.cif_syntax import crystal_blocks
from autoperi.data.reading.rows import ID_NAMES, TEXT_NAMES, NoCrystalsError, Row, labels

ID_PROP = "id_prop.csv"
"""Table of names and labels beside the files of a CGCNN data set, without a header."""
_MARKS = ("_cell_length_a", '"lattice', "'lattice", "lattice_mat")
"""Text of a crystal holds one of these, whatever its column is called."""


def csv_rows(stream: io.TextIOBase, stem: str, name: str) -> Iterator[Row]:
    """The rows of a table; labels are its numeric columns."""
    for _, row in records(stream, stem, name):
        yield row


def records(stream: io.TextIOBase, stem: str, name: str) -> Iterator[tuple[dict[str, str], Row]]:
    """The rows of a table beside all their cells.

    Raises:
        NoCrystalsError: no column holds crystals.
    """
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(stream)
    columns = [c for c in reader.fieldnames or [] if c is not None]
    lower = {c.strip().lower(): c for c in reversed(columns)}
    text_column = next((lower[known] for known in TEXT_NAMES if known in lower), "")
    id_column = next((lower[known] for known in ID_NAMES if known in lower), None)
    if id_column is None and columns and columns[0].strip().lower() in ("", "unnamed: 0"):
        id_column = columns[0]  # the row names that spreadsheets and pandas write
    for number, record in enumerate(reader):
        if not text_column:
            crystals = (c for c in columns if any(mark in (record[c] or "") for mark in _MARKS))
            text_column = next(crystals, "")
        if not text_column:
            raise NoCrystalsError(
                f"expected a column {', '.join(TEXT_NAMES)} or one of CIF text: got columns {columns}"
            )
        text = record[text_column] or ""
        given = (record[id_column] if id_column is not None else None) or f"{stem}-{number}"
        numbers = labels({k: v for k, v in record.items() if k and k.strip().lower() not in TEXT_NAMES})
        where = f"{name}, row {number}"
        if not text.strip():
            error = f"no text in column {text_column!r}; the row is empty or cut off"
            yield record, Row(given, "", numbers, where, error)
            continue
        several = text.count("_cell_length_a") > 1
        blocks = list(crystal_blocks(text.splitlines(keepends=True))) if several else [text]
        for k, block in enumerate(blocks):
            yield record, Row(given if len(blocks) == 1 else f"{given}-{k}", block, numbers, where)


def listed_labels(stream: io.TextIOBase) -> dict[str, dict[str, float]]:
    """Labels by file name from an ``id_prop.csv``: ``target``, or ``target_1``, ``target_2`` … of several."""
    found = {}
    for words in csv.reader(stream):
        if words and words[0].strip():
            values = words[1:]
            names = ["target"] if len(values) == 1 else [f"target_{k}" for k in range(1, len(words))]
            found[words[0].strip()] = labels(dict(zip(names, values, strict=True)))
    return found


def labels_of(file: str, listed: dict[str, dict[str, float]]) -> tuple[str, dict[str, float]] | None:
    """The name under which an ``id_prop.csv`` lists a file, and its labels; None if it does not."""
    name = PurePosixPath(file).name
    return next(((key, listed[key]) for key in (name, name.rsplit(".", 1)[0]) if key in listed), None)
