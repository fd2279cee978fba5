"""The sample command: everything that can be asked of the generator, and the files that answer it.

As in ``cli``, what takes long to import is imported when the command runs.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from autoperi.commands import console

if TYPE_CHECKING:
    from autoperi.crystals.crystal import Crystal
    from autoperi.flow.sampler import Guide
    from autoperi.generator import CrystalGenerator, SampleConfig
    from autoperi.genes.request import GeneRequest


@dataclass(frozen=True)
class Sample:
    """Draw new crystals.

    Examples:
        autoperi sample --n 1000 --seed 0 --out samples
        autoperi sample --n 100 --formula BaTiO3 --space-group 99 --out batio3
        autoperi sample --n 100 --band-gap 1.3 --guidance 2 --elements Ga As In P --out gaps

    Attributes:
        n: how many crystals.
        seed: of all randomness; crystal i depends on (seed, i) alone.
        out: folder for crystals.extxyz, cif/, crystals.csv and run.json.
        checkpoint: a shipped checkpoint or a checkpoint folder.
        genes: learned prior (new genes) or the training set's.
        species: drawn with the gene (prior) or by the flow.
        temperature: of the species; below 1 is more conservative.
        new_genes: share of crystals whose gene (space group and letters) must not be in the training set.
        sweeps: rounds in which half of the species are drawn again given the rest.
        band_gap: target, eV.
        formation_energy: target, eV/atom.
        e_above_hull: target, eV/atom.
        guidance: strength of the targets; 1 is the plain conditional model.
        space_group: permitted space-group numbers.
        crystal_system: permitted crystal system.
        formula: reduced formula, e.g. BaTiO3.
        anonymous_formula: e.g. ABC3.
        chemical_system: exactly these elements, e.g. Ba-Ti-O.
        elements: only these elements may appear.
        exclude: these elements may not appear.
        atoms: fewest and most atoms per primitive cell.
        solver: integrator of the flow.
        steps: solver steps.
        restarts: rounds of noising a drawn crystal in part and drawing it again.
        corrections: passes of the denoising decoder.
        physics: strength (Å²/eV) with which the energy of the shipped potential, a pupil of CHGNet, steers
            and then settles the geometry; 0.01 is usual. Figures of raw crystals are those without it.
        predict: also write what the shipped models predict of these properties, e.g. formation_energy.
        log_likelihood: also write the log-density of geometry given gene and species, in nats.
        workers: threads; the result does not depend on it.
        device: cpu, cuda or cuda:N.
    """

    out: Path
    n: int = 100
    seed: int = 0
    checkpoint: str = "mp_20"
    genes: Literal["learned", "empirical"] = "learned"
    species: Literal["prior", "flow"] = "prior"
    temperature: float = 1.0
    new_genes: float = 0.13
    sweeps: int = 1
    band_gap: float | None = None
    formation_energy: float | None = None
    e_above_hull: float | None = None
    guidance: float = 1.0
    space_group: tuple[int, ...] = ()
    crystal_system: str | None = None
    formula: str | None = None
    anonymous_formula: str | None = None
    chemical_system: str | None = None
    elements: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    atoms: tuple[int, int] | None = None
    solver: Literal["euler", "midpoint", "rk4", "dopri5"] = "euler"
    steps: int = 8
    restarts: int = 3
    corrections: int = 5
    physics: float = 0.0
    predict: tuple[str, ...] = ()
    log_likelihood: bool = False
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    device: str = "cpu"

    def run(self) -> int:
        """Load, sample, write, and say what came of it; the property models lend what is asked for."""
        import torch

        from autoperi.data.files import write_crystals
        from autoperi.generator import load

        began = time.perf_counter()
        predicted = self._predictor()
        torch.set_num_threads(1)  # the workers are the parallelism: more threads would only contend
        generator = load(self.checkpoint, self.device)
        loaded = time.perf_counter()
        request, conditions, config = self._request(), self._conditions(), self._config()
        guide = self._guide(generator)
        crystals = self._drawn(generator, request, conditions, config, guide)
        crystals = predicted(crystals) if predicted else crystals
        sampled = time.perf_counter()
        seconds = {"load": loaded - began, "sample": sampled - loaded}
        record = {
            "seed": self.seed,
            "checkpoint": {"name": generator.name, "sha256": generator.sha256},
            "conditions": conditions,
            "settings": repr(config),
            "physics": self.physics,
            "request": repr(request),
            "seconds": seconds,
        }
        write_crystals(crystals, self.out, record)
        written = time.perf_counter() - sampled
        rows = {
            "load / sample / write": f"{seconds['load']:.1f} / {seconds['sample']:.1f} / {written:.1f} s",
            "space groups": str(len({c.space_group for c in crystals})),
            "genes": f"{len({c.gene for c in crystals})}{self._novelty(crystals)}",
            "formulas": str(len({c.formula for c in crystals})),
            "atoms per cell": f"{sum(c.n_atoms for c in crystals) / len(crystals):.1f} on average",
            "first": ", ".join(f"{c.formula} ({c.space_group})" for c in crystals[:5]),
        }
        console.summary(f"{self.n} crystals in {self.out}", rows)
        return 0

    def _predictor(self) -> "Callable[[Sequence[Crystal]], list[Crystal]] | None":
        """What adds predictions to crystals; refuses unknown names before anything is drawn."""
        if not self.predict:
            return None
        from property_models.uses.screen import predictor

        return predictor(self.predict)

    def _guide(self, generator: "CrystalGenerator") -> "Guide | None":
        if not self.physics:
            return None
        from property_models.physics.guidance import energy_guidance

        return energy_guidance(generator.flow, self.physics)

    def _novelty(self, crystals: "list[Crystal]") -> str:
        if self.genes == "empirical":
            return ""
        new = sum(bool(c.provenance["new_gene"]) for c in crystals)
        return f"; {new} crystals have one that is not in the training set"

    def _drawn(
        self,
        generator: "CrystalGenerator",
        request: "GeneRequest",
        conditions: dict[str, float],
        config: "SampleConfig",
        guide: "Guide | None",
    ) -> "list[Crystal]":
        """The crystals, with their log-likelihoods if asked."""
        from autoperi.generator import Stage

        with console.progress() as bar:
            stages = {stage: bar.add_task(stage, total=self.n) for stage in get_args(Stage)}
            crystals = generator.sample(
                self.n,
                self.seed,
                request=request,
                conditions=conditions,
                config=config,
                progress=lambda stage, done: bar.advance(stages[stage], done),
                guide=guide,
            )
        if not self.log_likelihood:
            return crystals
        densities = generator.flow.log_prob(crystals, probes=1, seed=self.seed)
        return [
            replace(c, properties={**c.properties, "log_likelihood": float(d)})
            for c, d in zip(crystals, densities, strict=True)
        ]

    def _request(self) -> "GeneRequest":
        from autoperi.genes.request import GeneRequest

        return GeneRequest(
            space_groups=self.space_group or None,
            crystal_system=self.crystal_system,
            formula=self.formula,
            anonymous_formula=self.anonymous_formula,
            chemical_system=self.chemical_system,
            allowed_elements=self.elements or None,
            denied_elements=self.exclude,
            n_atoms=self.atoms,
        )

    def _conditions(self) -> dict[str, float]:
        asked = {name: getattr(self, name) for name in ("band_gap", "formation_energy", "e_above_hull")}
        return {name: value for name, value in asked.items() if value is not None}

    def _config(self) -> "SampleConfig":
        from autoperi.flow.ode import Solver
        from autoperi.flow.sampler import FlowSettings, Restart
        from autoperi.generator import SampleConfig

        return SampleConfig(
            genes=self.genes,
            species=self.species,
            temperature=self.temperature,
            new_genes=self.new_genes,
            sweeps=self.sweeps,
            guidance=self.guidance,
            flow=FlowSettings(Solver(self.solver, self.steps), Restart(self.restarts), 1.0, self.corrections),
            workers=self.workers,
        )
