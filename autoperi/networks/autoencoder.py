"""The autoencoder: an e3nn encoder of chemical latents and a denoising decoder."""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.crystals.crystal import MAX_Z, CrystalBatch
from autoperi.crystals.graph import orbit_graph
from autoperi.networks.config import check
from autoperi.networks.embedding import known_sites
from autoperi.networks.layers import Interaction, Irreps, RadialBasis, edge_harmonics, mlp, rotate_features
from autoperi.networks.manifold import Point
from autoperi.networks.orbit_network import OrbitNetworkConfig
from autoperi.networks.physics import Physics
from autoperi.networks.trunk import GeometryNetwork


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of encoder and decoder and the noise the decoder is trained against.

    Attributes:
        latent: channels of h.
        irreps: equivariant features of the encoder, l <= 2.
        interactions: e3nn convolutions.
        cutoff: Å, of the encoder.
        radial: radial functions of the encoder.
        decoder: trunk of the decoder.
        noise_site: largest standard deviation of the site displacements in training, Å.
        noise_lattice: largest standard deviation of the noise on z.
        noise_latent: largest standard deviation of the noise on h, beyond the encoder's own.
        kl_weight: weight of KL(q(h) || N(0, 1)).
        geometry_weight: weight of the correction losses.
    """

    latent: int = 8
    irreps: str = "32x0e+12x1o+6x2e"
    interactions: int = 2
    cutoff: float = 5.0
    radial: int = 10
    decoder: OrbitNetworkConfig = field(default_factory=lambda: OrbitNetworkConfig(width=96, layers=3))
    noise_site: float = 0.25
    noise_lattice: float = 0.25
    noise_latent: float = 0.5
    kl_weight: float = 0.01
    geometry_weight: float = 1.0

    def __post_init__(self) -> None:
        check(
            self,
            positive=("cutoff", "noise_site", "noise_lattice"),
            latent=(1, 1024),
            interactions=(1, 64),
            radial=(1, 1024),
            noise_latent=(0, math.inf),
            kl_weight=(0, math.inf),
            geometry_weight=(0, math.inf),
        )


@dataclass(frozen=True)
class Latents:
    """q(h) of every site: independent normals."""

    mean: Float[Tensor, "sites latent"]
    log_std: Float[Tensor, "sites latent"]

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "sites latent"]:
        """One draw, differentiable in mean and spread."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + self.log_std.exp() * noise.to(self.mean.device)

    def kl(self) -> Float[Tensor, "sites"]:
        """KL divergence to the standard normal, in nats per site."""
        variance = (2 * self.log_std).exp()
        return 0.5 * (self.mean.square() + variance - 1 - 2 * self.log_std).sum(-1)


class Encoder(nn.Module):
    """Periodic equivariant GNN, l <= 2, all images in the cutoff -> q(h) per site."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        irreps = Irreps(config.irreps)
        scalars = irreps.count("0e")
        self.species = nn.Embedding(MAX_Z + 1, scalars)
        self.radial = RadialBasis(config.radial, config.cutoff)
        steps = [Irreps(f"{scalars}x0e")] + [irreps for _ in range(config.interactions)]
        self.interactions = nn.ModuleList(
            Interaction(before, after, config.radial)  # pyright: ignore[reportArgumentType]
            for before, after in pairwise(steps)
        )
        self.scalars = scalars
        self.out = mlp(2 * scalars, 64, 2 * config.latent)

    def forward(self, batch: CrystalBatch) -> Latents:
        """Encode crystals with known species."""
        graph = orbit_graph(batch, self.config.cutoff)
        radial, _ = self.radial(graph.distance)
        edge = edge_harmonics(graph.vector)
        first = self.species(batch.species)
        features = first
        for layer in self.interactions:
            assert isinstance(layer, Interaction)
            atoms = rotate_features(features[graph.atoms.site], layer.irreps_in, graph.rotation)
            features = layer(features, atoms, graph.site, graph.atom, edge, radial)
        mean, log_std = self.out(torch.cat([first, features[:, : self.scalars]], -1)).chunk(2, -1)
        return Latents(mean, log_std.clamp(-4, 1))


@dataclass(frozen=True)
class Decoded:
    """A decoded crystal and how it was corrected."""

    logits: Float[Tensor, "sites 101"]
    step: Point
    """(Δs, Δz) towards the clean crystal."""


class Decoder(GeometryNetwork):
    """(gene, h, s, z), all as noisy as the flow delivers them -> species and corrections of s and z."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config.decoder, config.latent)
        width = config.decoder.width
        self.species = mlp(width + config.latent, width, MAX_Z + 1)

    def forward(self, point: Point, genes: CrystalBatch) -> Decoded:
        """Decode; species known in ``genes`` are used, geometry in it is not."""
        h, _, z = point
        batch, features = self.features(point, genes)
        pull = self.lattice_row(features, z)
        return Decoded(
            logits=self.species(torch.cat([features.scalars, h], -1)),
            step=(batch.tangent(self.arrows(features)), 0.1 * pull * batch.lattice_mask()),
        )

    def correct(self, point: Point, genes: CrystalBatch) -> Point:
        """The point after one correction."""
        h, s, z = point
        ds, dz = self(point, genes).step
        return h, (s + ds) % 1.0, z + dz


class Autoencoder(nn.Module):
    """Encoder and decoder, trained together; the flow runs on what lies between them."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def loss(
        self, batch: CrystalBatch, generator: torch.Generator | None = None, physics: Physics | None = None
    ) -> dict[str, Tensor]:
        """Terms of the training loss: ``total``, ``species``, ``kl``, ``sites`` (Å²), ``lattice``.

        The decoder is told some species, as in sampling, and must read the others from h. Noise levels are
        drawn per crystal. ``physics`` adds a term of that name: its mean over the corrected crystals.
        """
        latents = self.encoder(batch)
        level = torch.rand(batch.n_crystals, 1, generator=generator).to(batch.free)
        at_site = level[batch.crystal]
        h = latents.sample(generator)
        h = h + self.config.noise_latent * at_site * _randn(h, generator)
        move = self.config.noise_site * at_site * _randn(batch.free, generator)
        ds = batch.tangent(move)
        z = self.decoder.scale.from_coords(batch.lattice_coords, batch)
        dz = self.config.noise_lattice * level * _randn(z, generator) * batch.lattice_mask()
        known = known_sites(batch.species, batch.crystal, generator)
        genes = batch.with_species(known)
        hidden = known == 0
        decoded = self.decoder((h, (batch.free + ds) % 1.0, z + dz), genes)
        error = batch.cartesian_basis() @ (decoded.step[0] + ds)[..., None]
        terms = {
            "species": nn.functional.cross_entropy(
                decoded.logits[hidden], batch.species[hidden], reduction="sum"
            )
            / hidden.sum().clamp_min(1),
            "kl": latents.kl().mean(),
            "sites": error.square().sum() / batch.free_mask().sum().clamp_min(1),
            "lattice": (decoded.step[1] + dz).square().sum() / batch.lattice_mask().sum(),
        }
        geometry = (
            terms["sites"] / self.config.noise_site**2 + terms["lattice"] / self.config.noise_lattice**2
        )
        total = (
            terms["species"] + self.config.kl_weight * terms["kl"] + self.config.geometry_weight * geometry
        )
        if physics is not None:
            coords = self.decoder.scale.to_coords(z + dz + decoded.step[1], genes)
            corrected = genes.with_geometry((batch.free + ds + decoded.step[0]) % 1.0, coords)
            terms["physics"] = physics(corrected, decoded.logits).mean()
            total = total + terms["physics"]
        return {"total": total, **terms}


def _randn(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
