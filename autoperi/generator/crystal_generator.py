"""The whole generator of a checkpoint, and its files."""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from autoperi.crystals.crystal import Crystal, Crystals
from autoperi.crystals.labels import Asked, Condition, Window
from autoperi.crystals.precision import single_precision
from autoperi.data.dataset import CrystalDataset
from autoperi.flow.relatives import Relatives
from autoperi.flow.sampler import FlowModel
from autoperi.flow.steering import Guide
from autoperi.frameworks import net
from autoperi.generator.arguments import check_count, check_types, windows_within
from autoperi.generator.choice import Keep, chosen_by, judged
from autoperi.generator.config import GeneratorConfig
from autoperi.generator.delivery import DeliveryWarning, NothingDrawnError, fitting, generic, misfit, unseen
from autoperi.generator.frameworks import completing, net_request
from autoperi.generator.geometry import Descent, Progress, drawn_geometry, in_threads, silent
from autoperi.generator.settings import SampleConfig
from autoperi.genes.critics.kin import KIN
from autoperi.genes.critics.real import GeneCritic
from autoperi.genes.critics.stability import StabilityCritic
from autoperi.genes.critics.targets import TargetCritic
from autoperi.genes.empirical import EmpiricalGenes
from autoperi.genes.network import GeneNetwork
from autoperi.genes.prior import Excess, LearnedGenes
from autoperi.genes.request import GeneRequest
from autoperi.networks.checkpoint import Arrays, readable
from autoperi.networks.condition import Targets

_ROUNDS, _TRIES, _ENOUGH = 6, 16, 256
"""Geometries and, for each, genes drawn for a crystal until it is what was asked for; and genes of which
none fits, after which none will."""
_REFUSALS = 32
"""Rounds in which refused crystals are drawn again."""
_NETS = 128
"""The same for nets, of which one in ten makes a framework."""
_AGAIN = 1 << 17
"""Keeps the noise of further geometries apart from all other noise."""


