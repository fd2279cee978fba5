import math

import pytest

from autoperi.crystals.symmetry import symmetrise
from property_models.uses.screen import stable_within
from tests.prototypes import prototype


def test_only_crystals_near_the_hull_are_kept():
    """Rock salt is on it; rock salt of neon is not, nor is anything that has no prediction."""
    salt = symmetrise(prototype("NaCl"))
    squeezed = symmetrise(prototype("NaCl").copy().scale_lattice(prototype("NaCl").volume * 0.5))
    kept, refused = stable_within(0.1)([salt, squeezed])
    assert not isinstance(kept, str)
    assert abs(kept.properties["predicted_e_above_hull"]) < 0.1
    assert kept.properties["predicted_e_above_hull_uncertainty"] > 0
    assert refused == "predicted more than 0.1 eV/atom above the hull"


def test_a_limit_is_a_number():
    with pytest.raises(ValueError, match="expected a finite height above the hull"):
        stable_within(math.nan)
