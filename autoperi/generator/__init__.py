"""The generator people load: gene priors and flow behind one ``sample``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoperi.generator.settings import SampleConfig

if TYPE_CHECKING:
    from autoperi.generator.config import GeneratorConfig
    from autoperi.generator.crystal_generator import CrystalGenerator
    from autoperi.generator.loading import PRETRAINED, load, save

__all__ = ["PRETRAINED", "CrystalGenerator", "GeneratorConfig", "SampleConfig", "load", "save"]
_HOME = {"CrystalGenerator": "crystal_generator", "GeneratorConfig": "config"}


def __getattr__(name: str) -> Any:
    """Import the networks when first used: settings can be named without them."""
    if name in __all__:
        return getattr(import_module(f"autoperi.generator.{_HOME.get(name, 'loading')}"), name)
    raise AttributeError(f"module 'autoperi.generator' has no attribute {name!r}")
