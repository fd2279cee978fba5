"""How new a crystal is, in four levels; the first that holds is its own.

* ``duplicate``: a known crystal, by the matcher.
* ``substitution``: a known crystal with other elements: the matcher finds it once the elements have exchanged
  names one to one and volumes are equal.
* ``known_gene``: a known prototype elsewhere in composition space: space group and Wyckoff letters occur in
  the reference, but with other ratios of elements, in another order on the sites, or in another geometry.
* ``new_gene``: space group and Wyckoff letters occur nowhere in the reference.

Matcher, matcher without names, and genes under every relabelling by the normaliser are where Negishi and
Walsh (arXiv:2606.23166) look for what a crystal derives from. They then exchange elements site by site,
relax, and count what arrives at the crystal; nothing is relaxed here: no level depends on a potential.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import chain, permutations, product
from math import factorial, prod

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from autoperi.data.workers import mapped
from evaluation.facts.chemistry import anonymous_formula
from evaluation.facts.levels import LEVELS
from evaluation.facts.matching import MatchSettings, Twins, anonymous_cell
from evaluation.facts.reference import Reference

_MOST_EXCHANGES = 720  # ways in which elements of equal amounts change names: six of one amount


_STEP = 0.02  # of a cell, a fifteenth of the matcher's usual tolerance; 2° of its angles
_DEFAULT = MatchSettings()
_MOST_POINTS = 1_000_000  # of a lattice that are looked at; needles and sheets would have more


def novelty_levels(
    facts: pd.DataFrame, duplicates: Twins, templates: Twins, reference: Reference
) -> list[str]:
    """The level of every crystal; without a space group it counts as P1.

    Args:
        facts: `describe` of every crystal.
        duplicates: `known_in` the reference.
        templates: `templates_in` the reference.
        reference: what is known.
    """
    genes = facts["gene"].fillna("1:" + facts["n_sites"].map(lambda n: "a" * n))
    rows = zip(duplicates.match, templates.match, genes, strict=True)
    return [
        LEVELS[0 if twin is not None else 1 if template is not None else 2 if gene in reference.genes else 3]
        for twin, template, gene in rows
    ]


def templates_in(
    structures: Sequence[Structure],
    facts: pd.DataFrame,
    reference: Reference,
    settings: MatchSettings = _DEFAULT,
    skip: Collection[int] = (),
    workers: int = 1,
) -> Twins:
    """For every crystal a reference crystal that it is with other elements, of its own gene if there is one.

    Reference crystals that are alike without their names, to 2% of the cell, are compared once.

    Args:
        structures: the crystals.
        facts: `describe` of each.
        reference: what is known.
        settings: the matcher.
        skip: positions that are not looked up.
        workers: processes.
    """
    search = _searched(reference, settings)
    asked = [k for k in range(len(structures)) if k not in skip]
    formulas, genes = facts["formula"].tolist(), facts["gene"].fillna("").tolist()
    items = [(structures[k], formulas[k], genes[k]) for k in asked]
    found = mapped(search.template, items, workers, lambda _, reason: (None, 0, reason), together=8)
    match: list[int | None] = [None] * len(structures)
    pairs, failures = 0, {}
    for k, (row, compared, reason) in zip(asked, found, strict=True):
        match[k] = row
        pairs += compared
        if reason:
            failures[k] = f"with other elements: {reason}"
    return Twins(tuple(match), pairs, failures, settings)


@lru_cache(maxsize=8)
def _searched(reference: Reference, settings: MatchSettings) -> "_Search":
    return _Search(reference, settings)


class _Search:
    """The anonymous cells of a reference by anonymous formula and number of atoms."""

    def __init__(self, reference: Reference, settings: MatchSettings) -> None:
        self._reference, self._settings = reference, settings
        self._matcher = settings.matcher()
        formulas = reference.table["formula"]
        names = {formula: anonymous_formula(formula) for formula in formulas.unique()}
        self._genes = reference.table["gene"].fillna("").tolist()
        cells, counts = reference.anonymous_cells
        self._lattices = _parameters(cells)
        self._members = defaultdict(list)
        for row, (formula, n) in enumerate(zip(formulas, counts, strict=True)):
            self._members[names[formula], n].append(row)
        self._kinds: dict[tuple[str, int], list[int]] = {}

    def _rows(self, key: tuple[str, int]) -> list[int]:
        """Reference crystals of an anonymous formula and number of atoms, the first of each shape."""
        if key not in self._kinds:
            rows = reversed(self._members.get(key, []))
            self._kinds[key] = sorted({self._shape(row): row for row in rows}.values())
        return self._kinds[key]

    def _shape(self, row: int) -> str:
        """Cell and positions of an anonymous cell in steps of 2%."""
        cell, lattice = self._reference.anonymous(row), self._lattices[row]
        places = np.round(cell.frac_coords / _STEP).astype(int) % round(1 / _STEP)
        sites = sorted(zip(cell.atomic_numbers, places.tolist(), strict=True))
        return str((np.round(lattice / ([_STEP] * 3 + [100 * _STEP] * 3)).tolist(), sites))

    def template(self, item: tuple[Structure, str, str]) -> tuple[int | None, int, str]:
        """First reference crystal that matches without names, pairs compared, and what went wrong."""
        structure, formula, gene = item
        pairs, reason = 0, ""
        try:
            cell = anonymous_cell(structure)
            rows = self._rows((anonymous_formula(formula), len(cell)))
            if not rows:
                return None, 0, ""
            ways = list(_exchanges(cell))
            near = _Near(cell.lattice.matrix, self._lattices[rows], self._settings)
        except Exception as error:  # pymatgen's reductions fail in many ways
            return None, 0, str(error)
        for row in sorted(rows, key=lambda row: self._genes[row] != gene):
            if not near(self._lattices[row]):
                continue
            pairs += 1
            other = self._reference.anonymous(row)
            try:
                if any(self._matcher.fit(own, other, skip_structure_reduction=True) for own in ways):
                    return row, pairs, ""
            except Exception as error:  # and so do its comparisons
                reason = f"comparison with {row}: {error}"
        return None, pairs, reason


def _exchanges(cell: Structure) -> Iterator[Structure]:
    """An anonymous cell under every exchange of elements of equal amounts."""
    amounts = Counter(cell.atomic_numbers)
    groups = defaultdict(list)
    for z in sorted(amounts):
        groups[amounts[z]].append(z)
    ways = prod(factorial(len(group)) for group in groups.values())
    if ways > _MOST_EXCHANGES:
        raise ValueError(f"its elements can be exchanged in {ways} ways, more than {_MOST_EXCHANGES}")
    elements = list(chain(*groups.values()))
    for orders in product(*(permutations(group) for group in groups.values())):
        names = dict(zip(elements, chain(*orders), strict=True))
        numbers = [names[z] for z in cell.atomic_numbers]
        yield Structure(cell.lattice, numbers, cell.frac_coords)  # type: ignore[arg-type]


class _Near:
    """Whether a lattice has a primitive cell of nearly given lengths and angles: else nothing on it matches.

    The cells that StructureMatcher tries (`Lattice.find_all_mappings` at equal volumes), for many lattices at
    the price of few: the short vectors are found once.
    """

    def __init__(self, lattice: np.ndarray, others: np.ndarray, settings: MatchSettings) -> None:
        self._ratio, self._angle = 1 + settings.ltol + 1e-6, settings.angle_tol + 1e-4
        lattice = lattice / np.cbrt(abs(np.linalg.det(lattice)))
        longest = others[:, :3].max() * self._ratio
        most = np.floor(longest * np.linalg.norm(np.linalg.inv(lattice), axis=0)).astype(int)
        if prod((2 * most + 1).tolist()) > _MOST_POINTS:
            raise ValueError("its cell is too flat or too thin")
        whole = np.array(list(product(*(range(-n, n + 1) for n in most))))
        lengths = np.linalg.norm(whole @ lattice, axis=1)
        kept = (lengths > 0) & (lengths <= longest)
        self._whole, self._lengths = whole[kept], lengths[kept]
        self._units = self._whole @ lattice / self._lengths[:, None]

    def __call__(self, other: np.ndarray) -> bool:
        """Of lengths and angles at volume 1, as `_parameters` gives them."""
        a, b, c = (
            np.flatnonzero((self._lengths < x * self._ratio) & (self._lengths > x / self._ratio))
            for x in other[:3]
        )
        bc, ac, ab = (
            np.abs(_degrees(self._units[first] @ self._units[second].T) - angle) <= self._angle
            for first, second, angle in zip((b, a, a), (c, c, b), other[3:], strict=True)
        )
        i, j, k = np.nonzero(ab[:, :, None] & ac[:, None, :] & bc[None])
        cells = np.stack([self._whole[a[i]], self._whole[b[j]], self._whole[c[k]]], axis=1)
        return bool((np.abs(np.abs(np.linalg.det(cells.astype(float))) - 1) < 0.5).any())


def _parameters(cells: np.ndarray) -> np.ndarray:
    """Lengths and angles (degrees) of cells brought to volume 1, [n, 6]."""
    cells = cells / np.cbrt(np.abs(np.linalg.det(cells)))[:, None, None]
    lengths = np.linalg.norm(cells, axis=-1)
    units = cells / lengths[..., None]
    cosines = [(units[:, i] * units[:, j]).sum(axis=-1) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.concatenate([lengths, _degrees(np.stack(cosines, axis=1))], axis=1)


def _degrees(cosines: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))
