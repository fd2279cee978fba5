"""The flow's training loss: pair starts with data up to symmetry, then match velocities."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.flow.coupling import pair
from autoperi.flow.ode import PathSample, geodesic_path
from autoperi.flow.velocity import LATENT_MANIFOLD, LatentVelocity, base_point, latent_rows
from autoperi.networks.condition import drop_conditions
from autoperi.networks.embedding import LatticeScale, known_sites
from autoperi.networks.layers import sum_by
from autoperi.networks.manifold import Point
from autoperi.networks.physics import Physics

_SHARPEST = 0.1
"""Time to data below which errors of the displacement no longer weigh more."""

_SHARPEST_FROM_RELATIVES = 0.3
"""The same for trajectories that began from relatives: their way has little to do with the time left."""

_SETTLED = 0.7
"""Time from which the crystal that the network believes in is one: before, it is a mean of many."""

SPECIES_WEIGHT = 0.2
"""Weight of the auxiliary cross-entropy on hidden species."""

_START_TIMES = (0.8, 0.98)
"""How far relatives are taken as they are: from here, to here."""


@dataclass(frozen=True)
class RelativeStarts:
    """Relatives from which some crystals of a batch begin, in their places.

    Attributes:
        free: free coordinates.
        lattice_coords: lattice coordinates ℓ.
        latents: h of its sites, with the crystal's own species.
        distance: between the elements of both; infinite where a crystal begins from noise.
    """

    free: Float[Tensor, "sites 3"]
    lattice_coords: Float[Tensor, "crystals 6"]
    latents: Float[Tensor, "sites latent"]
    distance: Float[Tensor, "crystals"]


@dataclass(frozen=True)
class Passage:
    """Crystals on their way from a start: what the velocity network sees, and what it is to say.

    Attributes:
        batch: the crystals at the end, with their species.
        known: species that the network is told, 0 for hidden ones.
        t: time of each.
        point: (h, s, z) there.
        way: from there to the end, in the tangent space.
        distance: of the relative begun from; infinite for noise.
    """

    batch: CrystalBatch
    known: Int[Tensor, "sites"]
    t: Float[Tensor, "crystals"]
    point: Point
    way: Point
    distance: Float[Tensor, "crystals"]

    def to(self, device: torch.device | str) -> "Passage":
        """The same on another device."""
        point, way = (tuple(x.to(device) for x in part) for part in (self.point, self.way))
        others = (self.known.to(device), self.t.to(device), point, way, self.distance.to(device))
        return Passage(self.batch.to(device), *others)


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
    """The path the flow is trained on, at times t, from where it begins to crystals.

    The beginning is paired with the crystal (`pair`) and no path shifts the origin.

    Args:
        noise: where the paths begin; those of equal sites may change places.
        batch: crystals at the end; species tell which sites are equal.
        latents: their h.
        z: their standardised lattice coordinates.
        t: one time in [0, 1] per crystal.
    """
    order, end = pair(batch, noise[1])
    x_0 = (noise[0][order], noise[1][order], noise[2])
    to_h, to_s, to_z = LATENT_MANIFOLD.log(x_0, (latents, end, z))
    # a site may go the longer way round once the drift is taken off: the path must go where its target says
    velocity = (to_h, without_drift(batch, to_s), to_z)
    return geodesic_path(LATENT_MANIFOLD, x_0, velocity, t, latent_rows(batch))


def passage(
    batch: CrystalBatch,
    latents: Float[Tensor, "sites latent"],
    scale: LatticeScale,
    generator: torch.Generator | None = None,
    relatives: RelativeStarts | None = None,
) -> Passage:
    """Crystals at random times of trajectories from noise, or from their relatives.

    A relative is begun from at a late time T, noised as far as data is there, and the straight way from it to
    the crystal takes what is left of the time: at each time the network meets points about as far from data.

    Args:
        batch: clean crystals with their species.
        latents: their h.
        scale: of the lattice coordinates.
        generator: source of all randomness.
        relatives: starts in place of noise.
    """
    start = base_point(batch, latents.shape[1], generator)
    z_1 = scale.from_coords(batch.lattice_coords, batch)

    def random(low: float = 0.0, high: float = 1.0) -> Float[Tensor, "crystals"]:
        drawn = torch.rand(batch.n_crystals, generator=generator, dtype=z_1.dtype).to(batch.device)
        return low + (high - low) * drawn

    # late times, where geometry is decided, come more often (Beta(1.9, 1): Geffner et al., arXiv:2503.00710)
    along = random().pow(1 / 1.9)
    known = known_sites(batch.species, batch.crystal, generator)
    begin, distance = torch.zeros_like(along), torch.full_like(along, torch.inf)
    if relatives is not None:
        near = relatives.distance.isfinite()
        begin = torch.where(near, random(*_START_TIMES), 0.0)
        distance = relatives.distance
        known = torch.where(near[batch.crystal], batch.species, known)
        own = replace(
            batch,
            free=torch.where(near[batch.crystal][:, None], relatives.free, batch.free),
            lattice_coords=torch.where(near[:, None], relatives.lattice_coords, batch.lattice_coords),
        )
        z = scale.from_coords(own.lattice_coords, own)
        start = path_from(start, own, relatives.latents, z, begin).x_t
    path = path_from(start, batch, latents, z_1, along)
    way = tuple(u * (1 - along)[row][:, None] for u, row in zip(path.dx_t, latent_rows(batch), strict=True))
    return Passage(batch, known, begin + (1 - begin) * along, path.x_t, way, distance)


def matching_loss(
    network: LatentVelocity,
    batch: CrystalBatch,
    latents: Float[Tensor, "sites latent"],
    conditions: Float[Tensor, "crystals scalars"],
    generator: torch.Generator | None = None,
    physics: Physics | None = None,
    relatives: RelativeStarts | None = None,
) -> dict[str, Tensor]:
    """Terms of the flow-matching loss at random times (`passage`), see `passage_loss`.

    Args:
        network: the velocity.
        batch: clean crystals with their species.
        latents: h of the clean crystals, drawn from the encoder.
        conditions: scalar labels, NaN where missing.
        generator: source of all randomness.
        physics: added to the total, as the mean over the crystals that the network believes in at t > 0.7.
        relatives: starts in place of noise.
    """
    crystals = passage(batch, latents, network.scale, generator, relatives)
    return passage_loss(network, crystals, drop_conditions(conditions, generator), physics)


def passage_loss(
    network: LatentVelocity,
    crystals: Passage,
    conditions: Float[Tensor, "crystals scalars"],
    physics: Physics | None = None,
) -> dict[str, Tensor]:
    """Terms of the flow-matching loss (Lipman et al., arXiv:2210.02747, eq. 9).

    They are ``total``, ``latent``, ``sites``, ``lattice``, ``species`` and, where asked for, ``physics``.

    Errors are those of the velocity, held where the time left falls below a tenth, on ways from relatives
    below 0.3. The site term is the squared Cartesian error in units of the mean atomic spacing (V/N)^(1/3),
    per free coordinate.

    Args:
        network: the velocity.
        crystals: on their way.
        conditions: scalar labels that the network is told, NaN where missing or hidden.
        physics: see `matching_loss`.
    """
    batch, t, known = crystals.batch, crystals.t, crystals.known
    answer = network(t, crystals.point, batch.with_species(known), conditions, crystals.distance)
    near = crystals.distance.isfinite()
    left = (1 - t).clamp_min(_SHARPEST).where(~near, (1 - t).clamp_min(_SHARPEST_FROM_RELATIVES))
    dh, ds, dz = (
        (d - way) / left[row][:, None]
        for d, way, row in zip(answer.displacement, crystals.way, latent_rows(batch), strict=True)
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
        coords = network.scale.to_coords(crystals.point[2] + answer.displacement[2], batch)
        believed = batch.with_species(known).with_geometry(
            (crystals.point[1] + answer.displacement[1]) % 1.0, coords
        )
        loss = physics(believed.select(late), answer.logits[sites]) if len(late) else total.new_zeros(1)
        terms["physics"] = loss.mean()
        total = total + terms["physics"]
    return {"total": total, **terms}
