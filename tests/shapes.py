"""The checker of annotations while tests run: beartype, to which an int is a float, as to other checkers."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
