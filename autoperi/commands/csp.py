"""The csp command: crystal structures of formulas."""

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import Computing, asked

if TYPE_CHECKING:
    from autoperi.discovery import Prediction

_TOLD = 10
"""Formulas whose first candidate the summary shows."""


@dataclass(frozen=True)
class Csp:
    """Predict the crystal structures of formulas: candidates by templates and prior, relaxed and ranked.

    Examples:
        autoperi csp BaTiO3 Mg3Al2 --out predicted
        autoperi csp formulas.txt --candidates 20 --out predicted
        autoperi csp LiFePO4 --space-group 62 --no-relax --out predicted

    Attributes:
        formula: formulas such as BaTiO3, or files of formulas, one a line.
        out: folder for candidates.csv, crystals.extxyz, cif/, crystals.csv, index.html and run.json.
        candidates: most crystals of a formula; what the training set has of it comes first (`known`).
        atoms: in the primitive cell, where known; at most 20, as in the crystals that mp_20 learned from.
        space_group: its number, where known.
        no_relax: rank without any energy, and leave the geometry as it is.
        seed: of what the learned prior draws.
        checkpoint: a shipped checkpoint or a checkpoint folder; its training crystals are the templates.
    """

    formula: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FORMULA ...")]
    out: Path
    candidates: int = 20
    atoms: int | None = None
    space_group: int | None = None
    no_relax: bool = False
    seed: int = 0
    checkpoint: str = "mp_20"
    advanced: Annotated[Computing, tyro.conf.OmitArgPrefixes] = field(default_factory=Computing)

    def run(self) -> int:
        """Predict and write; exit status 1 if a formula has no candidate."""
        import torch

        from autoperi.data.files import save_crystals
        from autoperi.data.names import without_formulas
        from autoperi.data.run_folder import run_folder
        from autoperi.discovery import CellRequest, predict, read_formulas
        from autoperi.discovery.prediction import PARTS, candidate_table
        from autoperi.discovery.ranker import load as load_ranker
        from autoperi.discovery.relaxed import RELAXATION
        from autoperi.generator import load
        from autoperi.generator.frameworks import refuse_nets

        began = time.perf_counter()
        formulas = read_formulas(self.formula)
        torch.set_num_threads(1)  # processes are the parallelism
        generator, ranker = load(self.checkpoint), load_ranker()
        refuse_nets(generator.config)
        content = {"checkpoint": generator.sha256, "ranker": ranker.about["sha256"]}
        with run_folder(self.out, {**asked(self, **content), "formula": formulas}) as folder:
            with console.progress() as bar:
                bars = {"candidates": bar.add_task("candidates", total=len(formulas))}
                if not self.no_relax:
                    bars["relaxed"] = bar.add_task("relaxing", total=None)

                def told(stage: str, done: int, of: int) -> None:
                    bar.update(bars[stage], advance=done, total=of)

                found = predict(
                    generator,
                    formulas,
                    self.candidates,
                    seed=self.seed,
                    cell=CellRequest(self.atoms, self.space_group),
                    relax=not self.no_relax,
                    ranker=ranker,
                    workers=self.advanced.workers,
                    device=self.advanced.device,
                    folder=folder.path,
                    progress=told,
                )
            crystals = [crystal for one in found for crystal in one.crystals]
            written = save_crystals(crystals, folder.new)
            table = candidate_table(found)
            without_formulas(table).to_csv(folder.new / "candidates.csv", index=False)
            failures = [(one.formula, "formula", one.problem) for one in found if one.problem]
            seconds = time.perf_counter() - began
            folder.finish(
                {
                    "seed": self.seed,
                    "formulas": len(found),
                    "failures": failures,
                    "relaxation": None if self.no_relax else str(RELAXATION),
                    "seconds": seconds,
                    **written,
                }
            )
            shutil.rmtree(folder.path / PARTS, ignore_errors=True)
        self._summarise(found, seconds)
        return console.left_out(failures)

    def _summarise(self, found: "list[Prediction]", seconds: float) -> None:
        done = [one for one in found if one.crystals]
        rows = {
            "formulas": f"{len(done)} predicted, {len(found) - len(done)} left out",
            "candidates": f"{sum(len(one.crystals) for one in found)}, {seconds:.1f} s",
            "ranked": "without energies" if self.no_relax else "after relaxation, space group kept",
        }
        reduced = [f"{one.asked} to {one.formula}" for one in found if one.reduced]
        if reduced and self.atoms is None:
            rows["reduced"] = f"{', '.join(reduced[:_TOLD])}: --atoms says how many atoms a cell has"
        for one in done[:_TOLD]:
            first = one.crystals[0]
            known = [c.provenance["known"] for c in one.crystals if "known" in c.provenance]
            more = f" and {len(known) - 1} more" if len(known) > 1 else ""
            chance = first.properties.get("probability")
            told = f"known: {known[0]}{more}" if chance is None else f"probability {chance:.2f}"
            rows[one.formula] = f"space group {first.space_group}, {first.n_atoms} atoms, {told}"
        console.summary(f"structures in {self.out}", rows)
