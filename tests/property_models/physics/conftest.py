import pytest

from property_models.physics.chgnet_potential import CHGNetPotential


@pytest.fixture(scope="session")
def potential() -> CHGNetPotential:
    """CHGNet in float64, for finite differences."""
    return CHGNetPotential().double()
