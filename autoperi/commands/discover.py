"""The discover command: a campaign that ends with a list of stable, new crystals on target."""

import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import OmitArgPrefixes, arg

from autoperi.commands import console
from autoperi.commands.arguments import asked, named_windows
from autoperi.commands.sample import Chemistry
from autoperi.generator.settings import SampleConfig
from evaluation.facts.levels import Level

if TYPE_CHECKING:
    from autoperi.crystals.crystal import Crystal
    from autoperi.crystals.labels import Window
    from autoperi.discovery.campaign import Campaign, Discovery
    from autoperi.discovery.campaign.executors import Executor

_Window = Annotated[str | None, arg(metavar="RANGE")]
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FEWER = 3
"""Exit status where fewer crystals were found than asked for."""


@dataclass(frozen=True)
class Ranges:
    """What every crystal is predicted to have: a range (1.1:1.7) or an inequality (:-1, 150:).

    What the generator knows as a condition steers the draws; what a model predicts chooses among them, before
    and after relaxation.

    Attributes:
        band_gap: eV.
        formation_energy: eV/atom.
        bulk_modulus: GPa.
        shear_modulus: GPa.
        debye_temperature: K.
        condition: any other that the checkpoint (autoperi train --condition) or a --model knows.
        model: folders of models of your own (autoperi train-property); they come before the shipped ones.
    """

    band_gap: _Window = None
    formation_energy: _Window = None
    bulk_modulus: _Window = None
    shear_modulus: _Window = None
    debye_temperature: _Window = None
    condition: Annotated[tuple[str, ...], arg(metavar="NAME=RANGE ...")] = ()
    model: Annotated[tuple[Path, ...], arg(metavar="FOLDER ...")] = ()

    def windows(self) -> "dict[str, Window]":
        """Those that are asked for, by name; raises ValueError for what is no window."""
        from autoperi.crystals.labels import Window

        apart = ("condition", "model")
        told = {name: w for name, w in vars(self).items() if name not in apart and w is not None}
        return {name: Window.of(text) for name, text in named_windows(self.condition, told).items()}

    def predicted(self) -> "list[str]":
        """Names of those that a model predicts; raises CheckpointError for what is no model."""
        from property_models.model import load, shipped

        known = {target for folder in self.model for target in load(folder).targets} | {*shipped()}
        return [name for name in self.windows() if name in known]


@dataclass(frozen=True)
class Finds:
    """What is returned, and when the campaign ends without all of it.

    Attributes:
        stable: most energy above the hull after relaxation by CHGNet, eV/atom.
        novelty: least level of novelty: duplicate (anything), substitution (a known crystal with other
            elements), known_gene (space group and Wyckoff letters are known), new_gene.
        known: whose crystals are known: data sets with their split, or files in any form.
        sure: least chance that a crystal meets each range, by the guide's calibrated distribution.
        rank: what orders the crystals: e_above_hull, formation_energy, atoms, a property with a range, or
            chance, that the ranges are met.
        judge: a second potential that tells its own height above the hull (sevennet: extra `judge`); with it
            or not, models of another family judge every range. Judges tell, they do not choose.
        hull: mp_20 (DFT), consistent (by CHGNet too) or a CSV (composition, formation_energy_per_atom).
        phonons: keep crystals without imaginary phonons by this potential alone (extra `phonons`; slow).
        draws: most draws; by default 100 for each crystal asked for.
        budget: most time, e.g. 90s, 30m or 2h.
    """

    stable: float = 0.05
    novelty: Level = "substitution"
    known: tuple[str, ...] = ("mp_20/train", "mp_20/val", "mp_20/test")
    sure: float = 0.0
    rank: str = "e_above_hull"
    judge: Literal["none", "sevennet"] = "none"
    hull: str = "mp_20"
    phonons: Literal["none", "chgnet", "sevennet"] = "none"
    draws: int | None = None
    budget: str | None = None

    def seconds(self) -> float:
        """The budget; raises ValueError for what is no time."""
        if self.budget is None:
            return float("inf")
        found = re.fullmatch(r"(\d+(?:\.\d*)?)([smhd])", self.budget.strip())
        if not found or float(found[1]) == 0:
            raise ValueError(f"expected a time such as 90s, 30m or 2h: got {self.budget!r}")
        return float(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True)
