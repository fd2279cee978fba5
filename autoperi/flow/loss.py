"""The flow's training loss: pair noise with data up to symmetry, then match velocities."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.flow.coupling import pair
from autoperi.flow.ode import PathSample, geodesic_path
from autoperi.flow.velocity import LATENT_MANIFOLD, LatentVelocity, base_point, latent_rows
from autoperi.networks.condition import drop_conditions
from autoperi.networks.embedding import known_sites
from autoperi.networks.layers import sum_by
from autoperi.networks.manifold import Point
from autoperi.networks.physics import Physics

_SHARPEST = 0.1
"""Time to data below which errors of the displacement no longer weigh more."""

_SETTLED = 0.7
"""Time from which the crystal that the network believes in is one: before, it is a mean of many."""

SPECIES_WEIGHT = 0.2
"""Weight of the auxiliary cross-entropy on hidden species."""


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


def path_from(
    noise: Point,
    batch: CrystalBatch,
    latents: Float[Tensor, "sites latent"],
    z: Float[Tensor, "crystals 6"],
    t: Float[Tensor, "crystals"],
) -> PathSample:
    """The path the flow is trained on, at times t, from base points to crystals.

    Noise is paired with the crystal (`pair`) and no path shifts the origin.

    Args:
        noise: base points; noise of equal sites may change places.
        batch: crystals at the end; species tell which sites are equal.
        latents: their h.
        z: their standardised lattice coordinates.
        t: one time in [0, 1] per crystal.
    """
    start, end = pair(batch, noise[1])
    x_0 = (noise[0], start, noise[2])
    to_h, to_s, to_z = LATENT_MANIFOLD.log(x_0, (latents, end, z))
    # a site may go the longer way round once the drift is taken off: the path must go where its target says
    velocity = (to_h, without_drift(batch, to_s), to_z)
    return geodesic_path(LATENT_MANIFOLD, x_0, velocity, t, latent_rows(batch))


def matching_loss(
    network: LatentVelocity,
    batch: CrystalBatch,
    latents: Float[Tensor, "sites latent"],
    conditions: Float[Tensor, "crystals scalars"],
    generator: torch.Generator | None = None,
    physics: Physics | None = None,
) -> dict[str, Tensor]:
    """Terms of the flow-matching loss (Lipman et al., arXiv:2210.02747, eq. 9).

    They are ``total``, ``latent``, ``sites``, ``lattice``, ``species`` and, where asked for, ``physics``.

    Errors are those of the velocity, held where the time left falls below a tenth. The site term is the
    squared Cartesian error in units of the mean atomic spacing (V/N)^(1/3), per free coordinate.

    Args:
        network: the velocity.
        batch: clean crystals with their species.
        latents: h of the clean crystals, drawn from the encoder.
        conditions: scalar labels, NaN where missing.
        generator: source of all randomness.
        physics: added to the total, as the mean over the crystals that the network believes in at t > 0.7.
    """
    noise = base_point(batch, latents.shape[1], generator)
    z_1 = network.scale.from_coords(batch.lattice_coords, batch)
    # late times, where geometry is decided, come more often (Beta(1.9, 1): Geffner et al., arXiv:2503.00710)
    t = torch.rand(batch.n_crystals, generator=generator, dtype=z_1.dtype).to(batch.device).pow(1 / 1.9)
    path = path_from(noise, batch, latents, z_1, t)
    known = known_sites(batch.species, batch.crystal, generator)
    answer = network(t, path.x_t, batch.with_species(known), drop_conditions(conditions, generator))
    left = 1 - t
    dh, ds, dz = (
        (d - u * left[row][:, None]) / left.clamp_min(_SHARPEST)[row][:, None]
        for d, u, row in zip(answer.displacement, path.dx_t, latent_rows(batch), strict=True)
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
    if physics is not None:
        late = (t > _SETTLED).nonzero().squeeze(-1)
        sites, _ = batch.site_rows(late)
        coords = network.scale.to_coords(path.x_t[2] + answer.displacement[2], batch)
        believed = batch.with_species(known).with_geometry(
            (path.x_t[1] + answer.displacement[1]) % 1.0, coords
        )
        loss = physics(believed.select(late), answer.logits[sites]) if len(late) else total.new_zeros(1)
        terms["physics"] = loss.mean()
        total = total + terms["physics"]
    return {"total": total, **terms}
