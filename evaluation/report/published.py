"""Figures that other papers print, each with its source and protocol: never mixed with measured ones."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from evaluation.metric import Metric


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper.

    Attributes:
        title: the task.
        source: paper.
        protocol: how the figures were computed, as far as the paper says.
        n: samples per model; None when not stated.
        columns: metric names as this package writes them where the definition agrees, with " %" when the
            figures are per cent.
        rows: figures by model, as printed; None where there is none, text for a range.
    """

    title: str
    source: str
    protocol: str
    n: int | None
    columns: Sequence[str]
    rows: Mapping[str, Sequence[float | str | None]]

    def metrics(self, model: str) -> dict[str, Metric]:
        """A model's figures as metrics without intervals; shares as fractions, ranges left out."""
        protocol = f"published, {self.source}: {self.protocol}"
        found = {}
        for column, value in zip(self.columns, self.rows[model], strict=True):
            if isinstance(value, int | float):
                name, scale = column.removesuffix(" %"), 0.01 if column.endswith(" %") else 1.0
                found[name] = Metric(name, scale * value, None, None, self.n or 0, "as published", protocol)
        return found


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """All tables of published.json."""
    text = (files("evaluation.report") / "published.json").read_text(encoding="utf-8")
    return tuple(PublishedTable(**entry) for entry in json.loads(text))
