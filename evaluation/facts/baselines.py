"""Three generators that need no training, for every comparison: what a model must beat.

Crystal i depends on (seed, i) alone. A draw that fails is replaced by the next one of the same crystal's
own randomness, and its reason is counted.
"""

import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import moyopy
import numpy as np
from pymatgen.core import Composition, Element, Species, Structure

from autoperi.data.cache import cached, versions
from autoperi.data.workers import mapped
from evaluation.facts.reference import Reference

_ATTEMPTS = 60  # reference crystals tried for one crystal before it is given up
_PICKS = 100  # substitutions tried on one prototype
_LAYOUT = 1  # raise it when a baseline changes: old caches are then left alone


@dataclass(frozen=True)
class Drawn:
    """What a baseline gave.

    Attributes:
        structures: the crystals, in order; at most as many as asked for.
        rejected: how many draws failed, by reason.
        method: in words.
    """

    structures: tuple[Structure, ...]
    rejected: Mapping[str, int]
    method: str


def draw_baseline(
    name: str,
    reference: Reference,
    n: int,
    seed: int = 0,
    workers: int = 1,
    cache_dir: Path | str | None = None,
) -> Drawn:
    """Crystals of one baseline of `BASELINES`.

    Args:
        name: which one.
        reference: where compositions, space groups, volumes and prototypes come from.
        n: how many crystals.
        seed: of all randomness.
        workers: processes.
        cache_dir: folder in which the result is kept and looked for.

    Raises:
        ValueError: for an unknown name, or a reference without crystals.
    """
    from rich.progress import track

    if name not in BASELINES:
        raise ValueError(f"no baseline {name!r}: expected one of {', '.join(BASELINES)}")
    if not len(reference):
        raise ValueError("the reference holds no crystals: baselines draw from it")

    def make() -> Drawn:
        draw = partial(_draw_one, name, reference, seed)
        results = mapped(draw, range(n), workers, lambda _, reason: (None, [reason]))
        rejected: Counter[str] = Counter()
        structures = []
        for structure, reasons in track(results, total=n, description=f"drawing: {name}"):
            rejected.update(reasons)
            if structure is not None:
                structures.append(structure)
        return Drawn(tuple(structures), dict(rejected.most_common()), BASELINES[name][1])

    if cache_dir is None:
        return make()
    made_with = "-".join(f"{library}{version}" for library, version in versions("pymatgen", "pyxtal").items())
    label = f"{name.replace(' ', '-')}-{reference.digest[:12]}-seed{seed}-n{n}-{_LAYOUT}-{made_with}.json"
    return cached(Path(cache_dir) / label, _read, make, _write)


class _RejectedError(Exception):
    """A draw that gives no crystal, and why."""


def _draw_one(name: str, reference: Reference, seed: int, index: int) -> tuple[Structure | None, list[str]]:
    """Crystal number `index`, and why earlier draws of it failed."""
    rng = np.random.default_rng((seed, index))
    order = np.random.default_rng(seed).permutation(len(reference))
    rows = [int(order[index % len(order)]), *rng.integers(0, len(reference), _ATTEMPTS - 1).tolist()]
    reasons = []
    for row in rows:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return BASELINES[name][0](reference.structure(row), rng), reasons
        except _RejectedError as error:
            reasons.append(str(error))
    return None, [*reasons, f"given up after {_ATTEMPTS} reference crystals"]


def _resampled(crystal: Structure, _rng: np.random.Generator) -> Structure:
    return crystal


def _random(crystal: Structure, rng: np.random.Generator) -> Structure:
    """Atoms of one reference crystal placed at random on Wyckoff positions of its space group.

    PyXtal (doi:10.1016/j.cpc.2020.107810) draws the cell, the positions and the coordinates; the cell is
    then scaled to the reference crystal's volume per atom.
    """
    from pyxtal import pyxtal

    cell = moyopy.Cell(
        crystal.lattice.matrix.tolist(), crystal.frac_coords.tolist(), list(crystal.atomic_numbers)
    )
    try:
        standard = moyopy.MoyoDataset(cell, symprec=0.1)
    except Exception as error:  # moyopy's errors derive from Exception only
        raise _RejectedError("no space group found") from error
    counts = Counter(standard.std_cell.numbers)
    made = pyxtal()
    try:
        made.from_random(
            3,
            int(standard.number),
            [Element.from_Z(z).symbol for z in counts],
            list(counts.values()),
            random_state=int(rng.integers(2**31)),
        )
    except Exception as error:
        raise _RejectedError(f"PyXtal: {type(error).__name__}") from error
    if not made.valid:
        raise _RejectedError("PyXtal: no arrangement without clashes")
    conventional = made.to_pymatgen()
    assert isinstance(conventional, Structure)  # not a molecule: dimension 3
    structure = conventional.get_primitive_structure()
    structure.scale_lattice(crystal.volume / len(crystal) * len(structure))
    return structure


