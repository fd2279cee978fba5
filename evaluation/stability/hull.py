"""The convex hull of formation energies, and how far above it a composition lies."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core import Composition, Element
from scipy.optimize import linprog

if TYPE_CHECKING:
    import pandas as pd

_N_ELEMENTS = 118
_PAIR = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")
_FLAT = re.compile(rf"(?:{_PAIR.pattern})+")


class ConvexHull:
    """Lower hull over composition of any table of formation energies.

    The hull energy at a composition x is the cheapest mixture of known phases,
    min Σ λ_i F_i with Σ λ_i x_i = x and λ ≥ 0 (atomic fractions, eV/atom): the linear programme
    behind the geometric construction (Ong et al. 2008, doi:10.1021/cm702327g), equal to pymatgen's
    PhaseDiagram but without its growth with the number of elements. Phases are restricted to the
    chemical system asked for; the elements are always there at 0 eV/atom.
    """

    def __init__(
        self, compositions: Sequence[Composition | str], formation_energies: Sequence[float]
    ) -> None:
        """Take a table of phases.

        Args:
            compositions: of the phases.
            formation_energies: eV/atom; NaN rows are left out.
        """
        energies = np.asarray(formation_energies, dtype=float)
        if len(compositions) != len(energies):
            raise ValueError(
                f"expected one energy per composition: got {len(energies)} energies for "
                f"{len(compositions)} compositions"
            )
        known = np.isfinite(energies)
        rows = [_fractions(c) for c, ok in zip(compositions, known, strict=True) if ok]
        lowest: dict[bytes, tuple[np.ndarray, float]] = {
            row.tobytes(): (row, 0.0) for row in np.eye(_N_ELEMENTS)
        }
        for row, energy in zip(rows, energies[known], strict=True):
            key = np.round(row, 8).tobytes()
            if key not in lowest or energy < lowest[key][1]:
                lowest[key] = (row, float(energy))
        self._fractions = np.array([row for row, _ in lowest.values()])
        self._energies = np.array([energy for _, energy in lowest.values()])
        self._system = _bits(self._fractions > 0)
        self.n_phases = int(known.sum())

    @classmethod
    def from_table(
        cls,
        table: "pd.DataFrame | Path | str",
        composition: str = "composition",
        energy: str = "formation_energy_per_atom",
    ) -> "ConvexHull":
        """Hull of a table of phases: a data frame, or a CSV file (gzipped or not).

        Args:
            table: one row per phase; rows without an energy are left out.
            composition: name of the column of formulas.
            energy: name of the column of formation energies, eV/atom.

        Raises:
            ValueError: when a column is missing, or a formula or an energy cannot be read.
        """
        import pandas as pd

        if not isinstance(table, pd.DataFrame):
            # "NaN" would be read as missing, and it is a formula.
            table = pd.read_csv(table, keep_default_na=False, dtype=str)
        missing = {composition, energy} - set(table.columns)
        if missing:
            raise ValueError(f"no column {sorted(missing)}: the table has {list(table.columns)}")
        energies = np.asarray(pd.to_numeric(table[energy].replace("", np.nan)), dtype=float)
        return cls(table[composition].tolist(), energies.tolist())

    @classmethod
    def from_mp20(cls, data_dir: Path | str) -> "ConvexHull":
        """Hull of every labelled MP-20 row, all splits, under a data folder.

        It gives the Materials Project's own `e_above_hull` to about 2.5 meV/atom.
        """
        import pandas as pd

        columns = ("pretty_formula", "formation_energy_per_atom")
        folder = Path(data_dir) / "mp_20"
        paths = []
        for split in ("train", "val", "test"):
            found = [p for s in (".csv.gz", ".csv") if (p := folder / f"{split}{s}").exists()]
            if not found:
                raise FileNotFoundError(
                    f"no {split}.csv or {split}.csv.gz in {folder}: the hull needs all three splits"
                )
            paths.append(found[0])
        tables = [
            pd.read_csv(p, usecols=lambda c: c in columns, keep_default_na=False, dtype=str) for p in paths
        ]
        return cls.from_table(pd.concat(tables), *columns)

    def hull_energy(self, composition: Composition | str) -> float:
        """Energy of the hull at a composition, eV/atom; at most 0."""
        target = _fractions(composition)
        system = target > 0
        inside = ((self._system & ~_bits(system[None])) == 0).all(axis=1)
        result = linprog(
            self._energies[inside],
            A_eq=self._fractions[inside][:, system].T,
            b_eq=target[system],
            bounds=(0, None),
            method="highs",
        )
        if not result.success:
            raise RuntimeError(f"hull of {composition}: {result.message}")
        return float(result.fun)

    def above(self, composition: Composition | str, formation_energy: float) -> float:
        """Energy above the hull, eV/atom; negative for a phase that would lower the hull."""
        return formation_energy - self.hull_energy(composition)


def _fractions(composition: Composition | str) -> np.ndarray:
    """Atomic fractions by atomic number; a formula without brackets needs no Composition."""
    if isinstance(composition, str) and _FLAT.fullmatch(composition):
        amounts = [(symbol, float(n or 1)) for symbol, n in _PAIR.findall(composition)]
    else:
        amounts = list(Composition(composition).get_el_amt_dict().items())
    row = np.zeros(_N_ELEMENTS)
    for symbol, amount in amounts:
        row[_number(symbol) - 1] += amount
    return row / row.sum()


@cache
def _number(symbol: str) -> int:
    return Element(symbol).Z


def _bits(present: np.ndarray) -> np.ndarray:
    """Which elements are present, as two 64-bit words a row: fast to compare for 40,000 phases."""
    padded = np.zeros((len(present), 128), dtype=np.uint8)
    padded[:, :_N_ELEMENTS] = present
    return np.packbits(padded, axis=1).view(np.uint64)
