"""Relax every crystal of a file, and write what came of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from ase import Atoms
from ase.io import write
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from rich.console import Console
from rich.progress import Progress

from autoperi.crystals.crystal import any_element_in_formulas
from autoperi.crystals.viewer.page import Scene, render_gallery, scene
from autoperi.data.names import file_names, unique_ids, without_formulas
from autoperi.data.reading import Failure, Sample, read_structures
from evaluation.facts.symmetry import keeps_space_group, space_group
from evaluation.relaxation.batch import BatchSettings, relax_all

JOURNAL = "relaxations.jsonl"
_WHOLE = ("atoms", "steps", "space_group_before", "space_group_after")


@dataclass(frozen=True)
class RelaxedFile:
    """What came of the crystals of a file.

    Attributes:
        table: one row per item of the file: id, formula, atoms, energy_before and energy_after
            (eV/atom), steps, converged, max_force (eV/Å), matches_raw and rmsd (Å) by StructureMatcher
            (in large cells atom by atom), space_group_before, space_group_after and space_group_kept (at
            the tolerance of `RelaxationSettings.symprec`), error. With `keep_symmetry` energy_before is
            that of the symmetrised crystal.
        structures: the relaxed crystals by row of the table; those that failed are missing.
        trajectories: every step of those crystals, where the settings keep them.
        settings: how they were relaxed.
        fresh: crystals relaxed now; the others were in the journal.
        seconds: that this took.
    """

    table: pd.DataFrame
    structures: dict[int, Structure]
    trajectories: dict[int, list[dict]]
    settings: BatchSettings
    fresh: int
    seconds: float

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        """(id, formula, reason) of what could not be read or relaxed."""
        rows = zip(self.table["id"], self.table["formula"], self.table["error"], strict=True)
        return [(name, formula or "no crystal", error) for name, formula, error in rows if error]

    @any_element_in_formulas()
    def save(self, out: Path) -> None:
        """Write ``relax.csv``, ``relaxed.extxyz``, ``cif/``, ``index.html`` and ``trajectories/``.

        A CIF declares the space group (conventional cell) where symmetry was kept; else it is the
        relaxed cell as it is, without symmetry.

        Args:
            out: an empty folder.
        """
        (out / "cif").mkdir()
        without_formulas(self.table).to_csv(out / "relax.csv", index=False)
        write(out / "relaxed.extxyz", self._frames(), format="extxyz")
        relaxation = self.settings.relaxation
        symprec = relaxation.symprec if relaxation.keep_symmetry else None
        names = file_names([name.removesuffix(".cif") for name in self.table["id"]])
        for row, structure in self.structures.items():
            (out / "cif" / f"{names[row]}.cif").write_text(str(CifWriter(structure, symprec=symprec)))
        (out / "index.html").write_text(self._gallery(names), encoding="utf-8")
        for row, steps in self.trajectories.items():
            (out / "trajectories").mkdir(exist_ok=True)
            frames = [_frame(self.structures[row], step) for step in steps]
            write(out / "trajectories" / f"{names[row]}.extxyz", frames, format="extxyz")

    def summary(self) -> dict[str, str]:
        """Counts and medians to show."""
        done = self.table.loc[list(self.structures)]
        rows = {"crystals": f"{len(done)} relaxed, {len(self.table) - len(done)} left out"}
        if len(done):
            middle = done[["energy_before", "energy_after", "steps"]].astype(float)
            drop = 1000 * (middle["energy_before"] - middle["energy_after"]).median()
            rows["converged"] = f"{done['converged'].mean():.1%}; median steps {middle['steps'].median():g}"
            rows["energy gained"] = f"median {drop:.1f} meV/atom"
            rows["still the raw crystal"] = f"{done['matches_raw'].mean():.1%}"
            kept = f"{done['space_group_kept'].mean():.1%} (at {self.settings.relaxation.symprec} Å)"
            rows["space group kept"] = kept
        rows["speed"] = "all from the journal"
        if self.fresh:
            rows["speed"] = f"{60 * self.fresh / self.seconds:.1f} crystals a minute ({self.fresh} now)"
        return {**rows, "protocol": f"{self.settings.relaxer.name}, {self.settings.relaxation}"}

    def _gallery(self, files: Sequence[str]) -> str:
        """The page of the folder: relaxed crystals, each id a link to its CIF, and what came of each."""
        done = self.table.loc[list(self.structures)].drop(columns="error")
        rows = done.rename(columns={"space_group_after": "space_group"}).to_dict("records")

        def drawn(k: int) -> Scene:
            row, structure = done.index[k], self.structures[done.index[k]]
            frac, numbers = structure.frac_coords % 1.0, list(structure.atomic_numbers)
            shown = scene(done["id"][row], done["formula"][row], structure.lattice.matrix, frac, numbers)
            return {**shown, "cif": f"cif/{files[row]}.cif"}

        lead = (
            f"Relaxed with {self.settings.relaxer.name}; energies in eV/atom, forces in eV/Å. "
            f"{len(self.table) - len(done)} are left out, relax.csv says why. A heading sorts, an id opens "
            "its CIF file."
        )
        return render_gallery(f"{len(done)} relaxed crystals", lead, rows, drawn)

    def _frames(self) -> list[Atoms]:
        columns = ["id", "energy_after", "steps", "converged", "max_force"]
        rows = self.table[columns].copy()
        rows["id"] = [name.replace("\\", "\\\\") for name in rows["id"]]  # which ASE leaves to us
        return [
            Atoms(
                list(structure.atomic_numbers),
                scaled_positions=structure.frac_coords,
                cell=structure.lattice.matrix,
                pbc=True,
                info=rows.loc[row].to_dict(),
            )
            for row, structure in self.structures.items()
        ]


def _frame(structure: Structure, step: dict) -> Atoms:
    told = {"energy": step["energy_per_atom"] * len(structure), "max_force": step["largest_force"]}
    return Atoms(list(structure.atomic_numbers), step["positions"], cell=step["cell"], pbc=True, info=told)


def relax_path(path: Path, out: Path, settings: BatchSettings) -> RelaxedFile:
    """Relax every crystal at a path; a run that was interrupted goes on.

    Args:
        path: whatever `read_structures` understands.
        out: folder of the journal, in which every crystal is noted as soon as it is done.
        settings: when a relaxation stops, what it keeps, and in how many processes.

    Raises:
        FileNotFoundError, ValueError: nothing there, a format that is not known, or not one crystal.
    """
    read = read_structures(path)
    if not read.samples:
        first = f"; first {read.failures[0].id}: {read.failures[0].reason}" if read.failures else ""
        raise ValueError(f"expected crystals in {path}: got {len(read.failures)} unreadable items{first}")
    journal, records = out / JOURNAL, {}
    known, began = _lines(journal), time.perf_counter()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("relaxing", total=len(read.samples))
        for record in relax_all(read.samples, settings, journal):
            records[record["number"]] = record
            bar.advance(task)
    fresh, seconds = _lines(journal) - known, time.perf_counter() - began
    symprec = settings.relaxation.symprec
    done = [records[number] for number in range(len(read.samples))]
    relaxed = {n: Structure.from_dict(r["relaxed"]) for n, r in enumerate(done) if not r["error"]}
    trajectories = {n: done[n]["trajectory"] for n in relaxed if "trajectory" in done[n]}
    rows = [_row(sample, done[n], relaxed.get(n), symprec) for n, sample in enumerate(read.samples)]
    table = pd.DataFrame([*rows, *(_unreadable(failure) for failure in read.failures)])
    table["id"] = unique_ids(table["id"])
    table = table.astype(dict.fromkeys(_WHOLE, "Int64"))
    return RelaxedFile(table, relaxed, trajectories, settings, fresh, seconds)


@any_element_in_formulas()
def _row(sample: Sample, record: dict, relaxed: Structure | None, symprec: float) -> dict:
    return {
        "id": sample.id,
        "formula": sample.structure.composition.reduced_formula,
        "atoms": len(sample.structure),
        "energy_before": record.get("start_energy_per_atom"),
        "energy_after": record["energy_per_atom"],
        "steps": record["steps"],
        "converged": record["converged"],
        "max_force": record.get("largest_force"),
        "matches_raw": record["matches_raw"],
        "rmsd": record["rmsd"],
        "space_group_before": space_group(sample.structure, symprec),
        "space_group_after": None if relaxed is None else space_group(relaxed, symprec),
        "space_group_kept": relaxed is not None and keeps_space_group(sample.structure, relaxed, symprec),
        "error": record["error"],
    }


def _unreadable(failure: Failure) -> dict:
    flags = {"converged": False, "matches_raw": False, "space_group_kept": False}
    reason = " ".join(failure.reason.split())
    return {"id": failure.id, "formula": "", **flags, "error": f"cannot be read: {reason}"}


def _lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0
