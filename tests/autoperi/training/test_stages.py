from dataclasses import replace

import pytest
import torch

from autoperi.flow.velocity import VelocityNetwork
from autoperi.networks.autoencoder import Autoencoder
from autoperi.training.stages import FlowTraining
from tests.autoperi.small import TINY_AUTOENCODER, TINY_VELOCITY, largest
from tests.autoperi.training.tiny import SHORT, training, training_set


def test_validation_is_reproducible():
    """Evaluation draws the same noise every time; training does not."""
    data = training_set(8)
    module = training(data).eval()
    with torch.no_grad():
        first, second = (module.loss(data, torch.Generator().manual_seed(0)) for _ in range(2))
        other = module.loss(data, torch.Generator().manual_seed(1))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert largest(first["total"] - other["total"]) > 0


def test_a_set_keeps_its_parts_together():
    """Selecting crystals selects their labels and latents; encoding in chunks is encoding at once."""
    data = training_set(6)
    encoder = Autoencoder(TINY_AUTOENCODER).encoder
    whole, parts = data.encoded(encoder), data.encoded(encoder, chunk=2)
    assert largest(whole.latents.mean - parts.latents.mean) < 1e-5
    some = whole.select(torch.tensor([4, 1]))
    assert len(some) == 2
    assert torch.equal(some.conditions, data.conditions[[4, 1]])
    expected = torch.cat([whole.latents.mean[data.crystals.crystal == i] for i in (4, 1)])
    assert torch.equal(some.latents.mean, expected)


def test_the_flow_needs_latents():
    """Flow training on a set that was not encoded says what to call."""
    data = training_set(2)
    module = FlowTraining(VelocityNetwork(TINY_VELOCITY), SHORT)
    with pytest.raises(ValueError, match=r"call TrainingSet\.encoded"):
        module.loss(data, torch.Generator())
    encoded = data.encoded(Autoencoder(TINY_AUTOENCODER).encoder)
    assert bool(module.loss(encoded, torch.Generator().manual_seed(0))["total"].isfinite())


def test_bfloat16_only_blurs_the_gradient():
    """Mixed precision gives nearly the same direction, and evaluation is untouched by it."""
    data = training_set().encoded(Autoencoder(TINY_AUTOENCODER).encoder)
    network = VelocityNetwork(TINY_VELOCITY)
    gradients = []
    for mixed in (False, True):
        module = FlowTraining(network, replace(SHORT, mixed=mixed)).train()
        network.zero_grad()
        module.loss(data, torch.Generator().manual_seed(0))["total"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert 0.99 < float(torch.cosine_similarity(*gradients, dim=0)) < 1 - 1e-7
    losses = [
        FlowTraining(network, replace(SHORT, mixed=mixed)).eval().loss(data, torch.Generator().manual_seed(0))
        for mixed in (False, True)
    ]
    assert losses[0]["total"] == losses[1]["total"]
