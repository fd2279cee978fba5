"""Another trunk is one file: decoder and velocity work on any that answers with the features of orbits."""

from dataclasses import dataclass, replace

import torch

from autoperi.flow.loss import matching_loss
from autoperi.flow.velocity import VelocityNetwork
from autoperi.networks.autoencoder import Autoencoder
from autoperi.networks.layers import mlp, sum_by
from autoperi.networks.trunk import TENSORS, OrbitFeatures, Trunk
from tests.autoperi.small import TINY_AUTOENCODER, TINY_VELOCITY, small_batch


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


def test_autoencoder_and_velocity_train_on_another_trunk():
    """Losses are finite and reach the parameters of the trunk."""
    batch = small_batch().to(dtype=torch.float32)
    autoencoder = Autoencoder(replace(TINY_AUTOENCODER, decoder=BlindConfig()))
    velocity = VelocityNetwork(replace(TINY_VELOCITY, network=BlindConfig()))
    latents = autoencoder.encoder(batch).mean.detach()
    conditions = torch.full((batch.n_crystals, 3), torch.nan)
    for network, terms in (
        (autoencoder.decoder, autoencoder.loss(batch)),
        (velocity, matching_loss(velocity, batch, latents, conditions)),
    ):
        terms["total"].backward()
        assert isinstance(network.trunk, Blind)
        assert network.trunk.site[0].weight.grad.abs().sum() > 0
