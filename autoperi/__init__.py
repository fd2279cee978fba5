"""AutoPeri-GNN: generate crystals with a symmetry-preserving normalizing flow.

import autoperi
crystals = autoperi.load("mp_20").sample(10, seed=0)
structures = [c.to_structure() for c in crystals]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoperi.crystals.crystal import Crystal, CrystalBatch
    from autoperi.crystals.labels import Condition, Window
    from autoperi.crystals.symmetry import SymmetriseConfig, symmetrise
    from autoperi.data.dataset import CrystalDataset, load_dataset
    from autoperi.data.files import read_crystals, write_crystals
    from autoperi.flow.settings import FlowSettings, Restart, Solver
    from autoperi.generator import CrystalGenerator, SampleConfig, load
    from autoperi.genes.request import GeneRequest
    from autoperi.genes.settings import DrawConfig

_HOME = {
    "Condition": "autoperi.crystals.labels",
    "Crystal": "autoperi.crystals.crystal",
    "CrystalBatch": "autoperi.crystals.crystal",
    "CrystalDataset": "autoperi.data.dataset",
    "CrystalGenerator": "autoperi.generator",
    "DrawConfig": "autoperi.genes.settings",
    "FlowSettings": "autoperi.flow.settings",
    "GeneRequest": "autoperi.genes.request",
    "Restart": "autoperi.flow.settings",
    "SampleConfig": "autoperi.generator",
    "Solver": "autoperi.flow.settings",
    "SymmetriseConfig": "autoperi.crystals.symmetry",
    "Window": "autoperi.crystals.labels",
    "load": "autoperi.generator",
    "load_dataset": "autoperi.data.dataset",
    "read_crystals": "autoperi.data.files",
    "symmetrise": "autoperi.crystals.symmetry",
    "write_crystals": "autoperi.data.files",
}

__all__ = [
    "Condition",
    "Crystal",
    "CrystalBatch",
    "CrystalDataset",
    "CrystalGenerator",
    "DrawConfig",
    "FlowSettings",
    "GeneRequest",
    "Restart",
    "SampleConfig",
    "Solver",
    "SymmetriseConfig",
    "Window",
    "load",
    "load_dataset",
    "read_crystals",
    "symmetrise",
    "write_crystals",
]


def __getattr__(name: str) -> Any:
    """Import the public names when first used: ``import autoperi`` stays instant."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'autoperi' has no attribute {name!r}")
