"""Seeded work: a crystal that is there already is edited, led to another one, or led to a property."""

from autoperi.discovery.seeded.edit import Kept, edit_table, edited
from autoperi.discovery.seeded.seed import read_seed

__all__ = ["Kept", "edit_table", "edited", "read_seed"]
