"""The flow's training loss: pair noise with data up to symmetry, then match velocities."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.condition import drop_conditions
from autoperi.crystal import CrystalBatch
from autoperi.embedding import known_sites
from autoperi.flow import geodesic_path
from autoperi.layers import sum_by
from autoperi.velocity import LATENT_MANIFOLD, VelocityNetwork, base_point, latent_rows
from autoperi.wyckoff import wyckoff_table

_SHARPEST = 0.1
"""Time to data below which errors of the displacement no longer weigh more."""

SPECIES_WEIGHT = 0.2
"""Weight of the auxiliary cross-entropy on hidden species."""


def nearest_image(batch: CrystalBatch, start: Float[Tensor, "sites 3"]) -> Float[Tensor, "sites 3"]:
    """Free coordinates of the same crystal, each site given by the atom of its orbit nearest to ``start``.

    Every image is the same orbit, and the velocity network treats them alike, so this is an exact coupling
    of the base to the data with shorter, less ambiguous paths (equivariant optimal transport per site;
    idea of Klein et al., arXiv:2306.15030).
    """
    table = wyckoff_table(str(batch.device))
    counts = table.image_start[batch.wyckoff + 1] - table.image_start[batch.wyckoff]
    site = torch.repeat_interleave(torch.arange(batch.n_sites, device=batch.device), counts)
    first = counts.cumsum(0) - counts
    row = table.image_start[batch.wyckoff][site] + torch.arange(len(site), device=site.device) - first[site]
    linear = table.image_linear[row].to(batch.free)
    images = torch.einsum("rij,rj->ri", linear, batch.free[site]) + table.image_shift[row].to(batch.free)
    offset = images - start[site]
    offset = (offset - offset.round()) * batch.free_mask()[site]
    cart = torch.einsum("rij,rj->ri", batch.cartesian_basis()[site], offset)
    squared = cart.square().sum(-1)
    best = squared.new_full((batch.n_sites,), torch.inf).scatter_reduce(0, site, squared, "amin")
    winner = (squared <= best[site]).nonzero().squeeze(-1)
    chosen = torch.zeros(batch.n_sites, dtype=torch.long, device=site.device)
    chosen[site[winner]] = winner
    return images[chosen] % 1.0 * batch.free_mask()


def without_drift(batch: CrystalBatch, rate: Float[Tensor, "sites 3"]) -> Float[Tensor, "sites 3"]:
    """Remove the part of site rates that only shifts the origin along the group's polar directions."""
    table = wyckoff_table(str(batch.device))
    weights = batch.multiplicity().to(rate)[:, None]
    moves = torch.einsum("sij,sj->si", batch.basis(), rate)
    total = sum_by(weights, batch.crystal, batch.n_crystals)
    mean = sum_by(moves * weights, batch.crystal, batch.n_crystals) / total
    drift = torch.einsum("cij,cj->ci", table.polar[batch.space_group].to(rate), mean)
    to_free = table.to_free[batch.wyckoff].to(rate)
    return rate - torch.einsum("sij,sj->si", to_free, drift[batch.crystal]) * batch.free_mask()


def matching_loss(
    network: VelocityNetwork,
    batch: CrystalBatch,
    latents: Float[Tensor, "sites latent"],
    conditions: Float[Tensor, "crystals scalars"],
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Terms of the flow-matching loss (Lipman et al., arXiv:2210.02747, eq. 9).

    They are ``total``, ``latent``, ``sites``, ``lattice`` and ``species``.

    Errors are those of the velocity, held where the time left falls below a tenth. The site term is the
    squared Cartesian error in units of the mean atomic spacing (V/N)^(1/3), per free coordinate.

    Args:
        network: the velocity.
        batch: clean crystals with their species.
        latents: h of the clean crystals, drawn from the encoder.
        conditions: scalar labels, NaN where missing.
        generator: source of all randomness.
    """
    x_0 = base_point(batch, latents.shape[1], generator)
    z_1 = network.scale.from_coords(batch.lattice_coords, batch)
    x_1 = (latents, nearest_image(batch, x_0[1]), z_1)
    t = torch.rand(batch.n_crystals, generator=generator, dtype=z_1.dtype).to(batch.device)
    rows = latent_rows(batch)
    to_h, to_s, to_z = LATENT_MANIFOLD.log(x_0, x_1)
    # a site may go the longer way round once the drift is taken off: the path must go where its target says
    path = geodesic_path(LATENT_MANIFOLD, x_0, (to_h, without_drift(batch, to_s), to_z), t, rows)
    known = known_sites(batch.species, batch.crystal, generator)
    answer = network(t, path.x_t, batch.with_species(known), drop_conditions(conditions, generator))
    left = 1 - t
    dh, ds, dz = (
        (d - u * left[row][:, None]) / left.clamp_min(_SHARPEST)[row][:, None]
        for d, u, row in zip(answer.displacement, path.dx_t, rows, strict=True)
    )
    spacing = (torch.linalg.det(batch.lattice()).abs() / batch.n_atoms()).pow(1 / 3)
    error = torch.einsum("sij,sj->si", batch.cartesian_basis(), ds) / spacing[batch.crystal][:, None]
    hidden = known == 0
    terms = {
        "latent": dh.square().mean(),
        "sites": error.square().sum() / batch.free_mask().sum().clamp_min(1),
        "lattice": dz.square().sum() / batch.lattice_mask().sum(),
        "species": nn.functional.cross_entropy(answer.logits[hidden], batch.species[hidden], reduction="sum")
        / hidden.sum().clamp_min(1),
    }
    total = terms["latent"] + 4 * terms["sites"] + terms["lattice"] + SPECIES_WEIGHT * terms["species"]
    return {"total": total, **terms}
