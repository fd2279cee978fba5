"""A crystal led to a property: down a gradient in the latent coordinates, and by exchange of elements."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from autoperi.crystals.crystal import Crystal, Crystals
from autoperi.crystals.labels import Window
from autoperi.flow.relatives import element_distances
from autoperi.generator import CrystalGenerator
from autoperi.generator.choice import Predict
from autoperi.generator.delivery import fitting
from autoperi.generator.geometry import Descent
from autoperi.genes.critics.kin import KIN
from autoperi.genes.request import GeneRequest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Exchange = Callable[[Crystal, dict[int, int]], Crystal]
"""The crystal with some elements exchanged for others, its volume fitted to them."""
Foretell = Callable[[Sequence[Crystal]], Sequence[float]]
"""Chances of a goal."""

_ELEMENTS = [z for z in range(1, 84) if z not in (2, 10, 18, 36, 43, 54, 61)]
"""What may come in: neither noble gases nor what is radioactive."""
_LIKE = 8
"""Elements likest to one that is exchanged together with another."""
_RELAXED = 24
"""Candidates of a round that are relaxed and led on."""
_ROUNDS, _SEEDS = 2, 2
"""Rounds of exchanges at most, each from that many of the likeliest of the last."""
_SHORTEST = 0.5
"""Å between atoms, below which they have met."""
_SURE = 0.5
"""How likely the goal is reached where no further round is made."""


class NothingLedError(ValueError):
    """Nothing on the way from a crystal has its gene."""


@dataclass(frozen=True)
class Goal:
    """A value of a property, and what counts as reaching it.

    Attributes:
        property: its name.
        value: in its unit.
        tolerance: in the same unit.
    """

    property: str
    value: float
    tolerance: float

    @classmethod
    def of(cls, name: str, value: float, tolerance: float | None = None) -> "Goal":
        """A goal with a tenth of the value as its tolerance where none is given.

        Raises:
            ValueError: a value that is not finite, or a tolerance that is not positive.
        """
        tolerance = abs(value) / 10 if tolerance is None else tolerance
        if not (math.isfinite(value) and 0 < tolerance < math.inf):
            raise ValueError(
                f"expected a finite value of {name} (--to) and a tolerance above 0 (--tolerance): "
                f"got {value} and {tolerance}"
            )
        return cls(name, value, tolerance)

    def miss(self, crystal: Crystal) -> float:
        """Distance of what is predicted from the value."""
        return abs(crystal.properties[f"predicted_{self.property}"] - self.value)

    def reached(self, crystal: Crystal) -> bool:
        """Whether the prediction is within the tolerance, and in the domain of its model."""
        return self.miss(crystal) <= self.tolerance and not self._strange(crystal)

    def window(self) -> Window:
        """Values within the tolerance."""
        return Window.around(self.value, self.tolerance)

    def chance(self, crystal: Crystal) -> float:
        """Probability of a value within the tolerance, by what is predicted; 0 out of domain."""
        return 0.0 if self._strange(crystal) else crystal.properties[f"predicted_{self.property}_chance"]

    def likely(self, crystal: Crystal) -> float:
        """The chance, times what the critic foretells where one does: they seldom err together."""
        return self.chance(crystal) * crystal.properties.get("foretold", 1.0)

    def rank(self, crystal: Crystal) -> tuple[bool, float, float]:
        """Sorts what has reached the goal first, then what is likely, then by distance."""
        return not self.reached(crystal), -self.likely(crystal), self.miss(crystal)

    def _strange(self, crystal: Crystal) -> bool:
        return crystal.properties[f"predicted_{self.property}_out_of_domain"] != 0


@dataclass(frozen=True)
class Means:
    """What a walk goes by.

    Attributes:
        predict: adds ``predicted_<property>``, ``…_chance`` of the goal's window and ``…_out_of_domain``, by
            no judge.
        relax: down an energy.
        lead: down an energy with a price for the distance from the goal.
        exchange: of elements; None for those that the crystal has.
        foretell: chance of the goal from gene and species alone, by a critic; None without one.
    """

    predict: Predict
    relax: Descent
    lead: Descent
    exchange: Exchange | None = None
    foretell: Foretell | None = None


def foretold_by(generator: CrystalGenerator, goal: Goal) -> Foretell | None:
    """The chances that the critic of a generator gives a goal, if it knows the property."""
    critic, relatives = generator.targets, generator.relatives()
    if critic is None or relatives is None or goal.property not in critic.names:
        return None

    def foretell(crystals: Sequence[Crystal]) -> list[float]:
        kin, windows = relatives.distances(crystals, KIN), {goal.property: goal.window()}
        return critic.chances(crystals, kin, windows).squeeze(1).tolist()

    return foretell


def optimised(crystal: Crystal, goal: Goal, means: Means) -> Crystals:
    """Crystals of one gene on the way from a crystal to a goal, those there first, the likeliest ahead.

    The crystal itself is led down the gradient in the latent coordinates s and z, unless it is there; h has
    no say where elements are told. If elements may be exchanged and it is not likely that the goal is
    reached, whole elements give way to others, one for any or two for the likest ones. The most promising are
    relaxed, led on if need be, and a second round begins from the likeliest of the first.

    Their properties: what is predicted, ``chance`` of being within the tolerance and ``reached`` (0 or 1), by
    the same model, and the chance that a critic has ``foretold``. In provenance ``exchanged`` and ``round``.

    Raises:
        NothingLedError: nothing on the way has the gene of the crystal.
    """
    gene, told = GeneRequest(gene=crystal.gene), {"exchanged": "", "round": 0}
    start = replace(crystal, properties={}, provenance={**crystal.provenance, **told})
    found = _led([start], goal, means, gene)
    tried, seeds = {tuple(start.species.tolist())}, [start]
    for number in range(1, _ROUNDS + 1):
        sure = any(goal.reached(c) and goal.likely(c) >= _SURE for c in found)
        if means.exchange is None or sure or not seeds:
            break
        proposed = _proposed(seeds, tried, means.exchange, number)
        tried |= {tuple(c.species.tolist()) for c in proposed}
        nearest = sorted(_told(proposed, goal, means), key=goal.miss)
        promising = sorted(nearest, key=lambda c: -goal.likely(c))[:_RELAXED]
        last = _led(promising, goal, means, gene)
        found += last
        seeds = sorted(last, key=goal.rank)[:_SEEDS]
    if not found:
        raise NothingLedError(f"nothing on the way from {crystal.formula} has its gene, {crystal.gene}")
    named = enumerate(sorted(found, key=goal.rank))
    return Crystals(
        replace(c, id=f"{i:03d}", provenance={**c.provenance, "led": crystal.id}) for i, c in named
    )


def _led(crystals: Sequence[Crystal], goal: Goal, means: Means, gene: GeneRequest) -> list[Crystal]:
    """Crystals relaxed where elements were exchanged, with predictions; led on unless they are there already.

    What a gradient has led there a judge confirms less often than what was there by itself.
    """
    new = crystals[0].provenance["round"] if crystals else 0
    relaxed = _told(_sound(means.relax(crystals), gene) if new else crystals, goal, means)
    led = means.lead([c for c in relaxed if not goal.reached(c)])
    return [c for c in relaxed if goal.reached(c)] + _told(_sound(led, gene), goal, means)


def _sound(moved: Sequence[tuple[Crystal, float]], gene: GeneRequest) -> list[Crystal]:
    """Those of the gene, their atoms apart."""
    kept = [crystal for crystal, _ in moved if not isinstance(fitting(crystal, gene), str)]
    return [crystal for crystal in kept if crystal.to_structure().is_valid(_SHORTEST)]


def _told(crystals: Sequence[Crystal], goal: Goal, means: Means) -> list[Crystal]:
    """With what is predicted, the chance of the goal and what is foretold of it."""
    found = means.predict([replace(c, properties={}) for c in crystals])
    more = [{"chance": goal.chance(c), "reached": float(goal.reached(c))} for c in found]
    if means.foretell and found:
        more = [{**row, "foretold": p} for row, p in zip(more, means.foretell(found), strict=True)]
    return [replace(c, properties={**c.properties, **row}) for c, row in zip(found, more, strict=True)]


def _proposed(
    seeds: Sequence[Crystal], tried: Collection[tuple[int, ...]], exchange: Exchange, number: int
) -> list[Crystal]:
    """Every crystal in which one element gives way to any other, or two to the likest ones, each once."""
    found: dict[tuple[int, ...], Crystal] = {}
    for seed in seeds:
        own = sorted(set(seed.species.tolist()))
        other = [z for z in _ELEMENTS if z not in own]
        near = {z: sorted(other, key=lambda y: element_distances()[z, y])[:_LIKE] for z in own}
        names: list[dict[int, int]] = [{old: new} for old in own for new in other]
        for a, b in combinations(own, 2):
            names += [{a: x, b: y} for x, y in product(near[a], near[b]) if x != y]
        for exchanged in names:
            species = tuple(exchanged.get(z, z) for z in map(int, seed.species))
            if species in tried or species in found:
                continue
            pairs = [f"{chemical_symbols[a]} -> {chemical_symbols[b]}" for a, b in exchanged.items()]
            before = f"{seed.provenance['exchanged']}; " if seed.provenance["exchanged"] else ""
            told = {**seed.provenance, "exchanged": before + ", ".join(pairs), "round": number}
            found[species] = replace(exchange(seed, exchanged), properties={}, provenance=told)
    return list(found.values())


def walk_table(found: Sequence[Crystal]) -> "pd.DataFrame":
    """What ``walk.csv`` holds: a row each, in their order, with what was exchanged and what is predicted."""
    import pandas as pd

    rows = [
        {
            "id": c.id,
            "formula": c.formula,
            "gene": c.gene,
            "exchanged": c.provenance["exchanged"],
            "round": c.provenance["round"],
            **c.properties,
        }
        for c in found
    ]
    return pd.DataFrame(rows)


def likeliest(scan: "pd.DataFrame", goal: Goal) -> "tuple[int, float] | None":
    """Number and chance of the row of a substitution scan that is likeliest at the goal, if any is there."""
    value, chance = (scan[f"{goal.property}{end}"].to_numpy(float) for end in ("", "_chance"))
    known = ~scan[f"{goal.property}_out_of_domain"].fillna(True).to_numpy(bool)
    there = np.flatnonzero(known & (np.abs(value - goal.value) <= goal.tolerance)).tolist()
    return max(((k, float(chance[k])) for k in there), key=lambda x: x[1], default=None)


def walk_picture(table: "pd.DataFrame", scan: "pd.DataFrame", goal: Goal) -> "Figure":
    """What is predicted of the walk and of the plain scan, over how sure the model is; the goal is a band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes, name = figure.subplots(), goal.property
    axes.axvspan(goal.value - goal.tolerance, goal.value + goal.tolerance, color="#d1603d", alpha=0.3, lw=0)
    for rows, prefix, colour, label in (
        (scan, "", "#bbbbbb", "single substitutions as they are"),
        (table, "predicted_", "#1b6ca8", "led"),
    ):
        axes.scatter(rows[f"{prefix}{name}"], rows[f"{prefix}{name}_uncertainty"], 12, colour, label=label)
    axes.set(xlabel=f"{name}, predicted", ylabel="its uncertainty")
    axes.legend(fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
