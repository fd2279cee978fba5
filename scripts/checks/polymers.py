"""Cells and densities of six polymers as built, beside published ones, and as potentials relax them.

Run: python scripts/checks/polymers.py --out runs/check_polymers --potentials chgnet sevennet
Of the crystals of each polymer that one is compared that has the published space group (PTFE: any, its form
IV is disordered) and whose cell comes nearest; `above` is its energy above the lowest
one built, kcal/mol a unit. Potentials need the package dftd3 (D3 with Becke-Johnson damping for PBE) and, of
the judges, extra `judge`. What is done is taken from the journal. Published cells:
polyethylene: Bunn, Trans. Faraday Soc. 35, 482 (1939); PTFE, form IV: Clark, Polymer 40, 4659 (1999), its
hexagonal base as a rectangle; PVDF, form I: Hasegawa et al., Polym. J. 3, 600 (1972); poly(p-phenylene
sulfide): Tabor, Magré and Boon, Eur. Polym. J. 7, 1127 (1971). Densities are those of the cells. By these
four the force field was chosen, by the others not: syndiotactic polypropylene: Corradini et al., J. Polym.
Sci. C 16, 2477 (1967); poly(p-phenylene sulfone): Colquhoun et al., Macromolecules 35, 1685 (2002).
"""

import json
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
import tyro
from ase import Atoms
from ase.calculators.mixing import SumCalculator
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS

from autoperi.polymers.building import Polymer, built
from autoperi.polymers.crystal import PolymerCrystal, base_of

PUBLISHED = {
    Polymer("polyethylene", "*CC*"): (62, 7.42, 4.95, 2.55, 0.995),
    Polymer("PVDF", "*CC(F)(F)*"): (38, 8.58, 4.91, 2.56, 1.972),
    Polymer("PPS", "*Sc1ccc(cc1)*"): (60, 8.67, 5.61, 10.26, 1.440),
    Polymer("PTFE", "*C(F)(F)C(F)(F)*", "15/7"): (None, 9.80, 5.66, 19.50, 2.302),
    Polymer("syndiotactic PP", "*C[C@H](C)C[C@@H](C)*"): (20, 14.50, 5.60, 7.40, 0.930),
    Polymer("PPS sulfone", "*S(=O)(=O)c1ccc(cc1)*"): (63, 10.79, 5.05, 9.97, 1.714),
}


def main(out: Path, potentials: tuple[Literal["chgnet", "sevennet"], ...] = (), steps: int = 300) -> None:
    """A line for each polymer and potential, and how far it is from the published one."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    journal = out / "relaxed.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    done = {tuple(r["key"]): r["found"] for r in map(json.loads, lines)}
    rows = []
    for one in built(list(PUBLISHED), out / "journal.jsonl"):
        group, *wanted = PUBLISHED[one.polymer]
        rows.append({"polymer": one.polymer.name, "by": "published", "space_group": group, **columns(wanted)})
        alike = [c for c in one.crystals if group in (None, c.crystal.space_group)]
        if not alike:
            raise ValueError(f"expected a crystal of {one.polymer.name} in space group {group}: got none")
        nearest = min(alike, key=lambda c: np.abs(errors(numbers(c), wanted)).max())
        about = {"space_group": nearest.crystal.space_group, "above": nearest.energy, "seconds": one.seconds}
        rows.append(compared(one.polymer.name, "built", numbers(nearest), wanted) | about)
        for name in potentials:
            key = (one.polymer.name, name)
            if key not in done:
                began = time.perf_counter()
                found = relaxed(nearest, name, steps)
                done[key] = [*found, time.perf_counter() - began]
                with journal.open("a") as stream:
                    stream.write(json.dumps({"key": key, "found": done[key]}) + "\n")
            *found, seconds = done[key]
            rows.append(compared(one.polymer.name, f"{name} + D3", found, wanted) | {"seconds": seconds})
    table = pd.DataFrame(rows)
    table.to_csv(out / "polymers.csv", index=False)
    print(table.to_string(index=False, float_format="{:.2f}".format, na_rep=""))


def numbers(one: PolymerCrystal) -> list[float]:
    """a, b, c (Å) and density (g/cm³)."""
    return [*one.base[:2], one.period, one.density]


def errors(found: list[float], wanted: list[float]) -> np.ndarray:
    """Percent."""
    return 100 * (np.array(found) / np.array(wanted) - 1)


def columns(values: list[float]) -> dict[str, float]:
    """By name."""
    return dict(zip(("a", "b", "c", "density"), values, strict=True))


def compared(polymer: str, by: str, found: list[float], wanted: list[float]) -> dict:
    """A row of the table; the worst of its errors last."""
    off = errors(found, wanted)
    named = {f"{name}_off": value for name, value in columns(off.tolist()).items()}
    return {"polymer": polymer, "by": by, **columns(found), **named, "worst": float(np.abs(off).max())}


def relaxed(one: PolymerCrystal, name: str, steps: int) -> list[float]:
    """What a potential with dispersion makes of a crystal, cell and all, until 0.01 eV/Å."""
    from dftd3.ase import DFTD3  # type: ignore

    if name == "chgnet":
        from chgnet.model.dynamics import CHGNetCalculator

        base = CHGNetCalculator(use_device="cpu")
    else:
        from sevenn.calculator import SevenNetCalculator  # type: ignore

        base = SevenNetCalculator("7net-l3i5", device="cpu")
    atoms: Atoms = one.crystal.to_ase()
    axis = int(np.abs(atoms.cell.lengths() - one.period).argmin())
    atoms.calc = SumCalculator([base, DFTD3(method="PBE", damping="d3bj")])
    LBFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=steps)  # type: ignore
    cell = atoms.cell.array[[(axis + 1) % 3, (axis + 2) % 3, axis]]
    density = atoms.get_masses().sum() / atoms.get_volume() * 1.66054
    return [*base_of(cell)[:2], float(np.linalg.norm(cell[2])), density]


if __name__ == "__main__":
    tyro.cli(main)