class CrystalGenerator(nn.Module):
    """A whole checkpoint: gene priors, autoencoder, flow.

    Attributes:
        config: sizes of the networks.
        flow: geometry given genes, and the latent space both ways.
        name: of the checkpoint, written into every crystal's provenance.
        sha256: of its weights.
        about: provenance of the weights: command, seed, data, figures.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.flow = FlowModel(config.autoencoder, config.velocity, config.conditions)
        self.gene_network = GeneNetwork(config.genes, config.conditions)
        self.critic = GeneCritic(config.critic)
        self.stability = StabilityCritic(config.stability) if config.stability else None
        self.targets = TargetCritic(config.targets) if config.targets else None
        self.empirical, self.geometry = Arrays(), Arrays()
        self.name, self.sha256 = "", ""
        self.about: dict[str, Any] = {}
        self._made: tuple[list[tuple], _Made] | None = None

    def describe(self) -> dict[str, str]:
        """What this checkpoint is, for people: sizes, hash, provenance."""
        networks = {
            "encoder": self.flow.autoencoder.encoder,
            "decoder": self.flow.autoencoder.decoder,
            "velocity": self.flow.velocity,
            "gene network": self.gene_network,
            "critic of genes": self.critic,
            **({"critic of stability": self.stability} if self.stability else {}),
            **({"critic of targets": self.targets} if self.targets else {}),
        }
        sizes = {n: f"{sum(p.numel() for p in net.parameters()):,} parameters" for n, net in networks.items()}
        return {**sizes, "sha256": self.sha256, **readable(self.about)}

    def learned_genes(self) -> LearnedGenes:
        """The learned prior over gene and species; to it the genes of the training set are not new.

        What it remembers of genes is kept from call to call, as long as the weights stay what they are.
        """
        return self._priors()[0]

    def empirical_genes(self) -> EmpiricalGenes:
        """The genes of the training set; raises ValueError for a checkpoint that carries none."""
        known = self._priors()[1]
        if known is None:
            raise ValueError(f"checkpoint {self.name!r} carries no training genes: use genes='learned'")
        return known

    def relatives(self) -> Relatives | None:
        """The training crystals with their geometry; None for a checkpoint that carries none."""
        return self._priors()[2]

    def seen(self, dataset: CrystalDataset) -> CrystalDataset:
        """What its networks know of crystals: every atom, or of SiO2 frameworks the tetrahedral sites.

        Raises:
            ValueError: not one is a framework, where it is these that are known.
        """
        return dataset if self.config.sites == "all" else net.nets(dataset, self.config.genes.n_max)

    def _priors(self) -> "_Made":
        parts = (self.gene_network, self.critic, self.empirical, self.geometry)
        tensors = [t for part in parts for t in part.state_dict(keep_vars=True).values()]
        state = [(t.data_ptr(), t.device, t.dtype, 0 if t.is_inference() else t._version) for t in tensors]
        if self._made is None or self._made[0] != state:
            arrays = self.empirical.state_dict()
            known = EmpiricalGenes.from_state_dict(arrays, self.config.conditions) if arrays else None
            geometry = self.geometry.state_dict()
            relatives = Relatives.from_state_dict(geometry) if geometry else None
            kin = partial(relatives.distances, most=KIN) if relatives else None
            learned = LearnedGenes(self.gene_network, known.names() if known else (), self.critic, kin)
            self._made = state, (learned, known, relatives)
        return self._made[1]

    def with_conditions(self, conditions: Mapping[str, Condition]) -> "CrystalGenerator":
        """A copy with other conditions: what was learned is kept, of conditions that both have too."""
        made = CrystalGenerator(replace(self.config, conditions=dict(conditions)))
        pairs = [
            (made.flow.velocity.conditions, self.flow.velocity.conditions),
            (made.gene_network.condition, self.gene_network.condition),
        ]
        embeddings = ("flow.velocity.conditions.", "gene_network.condition.")
        weights = {k: v for k, v in self.state_dict().items() if not k.startswith(embeddings)}
        made.load_state_dict(weights, strict=False)
        for new, old in pairs:
            new.keep(old)
        if self.empirical.state_dict():
            made.empirical.put(self.empirical_genes().with_conditions(conditions).state_dict())
        return made

    @single_precision()
    @torch.no_grad()
    def sample(
        self,
        n: int,
        seed: int = 0,
        *,
        request: GeneRequest | None = None,
        conditions: Mapping[str, Asked] | None = None,
        config: SampleConfig | None = None,
        progress: Progress = silent,
        guide: Guide | None = None,
        descent: Descent | None = None,
        keep: Keep | None = None,
        first: int = 0,
    ) -> Crystals:
        """Draw n crystals; crystal i depends on (seed, i) and the arguments, not on n, batches or workers.

        Gene, species and id of crystal i are the same for any n. So is its geometry, to the rounding of
        single precision: products of matrices round by the size of the batch, which moves coordinates by
        less than 1e-4, and to the last bit where n and workers are the same.

        Args:
            n: how many.
            seed: of all randomness.
            request: hard constraints on gene and composition, met exactly: a crystal whose real space group
                or primitive cell is another (`as_found`) is named for what it is, or drawn again.
            conditions: windows to steer into, e.g. ``{"band_gap": 1.3}``, ``{"band_gap": (1.1, 1.7)}`` or
                ``{"band_gap": "2:"}`` (eV). Each crystal's target is drawn from its window, seeded by
                (seed, i), and stands in its provenance as ``target_band_gap``.
            config: how they are drawn.
            progress: told how many crystals have just passed a stage.
            guide: added to the flow's velocity (`Guide`), as physics and property models give it.
            descent: by whose energy the best of several tries is kept (`Descent`), as physics gives it.
            keep: refuses crystals, which are then drawn again, genes and all (`Keep`), as energy models do.
                How many draws of its number were refused before it is a crystal's provenance ``refused``.
            first: number of the first of them: the n crystals from there on.

        Raises:
            NothingDrawnError: no crystal that was drawn is what was asked for.
            ValueError: n below 1, an impossible request, an unknown condition or one out of its range, a
                ``keep`` that does not say of each crystal what becomes of it.

        Warns:
            DeliveryWarning: fewer crystals than asked for, and why; what no training crystal has.
        """
        check_types(n, seed, request, conditions, config)
        check_count(n, first)
        if seed < 0:
            raise ValueError(f"expected a seed of 0 or more: got {seed}")
        config, request = config or SampleConfig(), request or GeneRequest()
        if config.species == "flow" and request.constrains_species:
            raise ValueError(
                "expected species from the prior where elements are asked for: the flow knows none"
            )
        nets = self.config.sites == "tetrahedral"
        if nets:
            request, keep = net_request(request, guide, descent), completing(request, keep)
            config = config.from_noise()  # from their relatives come the frameworks that are known
        pending = list(range(first, first + n))
        windows = windows_within(conditions, self.config.conditions)
        targets, aims = self._aims(pending, seed, windows, config)
        if self.empirical.state_dict():
            for strange in unseen(request, self.empirical_genes()):
                warnings.warn(strange, DeliveryWarning, stacklevel=4)
        choice = self._choice(config, windows)
        exact, whole = request.constrains_symmetry, {}
        wrong: Counter[str] = Counter()
        strays: set[int] = set()
        for attempt in range(_NETS if nets else _REFUSALS if keep else _ROUNDS if exact else 1):
            told = progress if attempt == 0 else silent
            genes = self._fitting(
                pending, first, seed, request, targets, config, told, attempt, wrong, choice
            )
            if not genes:
                break
            count = {"refused": attempt} if keep else {}
            named = {
                i: replace(g, provenance={**g.provenance, **aims[i - first], **count})
                for i, g in genes.items()
            }
            found: dict[int, Crystal | str] = {}
            for stray in (False, True):
                if not (some := [i for i in named if (i in strays) is stray]):
                    continue
                keys = [(i, _AGAIN, attempt) if attempt else (i,) for i in some]
                own, way = targets.select([i - first for i in some]), config.from_noise() if stray else config
                seen = silent if keep else told
                drawn = self._geometry([named[i] for i in some], keys, seed, own, way, seen, guide, descent)
                found |= zip(some, (fitting(c, request) for c in drawn), strict=True)
            strays |= {i for i, crystal in found.items() if isinstance(crystal, str)}
            if keep:
                good = {i: c for i, c in found.items() if not isinstance(c, str)}
                found |= zip(good, judged(list(good.values()), keep), strict=True)
            kept = {i: c for i, c in found.items() if not isinstance(c, str)}
            wrong.update(c for c in found.values() if isinstance(c, str))
            if keep:
                progress("geometry", len(kept))
            whole |= kept
            pending = [i for i in pending if i not in whole]
            if not pending or (attempt >= _ROUNDS and not whole and not nets):
                break
        if pending:
            reasons = "; ".join(f"{reason} ({count} times)" for reason, count in wrong.most_common(3))
            if not whole:
                raise NothingDrawnError(f"nothing that was drawn is what was asked for: {reasons}")
            warnings.warn(
                f"{len(whole)} of {n} crystals are delivered, others are not what was asked for: {reasons}",
                DeliveryWarning,
                stacklevel=4,
            )
        return Crystals(whole[i] for i in sorted(whole))

    def _fitting(
        self,
        numbers: Sequence[int],
        first: int,
        seed: int,
        request: GeneRequest,
        targets: Targets,
        config: SampleConfig,
        progress: Progress,
        attempt: int,
        wrong: Counter[str],
        excess: Excess | None,
    ) -> dict[int, Crystal]:
        """Genes by number, drawn anew while they have another symmetry or cell, or no relative, if asked for.

        The targets are those of the numbers from ``first`` on.
        """
        relatives = self.relatives() if config.flow.start.kind == "relative" else None
        found: dict[int, Crystal] = {}
        left = list(numbers)
        for again in range(attempt * _TRIES, (attempt + 1) * _TRIES):
            own = targets.select([i - first for i in left])
            genes = self._genes(left, seed, request, own, config, progress, again, excess)
            progress = silent
            for i, gene in zip(left, genes, strict=True):
                real = generic(gene) if request.constrains_symmetry else gene
                if config.novel and self.empirical_genes().holds(gene):
                    wrong["formula and gene stand in the training set"] += 1
                elif relatives and not relatives.nearest(gene):
                    wrong["no training crystal is its relative: use start='auto'"] += 1
                elif real is gene or request.fits(real):
                    found[i] = gene
                else:
                    wrong[misfit(gene, real)] += 1
            left = [i for i in left if i not in found]
            if not left or (not found and wrong.total() > _ENOUGH):
                break
        return {i: found[i] for i in numbers if i in found}

    def draw(
        self,
        genes: Sequence[Crystal],
        seed: int = 0,
        *,
        conditions: Mapping[str, Asked] | None = None,
        config: SampleConfig | None = None,
        progress: Progress = silent,
        guide: Guide | None = None,
        descent: Descent | None = None,
    ) -> Crystals:
        """Geometry (and unknown species) for given genes: structure prediction when species are known.

        A generator of frameworks gives the nets of their tetrahedral sites (`autoperi.frameworks`).
        """
        config, numbers = config or SampleConfig(), range(len(genes))
        windows = windows_within(conditions, self.config.conditions)
        targets, aims = self._aims(numbers, seed, windows, config)
        genes = [replace(g, provenance={**g.provenance, **a}) for g, a in zip(genes, aims, strict=True)]
        keys = [(i,) for i in numbers]
        return self._geometry(genes, keys, seed, targets, config, progress, guide, descent)

    def _aims(
        self, numbers: Sequence[int], seed: int, windows: Mapping[str, Window], config: SampleConfig
    ) -> tuple[Targets, list[dict[str, float]]]:
        """Targets of crystals, drawn from windows, and what their provenance says of them."""
        training = self._priors()[1]
        known = {name: training.labels(name) for name in windows} if training else {}
        values = []
        for i in numbers:
            rng = np.random.default_rng([seed, i, 5])
            values.append({name: window.draw(rng, known.get(name)) for name, window in windows.items()})
        aims = [{f"target_{name}": value for name, value in row.items()} for row in values]
        return self.gene_network.condition.targets(values, config.guidance), aims

    def _choice(self, config: SampleConfig, windows: Mapping[str, Window]) -> Excess | None:
        """By what genes are chosen."""
        _, training, relatives = self._priors()
        return chosen_by(config, self.stability, self.targets, relatives, training, windows)

    def _genes(
        self,
        numbers: Sequence[int],
        seed: int,
        request: GeneRequest | None,
        targets: Targets,
        config: SampleConfig,
        progress: Progress,
        attempt: int,
        excess: Excess | None,
    ) -> list[Crystal]:
        """Genes, with species where these are the prior's, from one-threaded workers."""
        choice, network = config.draw, self.learned_genes()
        size = min(2 * choice.batch_size, math.ceil(len(numbers) / config.workers))
        empirical = self.empirical_genes() if config.genes == "empirical" else None

        def part(first: int) -> list[Crystal]:
            some = range(first, min(first + size, len(numbers)))
            own, asked = [numbers[i] for i in some], targets.select(some)
            if empirical is None:
                known = config.species == "prior"
                drawn = network.sample(own, seed, request, asked, known, choice, attempt, excess)
            else:
                drawn = empirical.sample(own, seed, request, asked, attempt)
                if config.species == "prior":
                    drawn = network.draw_species(drawn, own, seed, request, asked, choice, attempt)
            progress("genes", len(drawn))
            return drawn

        parts = in_threads([partial(part, first) for first in range(0, len(numbers), size)], config.workers)
        return [gene for drawn in parts for gene in drawn]

    def _geometry(
        self,
        genes: Sequence[Crystal],
        keys: Sequence[tuple[int, ...]],
        seed: int,
        targets: Targets,
        config: SampleConfig,
        progress: Progress,
        guide: Guide | None,
        descent: Descent | None,
    ) -> Crystals:
        """Whole crystals of genes, in their order, each from the noise of its key."""
        relatives, time = self.relatives(), self.config.start_time
        drawn = drawn_geometry(
            self.flow, relatives, time, genes, keys, seed, targets, config, progress, guide, descent
        )
        origin = {"checkpoint": self.name, "sha256": self.sha256}
        return Crystals(
            replace(c, id=c.id or f"{key[0]:06d}", provenance={**c.provenance, **origin})
            for key, c in zip(keys, drawn, strict=True)
        )


_Made = tuple[LearnedGenes, EmpiricalGenes | None, Relatives | None]
"""What is made of the weights once, and kept."""
