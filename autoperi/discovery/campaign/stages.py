"""The stages of a campaign: what each asks of a crystal, the cheap ones first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from pymatgen.core import Composition, Structure

from autoperi.crystals.crystal import Crystal
from autoperi.data.element_references import ElementReferences
from autoperi.data.reading import Sample
from autoperi.discovery.campaign.known import Known
from autoperi.discovery.campaign.settings import ENERGY, Campaign
from autoperi.discovery.relaxed import RELAXATION, NotRelaxedError, relaxed_crystal
from autoperi.generator.delivery import delivered
from evaluation.facts.levels import LEVELS
from evaluation.facts.matching import duplicates
from evaluation.facts.reference import ReferenceSettings, load_reference
from evaluation.metrics.validity import smact_valid, structural_validity
from evaluation.options import PotentialName
from evaluation.relaxation.batch import BatchSettings, relax_all
from evaluation.relaxation.chgnet import CHGNET
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.settings import potential
from evaluation.stability.hull import ConvexHull
from evaluation.stability.hull_choice import load_hull
from evaluation.stability.phonons import PhononSettings, least_frequency
from evaluation.stability.stability import suffix

_HullOf = Callable[[Sequence[Composition]], tuple[ConvexHull, ElementReferences]]


@dataclass(frozen=True)
class Stage:
    """Some of the crystals go on, with what was found of them.

    Attributes:
        name: in the funnel.
        keep: those that go on, in order.
        tell: what `keep` reads of each.
    """

    name: str
    keep: Callable[[list[Crystal]], list[Crystal]]
    tell: Callable[[list[Crystal]], list[Crystal]] = list


def stages(campaign: Campaign) -> list[Stage]:
    """The stages after drawing, ready: data, models and hulls are loaded here."""
    known = known_crystals(campaign)
    return [
        Stage("valid", _valid),
        Stage("unique", _unique),
        Stage("on target", partial(_on_target, campaign), campaign.guide),
        Stage("likely stable", lambda crystals: [c for c in crystals if _height(c) <= campaign.stable]),
        Stage("unknown", lambda crystals: _unknown(campaign, known, crystals)),
        Stage("relaxed", lambda crystals: _relaxed(campaign, crystals)),
        Stage("stable", _Stable(campaign)),
        Stage("on target, relaxed", partial(_on_target, campaign), campaign.guide),
        Stage("new, relaxed", lambda crystals: _new(campaign, known, _unique(crystals))),
        *([Stage("without imaginary phonons", _Dynamic(campaign.phonons))] if campaign.phonons else []),
        Stage("judged", _Judged(campaign)),
    ]


def known_crystals(campaign: Campaign, workers: int = 1) -> Known:
    """The sets of known crystals; described once, and kept in the cache."""
    settings = ReferenceSettings(campaign.data_dir, workers=workers)
    return Known([load_reference(name, settings) for name in campaign.known])


def _valid(crystals: list[Crystal]) -> list[Crystal]:
    """Atoms apart and charges that can balance, as `evaluate` calls valid."""
    structures = [crystal.to_structure() for crystal in crystals]
    return [
        crystal
        for crystal, structure in zip(crystals, structures, strict=True)
        if structural_validity(structure) and smact_valid(structure.composition)
    ]


def _unique(crystals: list[Crystal]) -> list[Crystal]:
    found = duplicates(_structures(crystals))
    return [c for c, twin in zip(crystals, found.match, strict=True) if twin is None]


def _on_target(campaign: Campaign, crystals: Sequence[Crystal]) -> list[Crystal]:
    """Those that the guide puts into every window, as likely as asked."""
    inside = np.ones(len(crystals), bool)
    for name, window in campaign.windows:
        values, chances = (
            np.array([c.properties[f"predicted_{name}{what}"] for c in crystals]) for what in ("", "_chance")
        )
        inside &= window.hits(values) & (chances >= campaign.sure)
    return [crystal for crystal, hit in zip(crystals, inside, strict=True) if hit]


def misses(campaign: Campaign, crystals: Sequence[Crystal]) -> dict[str, float]:
    """How far the guide's prediction that is nearest to each window is from it."""
    found = {}
    for name, window in campaign.windows:
        far = window.errors(np.array([c.properties[f"predicted_{name}"] for c in crystals]))
        if not np.isnan(far).all():
            found[name] = float(np.nanmin(far))
    return found


def _height(crystal: Crystal) -> float:
    return float(crystal.properties[f"predicted_{ENERGY}"])


def _unknown(campaign: Campaign, known: Known, crystals: list[Crystal]) -> list[Crystal]:
    """No known crystals; where a higher level is asked for, none of a lower one."""
    if campaign.novelty == "duplicate":
        return crystals
    if campaign.novelty != "substitution":
        return _new(campaign, known, crystals)
    held = known.holds(_structures(crystals)) if crystals else []
    return [crystal for crystal, one in zip(crystals, held, strict=True) if not one]


