"""The optimise command: a crystal led to a value of a property."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import asked


@dataclass(frozen=True)
class Walk:
    """How far the walk goes.

    Attributes:
        tolerance: what counts as reached, in the unit of the property; a tenth of the value by default.
        steps: down the gradient, of each crystal.
    """

    tolerance: float | None = None
    steps: int = 10


@dataclass(frozen=True)
class Optimise:
    """Lead a crystal to a value of a property; the gene (space group, Wyckoff letters) stays.

    Down the gradient of the shipped guide in free coordinates and cell, against the energy that it costs;
    with --substitutions elements are exchanged too. What the guide and, of gaps and formation energies, the
    critic of mp_20 both think likely comes first. A plain scan of all single substitutions stands beside it.
    Exit status 3 if the guide does not see the goal reached; what came nearest is written all the same.

    Examples:
        autoperi optimise perovskite.cif --property band_gap --to 2.0 --substitutions --out led
        autoperi optimise quartz.cif --property bulk_modulus --to 60 --out led

    Attributes:
        path: a file of one crystal: CIF, POSCAR, extxyz, JSON.
        property: what the shipped models predict, e.g. band_gap.
        to: the value, in the unit of the property.
        out: folder for crystals.extxyz, cif/, crystals.csv, index.html, walk.csv, walk.png, scan.csv and
            run.json.
        substitutions: exchange elements too.
    """

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CRYSTAL")]
    property: str
    to: float
    out: Path
    substitutions: bool = False
    advanced: Annotated[Walk, tyro.conf.OmitArgPrefixes] = field(default_factory=Walk)

    def run(self) -> int:
        """Read, lead, scan, write; exit status 3 if the goal is not reached."""
        from autoperi.data.files import save_crystals
        from autoperi.data.run_folder import run_folder
        from autoperi.discovery.seeded import (
            Goal,
            Means,
            foretold_by,
            likeliest,
            optimised,
            read_seed,
            walk_picture,
            walk_table,
        )
        from autoperi.generator import load as load_generator
        from autoperi.generator.loading import USUAL
        from property_models.model import load
        from property_models.physics.descent import Descent, shipped_descent
        from property_models.potentials import distilled
        from property_models.uses.aim import Aim
        from property_models.uses.screen import Predictor
        from property_models.uses.substitution import exchanged, substitution_scan

        began = time.perf_counter()
        model, goal = load(self.property), Goal.of(self.property, self.to, self.advanced.tolerance)
        generator = load_generator(USUAL)
        crystal, windows = read_seed(self.path), {self.property: goal.window()}
        aim = Aim(model.fast(), distilled.load(), goal.value, goal.tolerance)
        means = Means(
            predict=Predictor((self.property,), windows=tuple(windows.items())),
            relax=shipped_descent(),
            lead=Descent(aim, self.advanced.steps),
            exchange=exchanged if self.substitutions else None,
            foretell=foretold_by(generator, goal),
        )
        content = {"model": model.sha256, "critic": generator.sha256}
        with run_folder(self.out, asked(self, **content), self.path) as folder:
            found, scan = (
                optimised(crystal, goal, means),
                substitution_scan(crystal, [model], windows=windows),
            )
            table = walk_table(found)
            table.to_csv(folder.new / "walk.csv", index=False)
            scan.to_csv(folder.new / "scan.csv", index=False)
            walk_picture(table, scan, goal).savefig(folder.new / "walk.png", dpi=130)
            written = save_crystals(found, folder.new)
            reached = sum(map(goal.reached, found))
            told = {"value": goal.value, "tolerance": goal.tolerance, "reached": reached}
            folder.finish({"led": crystal.id, "property": self.property, **told, **written})
        first, plain = found[0], likeliest(scan, goal)
        value, chance = first.properties[f"predicted_{self.property}"], first.properties["chance"]
        how = first.provenance["exchanged"] or "its elements kept"
        beside = f"none of {len(scan) - 1} is there"
        if plain:
            row = scan.iloc[plain[0]]
            beside = f"{row['substitution']}: {row[self.property]:.4g}, chance {plain[1]:.2f}"
        rows = {
            "from": f"{crystal.formula}, gene {crystal.gene}: {scan[self.property].iloc[0]:.4g}",
            "to": f"{goal.value:g} ± {goal.tolerance:g}: {reached} of {len(found)} crystals, by the guide",
            "first": f"{first.formula} ({how}): {value:.4g}, chance {chance:.2f}",
            "substitution scan": beside,
            "seconds": f"{time.perf_counter() - began:.1f}",
        }
        console.summary(f"{written['crystals']} crystals in {self.out}", rows)
        if not reached:
            gap = min(goal.miss(c) for c in found)
            console.complain(f"not reached: the nearest is {gap:.4g} from {goal.value:g}", "yellow")
        return 0 if reached else 3
