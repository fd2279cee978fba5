"""The convex hull of formation energies of phases that are named by formulas."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core import Composition, Element

from autoperi.crystals.hull import Hull
from autoperi.data.download import SPLITS, dataset_file

if TYPE_CHECKING:
    import pandas as pd

_PAIR = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")
_FLAT = re.compile(rf"(?:{_PAIR.pattern})+")


class ConvexHull:
    """Lower hull over composition (`autoperi.crystals.hull`) of any table of formation energies.

    It equals pymatgen's PhaseDiagram. The elements are always there at 0 eV/atom.
    """

    def __init__(
        self, compositions: Sequence[Composition | str], formation_energies: Sequence[float]
    ) -> None:
        """Take a table of phases.

        Args:
            compositions: of the phases.
            formation_energies: eV/atom; NaN rows are left out.
        """
        amounts = [_amounts(c) for c in compositions]
        self._hull = Hull(amounts, np.asarray(formation_energies, dtype=float))

    @property
    def n_phases(self) -> int:
        """Phases with an energy."""
        return self._hull.n_phases

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
        told = table[energy].replace("", np.nan)
        energies = np.asarray(pd.to_numeric(told, errors="coerce"), dtype=float)
        if strange := told[told.notna() & ~np.isfinite(energies)].tolist():
            some = ", ".join(map(repr, strange[:3]))
            raise ValueError(f"expected numbers in column {energy}, eV/atom, or nothing: got {some}")
        return cls(table[composition].tolist(), energies.tolist())

    @classmethod
    def from_mp20(cls, data_dir: Path | str | None = None) -> "ConvexHull":
        """Hull of every labelled MP-20 row, all splits, found or downloaded as by `dataset_file`.

        It gives the Materials Project's own `e_above_hull` to about 2.5 meV/atom.
        """
        import pandas as pd

        columns = ("pretty_formula", "formation_energy_per_atom")
        paths = [dataset_file("mp_20", split, data_dir) for split in SPLITS]
        tables = [
            pd.read_csv(p, usecols=lambda c: c in columns, keep_default_na=False, dtype=str) for p in paths
        ]
        return cls.from_table(pd.concat(tables), *columns)

    def hull_energy(self, composition: Composition | str) -> float:
        """Energy of the hull at a composition, eV/atom; at most 0."""
        return self._hull.energy(_amounts(composition))

    def above(self, composition: Composition | str, formation_energy: float) -> float:
        """Energy above the hull, eV/atom; negative for a phase that would lower the hull."""
        return formation_energy - self.hull_energy(composition)

    def decomposition(self, composition: Composition | str) -> str:
        """The phases that the hull mixes at a composition, the largest share first, e.g. ``NaCl + Cl2``.

        Elements among the products of a salt say that the table lacks phases, more often than that the salt
        is a discovery.
        """
        phases = self._hull.mixture(_amounts(composition))
        return " + ".join(_formula(fractions) for fractions, _ in phases)


def _formula(fractions: Mapping[int, float]) -> str:
    """Reduced formula of atomic fractions."""
    shares = Composition({Element.from_Z(z): part for z, part in fractions.items()})
    return shares.get_integer_formula_and_factor(max_denominator=1000)[0]


def _amounts(composition: Composition | str) -> dict[int, float]:
    """Amounts by atomic number; a formula without brackets needs no Composition."""
    if isinstance(composition, str) and _FLAT.fullmatch(composition):
        pairs = [(symbol, float(n or 1)) for symbol, n in _PAIR.findall(composition)]
    else:
        pairs = list(_composition(composition).get_el_amt_dict().items())
    amounts: dict[int, float] = {}
    for symbol, amount in pairs:
        amounts[_number(symbol)] = amounts.get(_number(symbol), 0.0) + amount
    if not sum(amounts.values()) > 0:
        raise ValueError(f"expected the formula of a phase: got {composition!r}")
    return amounts


def _composition(formula: Composition | str) -> Composition:
    try:
        return Composition(formula)
    except ValueError as error:
        raise ValueError(f"expected the formula of a phase: got {formula!r} ({error})") from error


@cache
def _number(symbol: str) -> int:
    if not Element.is_valid_symbol(symbol):
        raise ValueError(f"expected formulas of elements from H to Og: got {symbol!r} in one of the phases")
    return Element(symbol).Z
