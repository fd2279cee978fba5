"""AutoPeri-GNN: generate crystals with a symmetry-preserving normalizing flow.

import autoperi
crystals = autoperi.load("mp_20").sample(10, seed=0)
structures = [c.to_structure() for c in crystals]
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoperi.crystals.crystal import Crystal
    from autoperi.generator import CrystalGenerator, load

__all__ = ["Crystal", "CrystalGenerator", "load"]


def __getattr__(name: str) -> Any:
    """Import the public names when first used: ``import autoperi`` stays instant."""
    if name == "Crystal":
        from autoperi.crystals.crystal import Crystal

        return Crystal
    if name in ("CrystalGenerator", "load"):
        from autoperi import generator

        return getattr(generator, name)
    raise AttributeError(f"module 'autoperi' has no attribute {name!r}")
