"""Which polymorph is stable at a temperature and a pressure: the quasi-harmonic approximation by a potential.

Each polymorph is relaxed at several pressures, its space group kept; phonons of the cells give the Helmholtz
energy F(V, T) = E(V) + F_vib(V, T), phonopy's fit of an equation of state (Vinet) its values between, and the
least F + pV over the volumes Gibbs energies. No correction for long-ranged electric fields, no electrons.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from ase.units import GPa
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from pymatgen.core import Composition, Structure

from autoperi.data.cache import required
from autoperi.data.names import unique_ids
from autoperi.data.reading import Sample, read_structures
from evaluation.relaxation.batch import BatchSettings, relax_all
from evaluation.relaxation.journal import append, read_journal
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.stability.phonons import PhononSettings, Spectrum, spectrum

_FEWEST = 5
"""Volumes that an equation of state of four numbers is fitted to."""
_FINE = 2000
"""Volumes at which it is then read."""
_COLOURS = ("#8ecae6", "#ffb703", "#90be6d", "#e07a5f", "#b8a1d9", "#cfcfcf")
_ROOM = 300.0  # K


@dataclass(frozen=True)
class QuasiharmonicSettings:
    """At which volumes phonons are computed, and how.

    Attributes:
        phonons: at each volume; volumes with imaginary ones are left out.
        tension: pressure below the lowest asked for down to which cells are expanded, as heat does, GPa.
        volumes: of each polymorph.
    """

    phonons: PhononSettings = field(default_factory=PhononSettings)
    tension: float = 6.0
    volumes: int = 9

    def pressures(self, asked: np.ndarray) -> np.ndarray:
        """Pressures at which cells are relaxed, GPa."""
        return np.linspace(asked.min() - self.tension, asked.max(), self.volumes).round(3)


@dataclass(frozen=True)
class Compressed:
    """A polymorph relaxed at a pressure (GPa), per formula unit: volume (Å³), energy (eV), phonons of a cell.

    Attributes:
        formula_units: in the cell of the phonons.
        problem: why it serves nothing, or "".
    """

    pressure: float
    volume: float = float("nan")
    energy: float = float("nan")
    formula_units: int = 1
    phonons: Spectrum | None = None
    problem: str = ""

    def helmholtz(self, temperatures: np.ndarray) -> np.ndarray:
        """F, eV a formula unit, [temperatures]."""
        assert self.phonons is not None
        return self.energy + self.phonons.free_energy(temperatures) / self.formula_units


@dataclass(frozen=True)
class Transition:
    """Where one polymorph gives way to another: GPa, K."""

    below: str
    above: str
    pressure: float
    temperature: float

    def __str__(self) -> str:
        """For people."""
        return f"{self.below} to {self.above}: {self.pressure:.2f} GPa at {self.temperature:g} K"


@dataclass(frozen=True)
class StabilityMap:
    """Gibbs energies of polymorphs.

    Attributes:
        formula: that all have.
        temperatures: K. [temperatures]
        pressures: GPa. [pressures]
        gibbs: eV a formula unit, by name; NaN where none of the polymorph's volumes reaches.
            [temperatures, pressures] each
        compressed: what each polymorph was computed from, those left out too.
        left_out: why, by name.
    """

    formula: str
    temperatures: np.ndarray
    pressures: np.ndarray
    gibbs: dict[str, np.ndarray]
    compressed: dict[str, list[Compressed]]
    left_out: dict[str, str]

    @cached_property
    def lowest(self) -> np.ndarray:
        """Number of the polymorph of least Gibbs energy, -1 if none is known, [temperatures, pressures]."""
        all_ = np.stack(list(self.gibbs.values()))
        known = np.isfinite(all_)
        return np.where(known.any(axis=0), np.where(known, all_, np.inf).argmin(axis=0), -1)

    def transitions(self, temperature: float) -> Iterator[Transition]:
        """Those met under rising pressure at the temperature of the map that is nearest, K."""
        row = int(np.abs(self.temperatures - temperature).argmin())
        names = list(self.gibbs)
        for k, (a, b) in enumerate(zip(self.lowest[row], self.lowest[row, 1:], strict=False)):
            if a != b and min(a, b) >= 0:
                apart = self.gibbs[names[b]][row, k : k + 2] - self.gibbs[names[a]][row, k : k + 2]
                share = apart[0] / (apart[0] - apart[1]) if np.isfinite(apart).all() else 0.5
                here = self.pressures[k] + share * (self.pressures[k + 1] - self.pressures[k])
                yield Transition(names[a], names[b], float(here), float(self.temperatures[row]))

    def table(self) -> pd.DataFrame:
        """A row for each temperature (K) and pressure (GPa): the most stable one, G of each (eV)."""
        t, p = np.meshgrid(self.temperatures, self.pressures, indexing="ij")
        names = np.array([*self.gibbs, ""])
        columns = {name: values.ravel() for name, values in self.gibbs.items()}
        rows = {"temperature": t.ravel(), "pressure": p.ravel(), "stable": names[self.lowest].ravel()}
        return pd.DataFrame({**rows, **columns})

    def record(self) -> dict:
        """For a file: transitions at every temperature, volumes with their least frequencies."""
        found = [vars(x) for t in self.temperatures for x in self.transitions(t)]
        volumes = {
            name: [
                {
                    "pressure": c.pressure,
                    "volume": c.volume if np.isfinite(c.volume) else None,
                    "least_frequency": None if c.phonons is None else round(c.phonons.decisive, 3),
                    "interpolated": None if c.phonons is None else round(c.phonons.interpolated, 3),
                    "problem": c.problem,
                }
                for c in points
            ]
            for name, points in self.compressed.items()
        }
        return {"formula": self.formula, "transitions": found, "left_out": self.left_out, "volumes": volumes}

    def save(self, out: Path) -> None:
        """Write ``map.png``, ``map.csv`` and ``map.json`` into a folder."""
        self.picture().savefig(out / "map.png", dpi=150)
        self.table().to_csv(out / "map.csv", index=False)
        (out / "map.json").write_text(json.dumps(self.record(), indent=1))

    def picture(self) -> Figure:
        """The polymorph of least Gibbs energy over pressure and temperature; beside it G at 300 K of each.

        White is where no polymorph's volumes reach.
        """
        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        names, p, t = list(self.gibbs), self.pressures, self.temperatures
        colours = [_COLOURS[k % len(_COLOURS)] for k in range(len(names))]
        shown = np.ma.masked_less(self.lowest, 0)
        limits = {"vmin": -0.5, "vmax": len(names) - 0.5}
        left.pcolormesh(p, t, shown, cmap=ListedColormap(colours), shading="nearest", **limits)
        lines = [(x.pressure, x.temperature) for row in t for x in self.transitions(row)]
        if lines:
            left.plot(*zip(*lines, strict=True), ".", color="black", markersize=3)
        left.legend(handles=[Patch(color=c, label=n) for c, n in zip(colours, names, strict=True)])
        left.set(xlabel="pressure (GPa)", ylabel="temperature (K)", title=f"{self.formula}: stable polymorph")
        row = int(np.abs(t - _ROOM).argmin())
        first = self.gibbs[names[0]][row]
        for name, colour in zip(names, colours, strict=True):
            right.plot(p, 1000 * (self.gibbs[name][row] - first), color=colour, label=name, lw=2)
        ylabel = f"G less that of {names[0]} (meV a formula unit)"
        right.set(xlabel="pressure (GPa)", ylabel=ylabel, title=f"{t[row]:g} K")
        right.legend()
        return figure


def read_polymorphs(paths: Iterable[Path]) -> tuple[dict[str, Structure], list[tuple[str, str, str]]]:
    """Crystals of files by the files' names, and (id, where, reason) of what is none.

    Raises:
        FileNotFoundError, ReadError: nothing there, or a kind of file that is not known.
    """
    read = [read_structures(path) for path in paths]
    samples = [sample for part in read for sample in part.samples]
    names = unique_ids(sample.id for sample in samples)
    failures = [(f.id, f.where, f.reason) for part in read for f in part.failures]
    return dict(zip(names, (sample.structure for sample in samples), strict=True)), failures


def stability_map(
    polymorphs: Mapping[str, Structure],
    temperatures: Sequence[float] | np.ndarray,
    pressures: Sequence[float] | np.ndarray,
    relaxer: BatchRelaxer,
    settings: QuasiharmonicSettings = QuasiharmonicSettings(),
    out: Path | None = None,
) -> StabilityMap:
    """Gibbs energies of polymorphs by the quasi-harmonic approximation.

    Args:
        polymorphs: of one formula, by name.
        temperatures: K, from 0 up.
        pressures: GPa, two or more, rising.
        relaxer: whose energies and forces are taken.
        settings: how.
        out: a folder for journals, from which an interrupted run goes on; made if it is not there.

    Raises:
        ValueError: fewer than two polymorphs, several formulas, temperatures below 0 K, pressures that do
            not rise, or fewer than two polymorphs that are left: the message says why each is not.
        ImportError: without phonopy, which the extra ``phonons`` installs.
    """
    required("phonopy", "phonons")
    t, p = np.asarray(temperatures, dtype=float), np.asarray(pressures, dtype=float)
    finite = np.isfinite(t).all() and np.isfinite(p).all()
    if not (finite and len(t) and len(p) > 1 and t.min() >= 0 and (np.diff(p) > 0).all()):
        told = f"{t[:1]} to {t[-1:]} K, {p[:1]} to {p[-1:]} GPa"
        raise ValueError(
            f"expected finite temperatures from 0 K up and rising pressures, two or more: got {told}"
        )
    formulas = {name: s.composition.reduced_formula for name, s in polymorphs.items()}
    if len(polymorphs) < 2 or len(set(formulas.values())) > 1:
        told = ", ".join(f"{name} ({formula})" for name, formula in formulas.items())
        raise ValueError(f"expected two or more polymorphs of one formula: got {told or 'none'}")
    if out:
        out.mkdir(parents=True, exist_ok=True)
    compressed = _compressed(polymorphs, settings.pressures(p), relaxer, settings, out)
    gibbs, left_out = {}, {}
    for name, points in compressed.items():
        kept = [c for c in points if not c.problem]
        if len(kept) < _FEWEST:
            problems = "; ".join(f"{c.pressure:g} GPa: {c.problem}" for c in points if c.problem)
            left_out[name] = (
                f"{len(kept)} of {len(points)} volumes are left, {_FEWEST} are needed ({problems})"
            )
            continue
        try:
            gibbs[name] = gibbs_energies(kept, t, p)
        except RuntimeError as error:  # phonopy's, of a fit
            left_out[name] = f"no equation of state: {error}"
    if len(gibbs) < 2:
        told = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(f"expected two polymorphs with phonons: {told}")
    return StabilityMap(next(iter(formulas.values())), t, p, gibbs, compressed, left_out)


def gibbs_energies(
    points: Sequence[Compressed], temperatures: np.ndarray, pressures: np.ndarray
) -> np.ndarray:
    """G = min over V of F(V, T) + pV, eV a formula unit; NaN where the least is at the last volume.

    Raises:
        RuntimeError: no equation of state fits.
    """
    from phonopy.qha.eos import fit_to_eos, get_eos

    vinet = get_eos("vinet")
    points = sorted(points, key=lambda c: c.volume)
    volumes = np.array([c.volume for c in points])
    helmholtz = np.stack([c.helmholtz(temperatures) for c in points], axis=1)
    fine = np.linspace(volumes[0], volumes[-1], _FINE)
    work = GPa * pressures[:, None] * fine
    gibbs = np.full((len(temperatures), len(pressures)), np.nan)
    for row, values in zip(gibbs, helmholtz, strict=True):
        enthalpies = vinet(fine, fit_to_eos(volumes, values, vinet)) + work
        least = enthalpies.argmin(axis=1)
        inside = (least > 0) & (least < _FINE - 1)
        row[inside] = enthalpies.min(axis=1)[inside]
    return gibbs


def _compressed(
    polymorphs: Mapping[str, Structure],
    pressures: np.ndarray,
    relaxer: BatchRelaxer,
    settings: QuasiharmonicSettings,
    out: Path | None,
) -> dict[str, list[Compressed]]:
    """Every polymorph at every pressure."""
    samples = [Sample(name, structure.get_primitive_structure()) for name, structure in polymorphs.items()]
    journal = out / "phonons.jsonl" if out else None
    known = {(r["key"], r["how"]): r for r in read_journal(journal)} if journal else {}
    found: dict[str, list[Compressed]] = {name: [] for name in polymorphs}
    for pressure in pressures.tolist():
        relaxation = replace(settings.phonons.relaxation, pressure=pressure)
        how = BatchSettings(relaxation, relaxer=relaxer)
        for record in relax_all(samples, how, out / "relaxed.jsonl" if out else None):
            problem = record["error"] or ("" if record["converged"] else "the relaxation does not settle")
            if problem:
                found[record["id"]].append(Compressed(pressure, problem=problem))
                continue
            structure = Structure.from_dict(record["relaxed"])
            phonons = known.get((record["key"], str(settings.phonons)))
            if phonons is None:
                made = spectrum(structure, relaxer, settings.phonons)
                phonons = {
                    "key": record["key"],
                    "how": str(settings.phonons),
                    "frequencies": made.frequencies.round(6).tolist(),
                    "weights": made.weights.tolist(),
                    "decisive": made.decisive,
                }
                if journal:
                    append(journal, phonons)
            arrays = np.array(phonons["frequencies"]), np.array(phonons["weights"])
            made = Spectrum(*arrays, phonons["decisive"])
            units = _formula_units(structure.composition)
            least = f"{made.decisive:.2f} THz"
            found[record["id"]].append(
                Compressed(
                    pressure,
                    structure.volume / units,
                    record["energy_per_atom"] * len(structure) / units,
                    units,
                    made,
                    "" if settings.phonons.stable(made.decisive) else f"imaginary phonons, {least}",
                )
            )
    return found


def _formula_units(composition: Composition) -> int:
    return round(composition.get_reduced_composition_and_factor()[1])
