"""Seeded work: a crystal that is there already is edited, led to another one, or led to a property."""

from autoperi.discovery.seeded.edit import Kept, edit_table, edited
from autoperi.discovery.seeded.interpolate import Way, path, path_picture, path_table, way_between
from autoperi.discovery.seeded.optimise import (
    Goal,
    Means,
    NothingLedError,
    foretold_by,
    likeliest,
    optimised,
    walk_picture,
    walk_table,
)
from autoperi.discovery.seeded.seed import read_seed

__all__ = [
    "Goal",
    "Kept",
    "Means",
    "NothingLedError",
    "Way",
    "edit_table",
    "edited",
    "foretold_by",
    "likeliest",
    "optimised",
    "path",
    "path_picture",
    "path_table",
    "read_seed",
    "walk_picture",
    "walk_table",
    "way_between",
]
