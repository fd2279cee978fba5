"""One set of readers for all rooms: files of any origin to structures, and a reason for all that is none."""

from autoperi.data.reading.containers import whole_file
from autoperi.data.reading.readers import (
    Failure,
    ReadResult,
    Sample,
    as_read_result,
    iterate_rows,
    parse_row,
    parse_text,
    read_groups,
    read_structures,
)
from autoperi.data.reading.rows import ReadError, Row

__all__ = [
    "Failure",
    "ReadError",
    "ReadResult",
    "Row",
    "Sample",
    "as_read_result",
    "iterate_rows",
    "parse_row",
    "parse_text",
    "read_groups",
    "read_structures",
    "whole_file",
]
