"""What a crystal is worth: property networks and physics. May import autoperi, never evaluation.

import property_models
model = property_models.load("formation_energy")
table = model.predict(structures)  # value (eV/atom), uncertainty, out_of_domain
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from property_models.model import PropertyModel, load

__all__ = ["PropertyModel", "load"]


def __getattr__(name: str) -> Any:
    """Import the public names when first used: ``import property_models`` stays instant."""
    if name in __all__:
        from property_models import model

        return getattr(model, name)
    raise AttributeError(f"module 'property_models' has no attribute {name!r}")
