"""The generator as one object: gene prior, encoder, flow and decoder, sampled together."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import starmap

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.graph import orbit_graph
from autoperi.crystals.labels import DEFAULT_CONDITIONS, Condition
from autoperi.crystals.precision import single_precision
from autoperi.flow.loss import path_from
from autoperi.flow.noise import seeded_noise, seeded_signs
from autoperi.flow.ode import Velocity, exact_divergence, hutchinson_divergence, log_prob, sample_flow
from autoperi.flow.settings import FlowSettings, Solver
from autoperi.flow.starts import NOISE, Begin
from autoperi.flow.steering import Guide, Hold, guided
from autoperi.flow.velocity import (
    LATENT_MANIFOLD,
    VelocityConfig,
    VelocityNetwork,
    latent_masks,
    latent_rows,
)
from autoperi.networks.autoencoder import Autoencoder, AutoencoderConfig, Latents
from autoperi.networks.condition import Targets
from autoperi.networks.layers import sum_by
from autoperi.networks.manifold import Point

_SHORTEST_BOND = 0.7
"""Å; the bond of H2 has 0.74."""
_ATTEMPTS = 5
"""Draws before a crystal is left with atoms that overlap."""
_SETTLING = 0.02
"""Time of a step along the guide alone: as much before 1 as a guide is felt."""
_FRESH = 1 << 16
"""Keeps the noise of further draws apart from that of restarts."""
_SIGNS = 1 << 17
"""Keeps the probes of the log-density apart from all noise."""
_EXACT = 48
"""Coordinates up to which the trace of the Jacobian is exact: six sites and their cell."""
_PROBES = 16
LIKELIHOOD_SOLVER = Solver("rk4", steps=20, crowding=2.0)
"""Of the log-density."""


@dataclass(frozen=True)
class LogDensity:
    """Log-densities of crystals in nats.

    Attributes:
        value: the log-density, or the mean of its estimates.
        error: standard error of that mean; 0 where the trace is exact. The integrator's error is not in it.
    """

    value: Float[Tensor, "crystals"]
    error: Float[Tensor, "crystals"]


class FlowModel(nn.Module):
    """Autoencoder and velocity: geometry given genes, and the latent space both ways."""

    def __init__(
        self,
        autoencoder: AutoencoderConfig,
        velocity: VelocityConfig,
        conditions: Mapping[str, Condition] = DEFAULT_CONDITIONS,
    ) -> None:
        super().__init__()
        self.autoencoder = Autoencoder(autoencoder)
        self.velocity = VelocityNetwork(velocity, conditions)

    @single_precision()
    @torch.no_grad()
    def draw(
        self,
        genes: Sequence[Crystal],
        seed: int,
        targets: Targets | None = None,
        settings: FlowSettings | None = None,
        keys: Sequence[tuple[int, ...]] | None = None,
        guide: Guide | None = None,
        begins: Sequence[Begin] | None = None,
    ) -> list[Crystal]:
        """Free coordinates, lattice and unknown species of genes; order and provenance are kept.

        A trajectory begins at the time of its own of ``begins``: at 0 from noise, later from the geometry
        that the gene itself has, noised as far (species must be known then).

        Gene i takes its noise from (seed, *keys[i]) alone (i where no keys are given), so neither batch
        size nor neighbours matter. The first number of a key is the crystal's.
        Crystals of like size are integrated together. ``guide`` steers the flow; symmetry is kept exactly.
        What is held of the geometry that a gene has (`Begin`) is there in the end, to single precision.
        A crystal in which atoms meet is drawn again from other noise, up to four times: two orbits in one
        place are another gene than the one asked for.
        """
        settings = settings or FlowSettings()
        targets = targets or self._nothing(len(genes))
        keys = [(seed, *key) for key in (keys or [(i,) for i in range(len(genes))])]
        begins = begins or [NOISE] * len(genes)
        drawn = self._draw(genes, keys, targets, settings, guide, begins)
        for attempt in range(1, _ATTEMPTS):
            again = [i for i, (_, overlaps) in enumerate(drawn) if overlaps]
            if not again:
                break
            fresh, own = [(*keys[i], _FRESH, attempt) for i in again], [genes[i] for i in again]
            anew = [Begin(held=begins[i].held) for i in again]
            redrawn = self._draw(own, fresh, targets.select(again), settings, guide, anew)
            for i, crystal in zip(again, redrawn, strict=True):
                drawn[i] = crystal
        return [
            replace(
                crystal,
                id=gene.id,
                properties=gene.properties,
                provenance={**gene.provenance, "seed": seed, "index": key[1]},
            )
            for gene, key, (crystal, _) in zip(genes, keys, drawn, strict=True)
        ]

    def _draw(
        self,
        genes: Sequence[Crystal],
        keys: Sequence[tuple[int, ...]],
        targets: Targets,
        settings: FlowSettings,
        guide: Guide | None,
        begins: Sequence[Begin],
    ) -> list[tuple[Crystal, bool]]:
        """Each crystal drawn once, from the noise of its key, and whether two of its atoms overlap."""
        drawn: dict[int, tuple[Crystal, bool]] = {}
        for time in sorted({begin.time for begin in begins}):
            begun = [i for i, begin in enumerate(begins) if begin.time == time]
            order = sorted(begun, key=lambda i: genes[i].n_sites * genes[i].n_atoms)
            for start in range(0, len(order), settings.batch_size):
                part = order[start : start + settings.batch_size]
                batch = self._collate([genes[i] for i in part])
                seeds, own = [keys[i] for i in part], targets.select(part)
                done = self._integrate(batch, seeds, own, settings, guide, [begins[i] for i in part])
                drawn |= zip(
                    part,
                    zip(done.to("cpu").to_crystals(), _overlapping(done).tolist(), strict=True),
                    strict=True,
                )
        return [drawn[i] for i in range(len(genes))]

    @single_precision()
    @torch.no_grad()
    def trajectory(
        self, genes: Sequence[Crystal], seed: int, settings: FlowSettings | None = None
    ) -> list[CrystalBatch]:
        """The crystals at every solver time, from noise to data, before any restart or correction."""
        settings = settings or FlowSettings()
        batch = self._collate(genes)
        noise = seeded_noise(batch, [(seed, i) for i in range(len(genes))], self.velocity.config.latent)
        velocity = self._field(batch, self._nothing(len(genes)))
        points = sample_flow(velocity, LATENT_MANIFOLD, noise, settings.solver)
        return [self._crystals_at(p, batch) for p in points]

    @single_precision()
    @torch.no_grad()
    def encode(self, crystals: Sequence[Crystal], batch_size: int = 128) -> list[Latents]:
        """q(h) of each crystal's sites."""
        out = []
        for start in range(0, len(crystals), batch_size):
            part = crystals[start : start + batch_size]
            latents = self.autoencoder.encoder(self._collate(part))
            counts = [c.n_sites for c in part]
            pairs = zip(latents.mean.split(counts), latents.log_std.split(counts), strict=True)
            out += [Latents(mean, log_std) for mean, log_std in pairs]
        return out

    @single_precision()
    @torch.no_grad()
    def decode(
        self, latents: Sequence[Latents], crystals: Sequence[Crystal], passes: int = 1
    ) -> list[Crystal]:
        """Crystals from latent means, genes and (possibly noisy) geometry; species are read from h."""
        batch = self._collate(crystals)
        h = torch.cat([x.mean for x in latents]).to(batch.free)
        z = self.velocity.scale.from_coords(batch.lattice_coords, batch)
        blank = batch.with_species(torch.zeros_like(batch.species))
        return self._finish((h, batch.free, z), blank, passes).to("cpu").to_crystals()

    @single_precision()
    def log_prob(
        self,
        crystals: Sequence[Crystal],
        solver: Solver = LIKELIHOOD_SOLVER,
        probes: int | None = None,
        seed: int = 0,
        conditions: Mapping[str, float] | None = None,
        batch_size: int = 64,
        indices: Sequence[int] | None = None,
        workers: int = 1,
    ) -> LogDensity:
        """Log p(h, s, ℓ | gene, species) in nats, at the encoder's mean latents.

        The trace of the Jacobian is exact for crystals of at most 48 free coordinates, at one backward pass
        for each. For larger ones it is estimated by sixteen probes of crystal i from (seed, indices[i]) (i
        where no indices are given), so that neither batch nor neighbours matter.

        Args:
            crystals: with known species.
            solver: of the likelihood integral.
            probes: of every crystal, at least two; 0 takes the exact trace of every crystal.
            seed: of the probes.
            conditions: scalars the density is conditioned on.
            batch_size: crystals integrated together; does not change the result.
            indices: numbers of the crystals.
            workers: threads.
        """
        if probes is not None and (probes < 0 or probes == 1):
            raise ValueError(f"expected no probes, or at least two for a standard error: got {probes}")
        dimensions = [self.velocity.config.latent * c.n_sites + c.n_free + 6 for c in crystals]
        numbers = range(len(crystals)) if indices is None else indices
        value, error = torch.zeros(2, len(crystals), dtype=next(self.velocity.parameters()).dtype)
        order = sorted(range(len(crystals)), key=lambda i: dimensions[i])
        exact = [i for i in order if (dimensions[i] <= _EXACT if probes is None else probes == 0)]
        estimated = order[len(exact) :]
        counts = ((exact, 0), (estimated, _PROBES if probes is None else probes))
        size = batch_size if workers == 1 else max(1, min(batch_size, len(crystals) // (2 * workers)))
        parts = [(g[i : i + size], count) for g, count in counts for i in range(0, len(g), size)]

        def found(part: list[int], count: int) -> None:
            signs = [(seed, numbers[i], _SIGNS) for i in part] if count else []
            own = self._log_prob([crystals[i] for i in part], solver, count, signs, conditions or {})
            value[part] = own.mean(0).cpu().to(value)
            if count:
                error[part] = (own.std(0) / count**0.5).cpu().to(error)

        if workers == 1:
            list(starmap(found, parts))
        else:
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                list(pool.map(lambda part: found(*part), reversed(parts)))  # the largest first
        return LogDensity(value, error)

    def _log_prob(
        self,
        crystals: Sequence[Crystal],
        solver: Solver,
        probes: int,
        seeds: Sequence[tuple[int, ...]],
        conditions: Mapping[str, float],
    ) -> Float[Tensor, "estimates crystals"]:
        """Estimates of the log-density, one for each probe, or the exact one alone."""
        batch = self._collate(crystals)
        with torch.no_grad():
            h = self.autoencoder.encoder(batch).mean
        scale = self.velocity.scale
        point = (h, batch.free, scale.from_coords(batch.lattice_coords, batch))
        masks, rows = latent_masks(batch, h.shape[1]), latent_rows(batch)
        asked = self.velocity.conditions.targets([conditions] * len(crystals))
        velocity = self._field(batch, asked)
        n = batch.n_crystals
        if probes:
            signs = seeded_signs(batch, probes, seeds, self.velocity.config.latent)
            divergence = hutchinson_divergence(velocity, rows, masks, n, signs)
        else:
            divergence = exact_divergence(velocity, rows, masks, n)

        def base(x: Point) -> Tensor:
            densities = LATENT_MANIFOLD.base_log_density(x)
            parts = zip(densities, masks, rows, strict=True)
            return sum((sum_by((d * m).sum(-1), r, n) for d, m, r in parts), torch.zeros(n).to(h))

        density = log_prob(divergence, base, point, solver, probes or None)
        return (density + scale.log_volume_change(batch)).reshape(-1, n)

    def _collate(self, crystals: Sequence[Crystal]) -> CrystalBatch:
        parameter = next(self.velocity.parameters())
        return CrystalBatch.from_crystals(crystals).to(parameter.device, parameter.dtype)

    def _field(
        self,
        batch: CrystalBatch,
        targets: Targets,
        distance: Float[Tensor, "crystals"] | None = None,
    ) -> Velocity:
        return self.velocity.field(batch, targets.values.to(batch.free), targets.guidance, distance)

    def _nothing(self, crystals: int) -> Targets:
        return self.velocity.conditions.targets([{}] * crystals)

    def _integrate(
        self,
        batch: CrystalBatch,
        seeds: Sequence[tuple[int, ...]],
        targets: Targets,
        settings: FlowSettings,
        guide: Guide | None,
        begins: Sequence[Begin],
    ) -> CrystalBatch:
        """The crystals at the end of trajectories that begin at one time."""
        time, distance = begins[0].time, torch.tensor([begin.distance for begin in begins])
        field_ = self._field(batch, targets, distance.to(batch.free))
        if guide is not None:
            field_ = guided(field_, guide, batch, latent_masks(batch, self.velocity.config.latent))
        noise, restart = seeded_noise(batch, seeds, self.velocity.config.latent), settings.restart
        solver = replace(settings.solver, steps=restart.steps)
        z = self.velocity.scale.from_coords(batch.lattice_coords, batch)
        hold = Hold.of([begin.held for begin in begins], batch, (torch.zeros_like(noise[0]), batch.free, z))

        def carried(begun: Point, solver: Solver, time: float = 0.0) -> Point:
            bound = hold.field(field_, begun, time) if hold else field_
            point = sample_flow(bound, LATENT_MANIFOLD, begun, solver, time)[-1]
            return hold.put(point) if hold else point

        if time:
            given = (self.autoencoder.encoder(batch).mean, batch.free, z)
            point = carried(self._noised(given, batch, noise, time, hold), solver, time)
        else:
            point = carried(noise, settings.solver)
            for k in range(restart.rounds):
                noise = seeded_noise(batch, [(*seed, k) for seed in seeds], self.velocity.config.latent)
                again = carried(self._noised(point, batch, noise, restart.time, hold), solver, restart.time)
                point = self._unless_overlapping(again, point, batch)
        return self._finish(point, batch, settings.corrections, guide, settings.settling, hold)

    def _noised(
        self, point: Point, batch: CrystalBatch, noise: Point, time: float, hold: Hold | None
    ) -> Point:
        """The point some way back towards noise."""
        h, _, z = point
        crystals = self._at(point, self._with_species(point, batch))
        if hold and hold.origin:
            return hold.noised(point, crystals, noise, time)
        t = torch.full((batch.n_crystals,), time).to(z)
        return path_from(noise, crystals, h, z, t).x_t

    def _unless_overlapping(self, new: Point, old: Point, batch: CrystalBatch) -> Point:
        """The new point, but the old one of crystals in which atoms have moved into one another.

        Once they meet on a special position, symmetry forbids every force that could part them.
        """
        worse = _overlapping(self._at(new, batch)) & ~_overlapping(self._at(old, batch))
        rows = latent_rows(batch)
        return tuple(torch.where(worse[row][:, None], a, b) for row, a, b in zip(rows, old, new, strict=True))

    def _at(self, point: Point, batch: CrystalBatch) -> CrystalBatch:
        """The batch with the point's geometry."""
        return batch.with_geometry(point[1], self.velocity.scale.to_coords(point[2], batch))

    def _with_species(self, point: Point, batch: CrystalBatch) -> CrystalBatch:
        """The batch with unknown species read from the point."""
        unknown = batch.species == 0
        if not bool(unknown.any()):
            return batch
        logits = self.autoencoder.decoder(point, batch).logits
        logits[:, 0] = -torch.inf
        return batch.with_species(torch.where(unknown, logits.argmax(-1), batch.species))

    def _finish(
        self,
        point: Point,
        batch: CrystalBatch,
        corrections: int,
        guide: Guide | None = None,
        settling: int = 0,
        hold: Hold | None = None,
    ) -> CrystalBatch:
        """Species where unknown, then corrections with all species known, then what the guide alone does."""
        batch = self._with_species(point, batch)
        for _ in range(corrections):
            corrected = self.autoencoder.decoder.correct(point, batch)
            point = self._unless_overlapping(corrected, point, batch)
        if guide is not None:
            masks, late = latent_masks(batch, point[0].shape[1]), torch.tensor(1 - _SETTLING).to(point[2])
            for _ in range(settling):
                push = zip(guide(late, point, batch), masks, strict=True)
                moved = LATENT_MANIFOLD.exp(point, tuple(_SETTLING * p * mask for p, mask in push))
                point = self._unless_overlapping(moved, point, batch)
        return self._crystals_at(hold.put(point) if hold else point, batch)

    def _crystals_at(self, point: Point, batch: CrystalBatch) -> CrystalBatch:
        """The crystals at a latent point, lattices computed in float64 so that symmetry is exact."""
        genes = batch.to(dtype=torch.float64)
        coords = self.velocity.scale.to_coords(point[2].double(), genes)
        return genes.with_geometry(point[1].double() % 1.0 * genes.free_mask(), coords)


def _overlapping(crystals: CrystalBatch) -> Bool[Tensor, "crystals"]:
    """Which crystals hold two atoms closer than any bond.

    A graph has no bond between atoms in one place: all free coordinates are moved by a hair first.
    """
    aside = crystals.with_geometry(crystals.free + 1e-3 * crystals.free_mask(), crystals.lattice_coords)
    found = torch.zeros(crystals.n_crystals, dtype=torch.bool, device=crystals.device)
    found[crystals.crystal[orbit_graph(aside, _SHORTEST_BOND).site]] = True
    return found
