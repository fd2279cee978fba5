import pytest

from property_models.potentials.chgnet_potential import CHGNetPotential


@pytest.fixture(scope="session")
def potential() -> CHGNetPotential:
    """CHGNet in float64, for finite differences."""
    return CHGNetPotential().double()