class Discover:
    """Find stable, new crystals on target: draw, choose, relax, judge and rank until there are enough.

    Examples:
        autoperi discover --n 100 --out found
        autoperi discover --n 50 --band-gap 1.1:1.7 --exclude Pb Hg Cd Tl --atoms 1 12 --out absorbers
        autoperi discover --n 20 --bulk-modulus 250: --judge sevennet --budget 2h --out hard

    Attributes:
        out: folder for discovered.csv, crystals.extxyz, cif/, crystals.csv, funnel.json, index.html and
            run.json.
        n: how many crystals.
        seed: of all randomness; what is found does not depend on the number of workers, nor on who they are.
        checkpoint: a shipped checkpoint or a checkpoint folder.
        data_dir: folder of the data sets; default AUTOPERI_DATA, else download.
        ray: address of a Ray cluster (auto: the one of this machine; local: one started here) that works in
            place of processes of this machine (extra `ray`).
    """

    out: Path
    n: int = 100
    seed: int = 0
    checkpoint: str = "mp_20"
    data_dir: Path | None = None
    ray: Annotated[str | None, arg(metavar="ADDRESS")] = None
    ranges: Annotated[Ranges, OmitArgPrefixes] = field(default_factory=Ranges)
    finds: Annotated[Finds, OmitArgPrefixes] = field(default_factory=Finds)
    chemistry_and_symmetry: Annotated[Chemistry, OmitArgPrefixes] = field(default_factory=Chemistry)
    advanced: Annotated[SampleConfig, OmitArgPrefixes] = field(
        default_factory=lambda: SampleConfig(workers=os.cpu_count() or 1)
    )

    def run(self) -> int:
        """Search, write, and say what came of it; exit status 3 if fewer than asked for were found."""
        from autoperi.data.run_folder import run_folder
        from autoperi.discovery.campaign import discover
        from autoperi.discovery.campaign.discovery import SHARDS, ranking
        from autoperi.discovery.campaign.shard import drawn
        from autoperi.discovery.campaign.stages import known_crystals
        from autoperi.generator import load

        campaign, budget, executor = self._campaign(), self.finds.seconds(), self._executor()
        ranking(campaign, self.finds.rank)
        generator = load(self.checkpoint)
        drawn(campaign, generator, 0, 1)  # refuses what is impossible before anything is begun
        began = time.perf_counter()
        with run_folder(self.out, self._asked(generator.sha256, campaign.hull.sha256)) as folder:
            known_crystals(campaign, self.advanced.workers)
            with console.progress() as bar:
                task = bar.add_task("searching", total=self.n)

                def told(found: int, drawn: int) -> None:
                    bar.update(task, completed=found, description=f"{found} found in {drawn} draws")

                found = discover(
                    campaign,
                    self.n,
                    rank=self.finds.rank,
                    draws=self.finds.draws,
                    budget=budget,
                    executor=executor,
                    folder=folder.path,
                    progress=told,
                )
            seconds = time.perf_counter() - began
            self._write(found, folder.new)
            written = {"crystals": len(found.crystals), "ended": found.ended, "failures": found.failures}
            folder.finish(
                {
                    "seed": self.seed,
                    "checkpoint": {"name": generator.name, "sha256": generator.sha256},
                    "funnel": found.funnel.record(),
                    "seconds": seconds,
                    **written,
                }
            )
            if found.ended == "found":
                shutil.rmtree(folder.path / SHARDS, ignore_errors=True)
        self._summarise(found, seconds)
        status = console.left_out(found.failures)
        return status or (0 if len(found.crystals) == self.n else _FEWER)

    def _asked(self, checkpoint: str, hull: str) -> dict:
        """What decides the results, files by their content; who works and when it ends do not."""
        from autoperi.data.run_folder import content_hash

        known = [content_hash(name) for name in self.finds.known if Path(name).exists()]
        models = " ".join(content_hash(folder) for folder in self.ranges.model)
        fields = asked(self, checkpoint=checkpoint, hull=hull, known=" ".join(known), models=models)
        finds = {name: value for name, value in fields["finds"].items() if name not in ("draws", "budget")}
        return {**{name: value for name, value in fields.items() if name != "ray"}, "finds": finds}

    def _campaign(self) -> "Campaign":
        from autoperi.data.cache import required
        from autoperi.discovery.campaign import Campaign
        from evaluation.settings import potential
        from evaluation.stability.hull_choice import HullChoice
        from property_models.model import shipped
        from property_models.physics.descent import shipped_descent
        from property_models.uses.screen import Predictor

        windows, names = self.ranges.windows(), self.ranges.predicted()
        judged = [name for name in names if name in shipped("judge")]
        chosen_by = tuple((name, windows[name]) for name in names)
        judges = () if self.finds.judge == "none" else (self.finds.judge,)
        phonons = None if self.finds.phonons == "none" else self.finds.phonons
        for name in (*judges, phonons) if phonons else judges:
            potential(name)
        if phonons:
            required("phonopy", "phonons")
        return Campaign(
            guide=Predictor(("e_above_hull", *names), windows=chosen_by, own=self.ranges.model),
            judge=Predictor(("e_above_hull", *judged), "judge", chosen_by),
            windows=chosen_by,
            steer=tuple((name, window) for name, window in windows.items() if name not in names),
            sure=self.finds.sure,
            stable=self.finds.stable,
            novelty=self.finds.novelty,
            known=self.finds.known,
            request=self.chemistry_and_symmetry.request(),
            checkpoint=self.checkpoint,
            seed=self.seed,
            config=self.advanced,
            descent=shipped_descent,
            judges=judges,
            hull=HullChoice.of(self.finds.hull),
            phonons=phonons,
            data_dir=self.data_dir,
        )

    def _executor(self) -> "Executor":
        from autoperi.discovery.campaign import in_processes, on_ray

        if self.ray is None:
            return in_processes(self.advanced.workers)
        return on_ray("" if self.ray == "local" else self.ray)

    def _write(self, found: "Discovery", folder: Path) -> None:
        import json

        from autoperi.crystals.viewer.page import crystal_scene, render_page
        from autoperi.data.files import save_crystals
        from autoperi.data.names import without_formulas

        save_crystals(found.crystals, folder)
        table = found.table()
        without_formulas(table).to_csv(folder / "discovered.csv", index=False)
        (folder / "funnel.json").write_text(json.dumps(found.funnel.record(), indent=1), encoding="utf-8")
        scenes = [{**crystal_scene(c.id, c), "cif": f"cif/{c.id}.cif"} for c in found.crystals]
        page = render_page(
            f"{len(found.crystals)} crystals found",
            "The best first; a heading sorts, a click opens a crystal and its CIF file.",
            {"crystals": (scenes, table.to_dict("records"))},
            "",
            [found.funnel.section()],
        )
        (folder / "index.html").write_text(page, encoding="utf-8")

    def _summarise(self, found: "Discovery", seconds: float) -> None:
        funnel, n = found.funnel, len(found.crystals)
        rows = {"funnel": funnel.lines(), "time": f"{seconds:.0f} s, {funnel.seconds:.0f} s of a core"}
        rows["found"] = f"{n} of {self.n}, {funnel.per_hour():.0f} in an hour of a core"
        predicted = self.ranges.predicted()
        if steered := [name for name in self.ranges.windows() if name not in predicted]:
            rows["not chosen by"] = f"{', '.join(steered)}: steered alone, no model predicts it (--model)"
        if found.ended != "found":
            why = "as many draws as were allowed" if found.ended == "draws" else "the time was up"
            narrow = funnel.narrowest()
            rows["ended"] = f"{why}; more --draws or --budget go on from here"
            if narrow:
                rows["fewest passed"] = f"{narrow.stage} ({narrow.left} of {narrow.entered})"
            if missed := funnel.missed():
                told = ", ".join(f"{name} by {far:.3g}" for name, far in missed.items())
                rows["nearest"] = f"no crystal came into the range: {told} at least"
        for rank, crystal in enumerate(found.crystals[:5], 1):
            rows[str(rank)] = self._told(crystal)
        console.summary(f"crystals found in {self.out}", rows)

    def _told(self, crystal: "Crystal") -> str:
        """A crystal in a line: where it lies above or below the hull, what is predicted, and its kin."""
        told, known = crystal.properties, crystal.provenance["akin_to"]
        values = [f"{name} {told[f'predicted_{name}']:.3g}" for name in self.ranges.predicted()]
        place = f"{crystal.formula} ({crystal.space_group}) at {told['e_above_hull']:+.3f} eV/atom"
        novelty = f"{crystal.provenance['novelty']}{f' of {str(known).split()[0]}' if known else ''}"
        return ", ".join([place, *values, novelty])