def _new(campaign: Campaign, known: Known, crystals: list[Crystal]) -> list[Crystal]:
    """Those of the level asked for and above, with their level and what they are akin to."""
    told = known.levels(_structures(crystals)) if known.references else [("", "")] * len(crystals)
    least = LEVELS.index(campaign.novelty)
    return [
        replace(crystal, provenance={**crystal.provenance, "novelty": level, "akin_to": akin})
        for crystal, (level, akin) in zip(crystals, told, strict=True)
        if not level or LEVELS.index(level) >= least
    ]


def _relaxed(campaign: Campaign, crystals: list[Crystal]) -> list[Crystal]:
    """Where CHGNet, the space group kept, has brought them; those still meet what was requested."""
    found: dict[int, Crystal] = {}
    for record in relax_all(_samples(crystals), BatchSettings(RELAXATION)):
        raw = crystals[record["number"]]
        if not record["converged"]:
            continue
        try:
            one: Crystal | str = relaxed_crystal(raw, record, RELAXATION)
        except NotRelaxedError:
            continue
        if campaign.request.constrains_symmetry:
            one = delivered(one, campaign.request)
        if isinstance(one, Crystal):
            energy = {"energy": float(record["energy_per_atom"])}
            found[record["number"]] = replace(one, properties={**one.properties, **energy})
    return [found[k] for k in sorted(found)]


class _Stable:
    """Those within the height asked for, by CHGNet."""

    def __init__(self, campaign: Campaign) -> None:
        self._limit = campaign.stable
        self._hull_of = _hulls(campaign, CHGNET)

    def __call__(self, crystals: list[Crystal]) -> list[Crystal]:
        compositions = [crystal.to_structure().composition for crystal in crystals]
        hull, references = self._hull_of(compositions)
        found = []
        for crystal, composition in zip(crystals, compositions, strict=True):
            try:
                formation = references.formation_energy(composition, crystal.properties["energy"])
            except KeyError:  # an element without a reference
                continue
            if (above := hull.above(composition, formation)) <= self._limit:
                properties = {**crystal.properties, "formation_energy": formation, ENERGY: above}
                provenance = {**crystal.provenance, "decomposes_to": hull.decomposition(composition)}
                found.append(replace(crystal, properties=properties, provenance=provenance))
        return found


def _hulls(campaign: Campaign, relaxer: BatchRelaxer) -> _HullOf:
    """The hull that crystals of some compositions are measured against.

    A `consistent` one has the phases of their chemical systems alone: too many to have all of them ready.
    """
    of = partial(load_hull, campaign.hull, campaign.data_dir, relaxer=relaxer, progress=False)
    if campaign.hull.phases == "consistent":
        return of
    ready = of(())
    return lambda _: ready


class _Dynamic:
    """Those without imaginary phonons, with their least frequency (THz); their geometry stays as it was."""

    def __init__(self, name: PotentialName) -> None:
        self._relaxer, self._settings = potential(name), PhononSettings()

    def __call__(self, crystals: list[Crystal]) -> list[Crystal]:
        found: dict[int, Crystal] = {}
        how = BatchSettings(self._settings.relaxation, relaxer=self._relaxer)
        for record in relax_all(_samples(crystals), how):
            if record["error"] or not record["converged"]:
                continue
            structure = Structure.from_dict(record["relaxed"])
            least = least_frequency(structure, self._relaxer, self._settings)
            if self._settings.stable(least):
                crystal = crystals[record["number"]]
                told = {**crystal.properties, "least_frequency": least}
                found[record["number"]] = replace(crystal, properties=told)
        return [found[k] for k in sorted(found)]


class _Judged:
    """What is told by those that did not choose: other potentials, other models. None is refused."""

    def __init__(self, campaign: Campaign) -> None:
        self._judge = campaign.judge
        self._potentials: list[BatchRelaxer] = [potential(name) for name in campaign.judges]
        self._hulls = [_hulls(campaign, one) for one in self._potentials]

    def __call__(self, crystals: list[Crystal]) -> list[Crystal]:
        out = list(self._judge(crystals)) if self._judge and crystals else list(crystals)
        compositions = [crystal.to_structure().composition for crystal in crystals]
        for relaxer, hull_of in zip(self._potentials, self._hulls, strict=True):
            name, (hull, references) = suffix(relaxer), hull_of(compositions)
            for record in relax_all(_samples(crystals), BatchSettings(RELAXATION, relaxer=relaxer)):
                k = record["number"]
                told = {f"formation_energy{name}": float("nan"), f"{ENERGY}{name}": float("nan")}
                if not record["error"]:
                    formation = references.formation_energy(compositions[k], record["energy_per_atom"])
                    above = hull.above(compositions[k], formation)
                    told = {f"formation_energy{name}": formation, f"{ENERGY}{name}": above}
                out[k] = replace(out[k], properties={**out[k].properties, **told})
        return out


def _structures(crystals: Sequence[Crystal]) -> list[Structure]:
    return [crystal.to_structure() for crystal in crystals]


def _samples(crystals: Sequence[Crystal]) -> list[Sample]:
    return [Sample(crystal.id, crystal.to_structure()) for crystal in crystals]