def _substituted(crystal: Structure, rng: np.random.Generator) -> Structure:
    """Ions of one reference crystal exchanged by how often nature exchanges them.

    Every species is replaced by a draw from p(new | old) of Hautier et al. (doi:10.1021/ic102031h), as
    pymatgen ships it, until the crystal is neutral, no two species have become one, and something has
    changed; the volume is then predicted from bond lengths (Chu et al., Comput. Mater. Sci. 146, 184, 2018,
    pymatgen's DLSVolumePredictor). Charges are guessed from the composition, so that compounds without
    a neutral assignment, most intermetallics among them, are no prototypes.
    """
    from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor

    names, table = _substitution_table()
    charges = _charges(crystal.composition.reduced_formula)
    if charges is None:
        raise _RejectedError("no neutral charges for the prototype")
    counts = {symbol: round(k) for symbol, k in crystal.composition.get_el_amt_dict().items()}
    old = [names.get(f"{symbol}{charges[symbol]:+g}") for symbol in counts]
    if any(position is None for position in old):
        raise _RejectedError("a species of the prototype has no substitution data")
    new = _neutral_draw([int(p) for p in old if p is not None], list(counts.values()), table, rng)
    species = _species()
    exchange = {Element(symbol): Element(species[k].symbol) for symbol, k in zip(counts, new, strict=True)}
    structure = crystal.copy()
    structure.remove_oxidation_states()
    structure.replace_species(exchange)  # type: ignore[arg-type]
    try:
        return DLSVolumePredictor().get_predicted_structure(structure)
    except Exception as error:
        raise _RejectedError(f"no volume predicted: {type(error).__name__}") from error


def _neutral_draw(
    old: list[int], counts: list[int], table: np.ndarray, rng: np.random.Generator
) -> list[int]:
    """Positions of the new species; raises when no draw is neutral, distinct and new."""
    species = _species()
    charge = np.array([float(s.oxi_state or 0) for s in species])
    symbols = [s.symbol for s in species]
    picks = np.stack([rng.choice(len(species), _PICKS, p=table[k]) for k in old], axis=1)
    neutral = np.abs(charge[picks] @ np.array(counts)) < 1e-6
    before = [symbols[k] for k in old]
    for pick in picks[neutral]:
        after = [symbols[k] for k in pick]
        if len(set(after)) == len(after) and after != before:
            return [int(k) for k in pick]
    raise _RejectedError("no neutral substitution drawn")


@cache
def _species() -> tuple[Species, ...]:
    from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability

    return tuple(sorted(SubstitutionProbability().species, key=str))


@cache
def _substitution_table() -> tuple[Mapping[str, int], np.ndarray]:
    """Position of each species by its name, and p(new | old) with one row per old species."""
    from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability

    model = SubstitutionProbability()
    species = _species()
    table = np.array([[model.prob(old, new) for new in species] for old in species])
    names = {f"{s.symbol}{float(s.oxi_state or 0):+g}": k for k, s in enumerate(species)}
    return names, table / table.sum(axis=1, keepdims=True)


@cache
def _charges(formula: str) -> Mapping[str, float] | None:
    """The likeliest neutral integer charges of a formula (pymatgen's guess), or None."""
    guesses = Composition(formula).oxi_state_guesses(max_sites=-1)
    if not guesses or any(not float(q).is_integer() or q == 0 for q in guesses[0].values()):
        return None
    return guesses[0]


def _write(file: Path, drawn: Drawn) -> None:
    plain = {
        "method": drawn.method,
        "rejected": dict(drawn.rejected),
        "structures": [structure.as_dict(verbosity=0) for structure in drawn.structures],
    }
    file.write_text(json.dumps(plain) + "\n")


def _read(file: Path) -> Drawn:
    plain = json.loads(file.read_text())
    structures = tuple(Structure.from_dict(entry) for entry in plain["structures"])
    return Drawn(structures, plain["rejected"], plain["method"])


BASELINES: Mapping[str, tuple[Callable[[Structure, np.random.Generator], Structure], str]] = {
    "reference resampled": (_resampled, "crystals of the reference drawn without replacement"),
    "random (PyXtal)": (
        _random,
        "composition, space group and volume per atom of a reference crystal, Wyckoff positions, cell shape "
        "and coordinates at random by PyXtal",
    ),
    "ion substitution": (
        _substituted,
        "ions of a reference crystal exchanged by pymatgen's substitution probabilities, neutral, volume "
        "predicted from bond lengths; prototypes with guessable charges only",
    ),
}
