"""Physics that steers the flow while it samples."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from autoperi.crystals.crystal import MAX_Z, CrystalBatch
from autoperi.flow.sampler import FlowModel
from autoperi.networks.manifold import Point
from property_models.physics.losses import Loss
from property_models.potentials import distilled
from property_models.potentials.potential import ELEMENTS

_LAST = 0.02
"""Time to data below which the push no longer grows, as that of the velocity."""
_FARTHEST = 0.5
"""By how much the target may be shifted at most: a site and, by strain, a neighbour in Å; h in its unit."""


def soft_species(
    logits: Float[Tensor, "sites 101"], known: Int[Tensor, "sites"]
) -> Float[Tensor, "sites elements"]:
    """Weights of the elements 1-94 on each site: certain where the species is known, else of the decoder.

    Args:
        logits: of the decoder or of the flow, one for each atomic number from 0.
        known: atomic numbers, 0 = unknown.

    Raises:
        ValueError: a known species beyond plutonium.
    """
    if bool((known > ELEMENTS).any()):
        raise ValueError(f"expected atomic numbers up to {ELEMENTS}: got {int(known.max())}")
    weights = logits[:, 1 : ELEMENTS + 1].softmax(-1)
    return torch.where((known > 0)[:, None], one_hot((known - 1).clamp_min(0), ELEMENTS).to(weights), weights)


def energy_guidance(model: FlowModel, strength: float) -> "Guidance":
    """Down the energy (eV/atom) of the shipped potential, with a strength in Å²/eV.

    With given species the hull below it does not move.

    Raises:
        CheckpointError: damaged weights.
        ValueError: a strength that is not a positive number.
    """
    if not 0 < strength < math.inf:
        raise ValueError(f"expected a strength of physics (--physics) above 0, usually 0.01: got {strength}")
    device = next(model.parameters()).device
    return Guidance(distilled.load().to(device).energy, model, strength)


@dataclass(frozen=True)
class Guidance:
    """A guide of ``FlowModel.draw`` that lowers a loss.

    The flow heads for the crystal it believes in, ``v = (x_1 - x_t) / (1 - t)``. The guide shifts that
    crystal down the loss, ``x_1 - strength ∇L(x_t)``, as gradients of a classifier shift the mean of a
    diffusion step (Dhariwal and Nichol, arXiv:2105.05233, algorithm 1). ∇ is taken in the metric of the mean
    square move of atoms, by strain of neighbours, in Å (and likewise in h): strength means the same for any
    cell, gene and number of atoms.

    Attributes:
        loss: one number per crystal, e.g. a ``PhysicsLoss``; per atom if it is extensive otherwise.
        model: the flow that is steered; its decoder reads soft species off the latents.
        strength: Å² per unit of the loss; 0 computes nothing.
        start: time before which nothing is done: crystals are noise then.
    """

    loss: Loss
    model: FlowModel
    strength: float
    start: float = 0.5

    def __call__(self, t: Tensor, point: Point, genes: CrystalBatch) -> Point:
        """The push at time t, zero where nothing is free; never beyond 0.5 Å/(1 - t) on a site."""
        if self.strength == 0 or float(t) < self.start:
            return tuple(torch.zeros_like(x) for x in point)
        batch, (dh, ds, dz) = self._gradient(point, genes)
        # N/m: a site moves m atoms of N
        per_atom = batch.n_atoms().to(ds)[batch.crystal, None] / batch.multiplicity()[:, None]
        cart = batch.cartesian_basis()
        gram = cart.transpose(-1, -2) @ cart + torch.diag_embed(1 - batch.free_mask())
        move = torch.linalg.solve(gram, ds * per_atom) * batch.free_mask()
        arrow = torch.einsum("sij,sj->si", cart, move)
        # a strain moves neighbours by itself times their distance (V/N)^(1/3); z is ℓ over its spread
        spacing = (torch.linalg.det(batch.lattice()).abs() / batch.n_atoms()).pow(1 / 3)[:, None]
        spread = self.model.velocity.scale.spread[batch.family()].to(dz)
        stretch = dz / (spread * spacing) * batch.lattice_mask()
        scale = -self.strength / (1 - t).clamp_min(_LAST)
        return (
            scale * dh * per_atom * self._shrink(dh * per_atom),
            scale * move * self._shrink(arrow),
            scale * stretch / (spread * spacing) * self._shrink(stretch),
        )

    @torch.enable_grad()
    def _gradient(self, point: Point, genes: CrystalBatch) -> tuple[CrystalBatch, list[Tensor]]:
        """The crystals at a point, and ∂L/∂(h, s, z)."""
        leaves = [x.detach().clone().requires_grad_() for x in point]
        batch = genes.with_geometry(leaves[1], self.model.velocity.scale.to_coords(leaves[2], genes))
        unknown = bool((genes.species == 0).any())
        logits = (
            self.model.autoencoder.decoder((leaves[0], leaves[1], leaves[2]), genes).logits
            if unknown
            else leaves[1].new_zeros(genes.n_sites, MAX_Z + 1)
        )
        total = self.loss(batch, soft_species(logits, genes.species)).sum()
        found = torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else [None] * 3
        slopes = [
            torch.zeros_like(x) if g is None else g.nan_to_num() for x, g in zip(leaves, found, strict=True)
        ]
        plain = batch.with_geometry(batch.free.detach(), batch.lattice_coords.detach())
        return plain, slopes

    def _shrink(self, gradient: Tensor) -> Float[Tensor, "rows 1"]:
        """What a row is multiplied with so that ``strength`` times it is no longer than 0.5."""
        length = abs(self.strength) * gradient.norm(dim=-1, keepdim=True)
        return (_FARTHEST / length.clamp_min(_FARTHEST)).nan_to_num()
