"""The checker of annotations while tests run: beartype, to which an int is a float, as to other checkers.

Imported before the rooms, whose modules it then checks.
"""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
install_import_hook(["autoperi", "property_models", "evaluation"], "tests.shapes.checked")
