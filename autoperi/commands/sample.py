"""The sample command: everything that can be asked of the generator, and the files that answer it.

As in ``cli``, what takes long to import is imported when the command runs.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

from tyro.conf import OmitArgPrefixes, arg

from autoperi.commands import console
from autoperi.commands.arguments import asked, named_windows
from autoperi.generator.settings import SampleConfig

if TYPE_CHECKING:
    from autoperi.crystals.crystal import Crystal
    from autoperi.flow.steering import Guide
    from autoperi.generator import CrystalGenerator
    from autoperi.generator.choice import Keep
    from autoperi.generator.drawing import Drawing
    from autoperi.generator.geometry import Descent
    from autoperi.genes.request import GeneRequest

_Window = Annotated[str | None, arg(metavar="WINDOW")]


@dataclass(frozen=True)
class Chemistry:
    """What every crystal is, exactly.

    Attributes:
        space_group: permitted space-group numbers.
        crystal_system: permitted crystal system.
        formula: reduced formula, e.g. BaTiO3.
        anonymous_formula: e.g. ABC3.
        chemical_system: exactly these elements, e.g. Ba-Ti-O.
        elements: only these elements may appear.
        exclude: these elements may not appear.
        atoms: fewest and most atoms per primitive cell.
    """

    space_group: Annotated[tuple[int, ...] | None, arg(metavar="INT ...")] = None
    crystal_system: str | None = None
    formula: str | None = None
    anonymous_formula: str | None = None
    chemical_system: str | None = None
    elements: Annotated[tuple[str, ...] | None, arg(metavar="STR ...")] = None
    exclude: tuple[str, ...] = ()
    atoms: tuple[int, int] | None = None

    def request(self) -> "GeneRequest":
        """The same for the generator; raises ValueError for contradictions and unknown names."""
        from autoperi.genes.request import GeneRequest

        return GeneRequest(
            space_groups=self.space_group,
            crystal_system=self.crystal_system,
            formula=self.formula,
            anonymous_formula=self.anonymous_formula,
            chemical_system=self.chemical_system,
            allowed_elements=self.elements,
            denied_elements=self.exclude,
            n_atoms=self.atoms,
        )


@dataclass(frozen=True)
class Targets:
    """Where crystals are steered: a value (1.3), a range (1.1:1.7) or an inequality (:0.1, 2:).

    Attributes:
        band_gap: eV.
        formation_energy: eV/atom.
        e_above_hull: eV/atom.
        condition: any condition that the checkpoint knows (autoperi info CHECKPOINT).
        physics: strength (Å²/eV) with which the energy of the shipped potential, a pupil of CHGNet, steers
            and then settles the geometry; 0.01 is usual. Figures of raw crystals are those without it.
        stable: keep only crystals that the shipped energy model predicts, as drawn, within this many eV/atom
            of the hull, e.g. 0.05; others are drawn again, genes and all. Their figures are those of a choice
            by energy.
    """

    band_gap: _Window = None
    formation_energy: _Window = None
    e_above_hull: _Window = None
    condition: Annotated[tuple[str, ...], arg(metavar="NAME=WINDOW ...")] = ()
    physics: float = 0.0
    stable: float | None = None

    def windows(self) -> dict[str, str]:
        """What is asked, by name; raises ValueError for what is no name and window, or is asked twice."""
        named = {name: getattr(self, name) for name in ("band_gap", "formation_energy", "e_above_hull")}
        return named_windows(self.condition, {name: w for name, w in named.items() if w is not None})


@dataclass(frozen=True)
class Output:
    """What is written beside the crystals.

    Attributes:
        predict: what the shipped models predict of these properties, e.g. formation_energy.
        log_likelihood: the log-density of geometry given gene and species, in nats, with its standard error,
            which is 0 where it is exact. Slow: some 4 s of a CPU core for each crystal (drawing: 0.06 s).
    """

    predict: tuple[str, ...] = ()
    log_likelihood: bool = False


@dataclass(frozen=True)
class Sample:
    """Draw new crystals.

    Examples:
        autoperi sample --n 1000 --seed 0 --out samples
        autoperi sample --n 100 --formula BaTiO3 --space-group 99 --out batio3
        autoperi sample --n 100 --band-gap 1.1:1.7 --guidance 2 --elements Ga As In P --out gaps
        autoperi sample --n 100 --novel --stable 0.05 --out novel
        autoperi sample --n 200 --class zeolite --out zeolites

    Attributes:
        out: folder for crystals.extxyz, cif/, crystals.csv and run.json.
        n: how many crystals.
        seed: of all randomness; crystal i depends on (seed, i) alone.
        kind: class of crystals: a small shipped checkpoint of its own draws them (autoperi info lists these).
        checkpoint: folder of a checkpoint of your own; by default mp_20, inorganic crystals of any kind.
        device: cpu, cuda or cuda:N.
    """

    out: Path
    n: int = 100
    seed: int = 0
    kind: Annotated[str | None, arg(name="class", metavar="NAME")] = None
    checkpoint: Annotated[str | None, arg(metavar="FOLDER")] = None
    device: str = "cpu"
    chemistry_and_symmetry: Annotated[Chemistry, OmitArgPrefixes] = field(default_factory=Chemistry)
    targets: Annotated[Targets, OmitArgPrefixes] = field(default_factory=Targets)
    output: Annotated[Output, OmitArgPrefixes] = field(default_factory=Output)
    advanced: Annotated[SampleConfig, OmitArgPrefixes] = field(
        default_factory=lambda: SampleConfig(workers=os.cpu_count() or 1)
    )

    def run(self) -> int:
        """Load, sample, write, and say what came of it; the property models lend what is asked for."""
        import torch

        from autoperi.data.files import save_crystals
        from autoperi.data.run_folder import run_folder
        from autoperi.generator import load
        from autoperi.generator.arguments import check_count
        from autoperi.generator.drawing import Drawing

        check_count(self.n)
        began = time.perf_counter()
        predicted, keep = self._predictor(), self._keep()
        torch.set_num_threads(1)  # the workers are the parallelism: more threads would only contend
        generator = load(self._checkpoint(), self.device)
        loaded = time.perf_counter()
        request, conditions = self.chemistry_and_symmetry.request(), self.targets.windows()
        self._refuse(generator, request)
        with run_folder(self.out, asked(self, checkpoint=generator.sha256)) as folder:
            drawing = Drawing(folder.path / "parts", self.n)
            guide = self._guide(generator)
            crystals = self._drawn(drawing, generator, request, conditions, guide, predicted, keep)
            sampled = time.perf_counter()
            seconds = {"load": loaded - began, "sample": sampled - loaded}
            record = {
                "seed": self.seed,
                "checkpoint": {"name": generator.name, "sha256": generator.sha256},
                "conditions": conditions,
                "settings": repr(self.advanced),
                "physics": self.targets.physics,
                "stable": self.targets.stable,
                "request": repr(request),
                "seconds": seconds,
            }
            refused = sum(int(c.provenance.get("refused", 0)) for c in crystals)
            if self.targets.stable is not None:
                record["refused"] = refused
            found = save_crystals(crystals, folder.new)
            folder.finish({**record, **found})
            drawing.forget()
        written = time.perf_counter() - sampled
        rows = {
            "load / sample / write": f"{seconds['load']:.1f} / {seconds['sample']:.1f} / {written:.1f} s",
            "space groups": str(len({c.space_group for c in crystals})),
            "genes": f"{len({c.gene for c in crystals})}{self._novelty(crystals)}",
            "formulas": str(len({c.formula for c in crystals})),
            "starts": f"{sum(c.provenance.get('start') == 'relative' for c in crystals)} from a relative",
            "atoms per cell": f"{sum(c.n_atoms for c in crystals) / len(crystals):.1f} on average",
            "first": ", ".join(f"{c.formula} ({c.space_group})" for c in crystals[:5]),
        }
        if self.targets.stable is not None:
            draws = refused + len(crystals)
            rows["kept"] = f"{len(crystals)} of {draws} draws ({len(crystals) / draws:.0%})"
        console.summary(f"{found['crystals']} crystals in {self.out}", rows)
        return 0 if found["crystals"] == self.n else 1

    def _checkpoint(self) -> str | Path:
        from autoperi.generator.loading import USUAL, of_class

        if self.kind is None:
            return self.checkpoint or USUAL
        if self.checkpoint is not None:
            raise ValueError(
                f"expected --class or --checkpoint: got both, {self.kind!r} and {self.checkpoint!r}; a class "
                "is drawn by its shipped checkpoint"
            )
        return of_class(self.kind)

    def _refuse(self, generator: "CrystalGenerator", request: "GeneRequest") -> None:
        """Raise ValueError for what a class does not have, and for densities of what networks do not see."""
        from autoperi.generator.delivery import unseen
        from autoperi.generator.frameworks import net_request, refuse_nets

        if self.output.log_likelihood:
            refuse_nets(generator.config)
        if self.kind is not None:
            nets = generator.config.sites == "tetrahedral"
            own = net_request(request, None, None) if nets else request
            if strange := unseen(own, generator.empirical_genes()):
                seen = " (of tetrahedral sites, a third of the atoms)" if nets else ""
                raise ValueError(
                    f"expected what class {self.kind!r} has: {'; '.join(strange)}{seen}; without --class "
                    "inorganic crystals of any kind are drawn"
                )

    def _predictor(self) -> "Callable[[Sequence[Crystal]], list[Crystal]] | None":
        """What adds predictions to crystals; refuses unknown names before anything is drawn."""
        if not self.output.predict:
            return None
        from property_models.uses.screen import Predictor

        return Predictor(self.output.predict)

    def _guide(self, generator: "CrystalGenerator") -> "Guide | None":
        if self.targets.physics == 0:
            return None
        from property_models.physics.guidance import energy_guidance

        return energy_guidance(generator.flow, self.targets.physics)

    def _descent(self) -> "Descent | None":
        if self.advanced.tries == 1:
            return None
        from property_models.physics.descent import shipped_descent

        return shipped_descent()

    def _keep(self) -> "Keep | None":
        if self.targets.stable is None:
            return None
        from property_models.uses.screen import stable_within

        return stable_within(self.targets.stable, self.advanced.workers)

    def _novelty(self, crystals: "list[Crystal]") -> str:
        if self.advanced.genes == "empirical":
            return ""
        new = sum(bool(c.provenance["new_gene"]) for c in crystals)
        return f"; {new} crystals have one that is not in the training set"

    def _drawn(
        self,
        drawing: "Drawing",
        generator: "CrystalGenerator",
        request: "GeneRequest",
        conditions: dict[str, str],
        guide: "Guide | None",
        predicted: "Callable[[Sequence[Crystal]], list[Crystal]] | None",
        keep: "Keep | None",
    ) -> "list[Crystal]":
        """The crystals, with log-likelihoods and predictions if asked, but for parts that are there."""
        from autoperi.generator.geometry import Stage

        descent = self._descent()
        with console.progress() as bar:
            left = drawing.left()
            stages = {s: bar.add_task(s, total=self.n, completed=left) for s in get_args(Stage)}

            def draw(first: int, count: int) -> "Sequence[Crystal]":
                crystals: Sequence[Crystal] = generator.sample(
                    count,
                    self.seed,
                    request=request,
                    conditions=conditions,
                    config=self.advanced,
                    progress=lambda stage, done: bar.advance(stages[stage], done),
                    guide=guide,
                    descent=descent,
                    keep=keep,
                    first=first,
                )
                if self.output.log_likelihood:
                    numbers = [int(crystal.id) for crystal in crystals]  # some may be missing
                    threads = self.advanced.workers
                    density = generator.flow.log_prob(
                        crystals, seed=self.seed, indices=numbers, workers=threads
                    )
                    found = zip(crystals, density.value.tolist(), density.error.tolist(), strict=True)
                    crystals = [
                        replace(
                            c,
                            properties={**c.properties, "log_likelihood": d, "log_likelihood_error": e},
                        )
                        for c, d, e in found
                    ]
                return predicted(crystals) if predicted else crystals

            return drawing.crystals(draw)
