"""Another trunk is one file: decoder and velocity work on any that answers with the features of orbits."""

from dataclasses import dataclass

import torch

from autoperi.networks.layers import mlp, sum_by
from autoperi.networks.trunk import TENSORS, GeometryNetwork, OrbitFeatures, Trunk
from tests.autoperi.small import small_batch


@dataclass(frozen=True)
class BlindConfig:
    width: int = 8
    vectors: int = 2

    def trunk(self, site_inputs, crystal_inputs):
        return Blind(self, site_inputs, crystal_inputs)


class Blind(Trunk):
    """Sees no geometry: the least that a trunk can be."""

    def __init__(self, config, site_inputs, crystal_inputs):
        super().__init__()
        self.vectors = config.vectors
        self.site = mlp(site_inputs, config.width, config.width)
        self.crystal = mlp(crystal_inputs, config.width, config.width)

    def forward(self, batch, site_inputs, crystal_inputs):
        scalars = self.site(site_inputs)
        crystal = self.crystal(crystal_inputs) + sum_by(scalars, batch.crystal, batch.n_crystals)
        vectors = scalars.new_zeros(len(scalars), 3, self.vectors)
        return OrbitFeatures(scalars, vectors, crystal, scalars.new_zeros(batch.n_crystals, TENSORS, 3, 3))


def test_heads_work_on_another_trunk():
    """Shapes hold, the geometry is that of the point, and gradients reach the trunk."""
    batch = small_batch().to(dtype=torch.float32)
    network = GeometryNetwork(BlindConfig(), latent=3, more=2)
    z = network.scale.from_coords(batch.lattice_coords, batch)
    point = (torch.randn(batch.n_sites, 3), batch.free, z)
    moved, features = network.features(point, batch, [torch.randn(batch.n_crystals, 2)])
    assert isinstance(network.trunk, Blind)
    assert network.arrows(features).shape == (batch.n_sites, 3)
    torch.testing.assert_close(moved.lattice_coords, batch.lattice_coords, atol=1e-4, rtol=1e-4)
    network.lattice_row(features, z).square().sum().backward()
    assert network.trunk.site[0].weight.grad.abs().sum() > 0
