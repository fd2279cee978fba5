"""The levels of novelty by name, the least new first; imports nothing, as commands show them as help."""

from typing import Literal, get_args

Level = Literal["duplicate", "substitution", "known_gene", "new_gene"]
LEVELS: tuple[Level, ...] = get_args(Level)
