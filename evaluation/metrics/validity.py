"""Structural validity (shortest distances) and composition validity (SMACT, charge balance)."""

from collections.abc import Mapping
from functools import cache, lru_cache, reduce
from math import gcd
from operator import or_
from typing import Literal

import numpy as np
from ase.data import covalent_radii
from pymatgen.core import Composition, Structure

RuleSet = Literal["default", "smact14", "icsd16", "icsd24", "consensus1"]


def structural_validity(structure: Structure, min_distance: float = 0.5, min_volume: float = 0.1) -> bool:
    """Whether no two atoms overlap, by the convention of CDVAE (arXiv:2110.06197, `compute_metrics`).

    True when every distance between two different sites is at least `min_distance` Å and the cell
    volume at least `min_volume` Å³. An atom's own periodic images are never looked at.
    """
    volume = structure.volume
    if not np.isfinite(volume) or volume < min_volume:
        return False
    if not np.isfinite(structure.frac_coords).all():
        return False
    if len(structure) == 1:
        return True
    distances = structure.distance_matrix[np.triu_indices(len(structure), k=1)]
    return bool(distances.min() >= min_distance)


def contact_ratio(structure: Structure) -> float:
    """Shortest contact as a fraction of the touching distance, own periodic images included.

    min over pairs and images of d_ij / (r_i + r_j), with the covalent radii of Cordero et al.
    (doi:10.1039/b801115j) for neutral atoms. Capped at 1.0: longer contacts are not told apart.
    A cell that is flat or not finite gives 0. Periodic images of one atom count like any pair; when
    they alone are nearer than a fifth of the touching distance, that fraction is given and no other
    pair is looked at.
    """
    if not np.isfinite(structure.lattice.matrix).all() or structure.volume < 0.1:
        return 0.0
    if not np.isfinite(structure.frac_coords).all():
        return 0.0
    radii = covalent_radii[np.asarray(structure.atomic_numbers)]
    shortest_vector = min(structure.lattice.get_lll_reduced_lattice().lengths)
    own_image = float(shortest_vector / (2 * radii.max()))
    if own_image < 0.2:  # so thin a cell that listing all neighbours would take minutes
        return own_image
    centre, other, _, distance = structure.get_neighbor_list(2 * float(radii.max()))
    if len(distance) == 0:
        return 1.0
    return float(min(1.0, (distance / (radii[centre] + radii[other])).min()))


def strict_validity(structure: Structure, min_ratio: float = 0.5) -> bool:
    """Whether every contact, own images included, is at least `min_ratio` of the touching distance.

    The criterion of LeMat-GenBench (minimum distance ≥ 0.5 × sum of radii), with covalent radii.
    """
    return contact_ratio(structure) >= min_ratio


def smact_valid(
    composition: Composition | str,
    rule_set: RuleSet | str = "smact14",
    include_alloys: bool = True,
    missing_electronegativity: Literal["passes", "fails"] = "passes",
) -> bool:
    """Whether a composition can be charge neutral with the anions the more electronegative.

    The compositional validity of CDVAE (arXiv:2110.06197) after SMACT (doi:10.21105/joss.01361):
    a single element is valid; so is a composition of metals only (`include_alloys`); otherwise one
    oxidation state per element must exist with Σ n_i q_i = 0 and every cation strictly less
    electronegative (Pauling) than every anion. Same answer as `smact.screening.smact_validity`, but
    the sign of every element is settled by one electronegativity threshold at a time and reachable
    charges are summed, so that the time does not grow with the product of the oxidation states.

    Args:
        composition: the formula; amounts are truncated to integers as SMACT does.
        rule_set: which table of oxidation states. `smact14`, `icsd16`, `icsd24` are SMACT's own;
            `default` is ICSD24 with states seen in at least 3 entries (SMACT 4's default),
            `consensus1` the same with at least 1.
        include_alloys: whether a composition of metals only is valid at once.
        missing_electronegativity: what the Pauling test says when an element has no Pauling value
            (He, Ne, Ar, Pm, Rn, Lr): CDVAE lets it pass, the SMACT library (4.0) fails it.
    """
    reduced = _reduced_counts(composition)
    return _smact_valid(reduced, rule_set, include_alloys, missing_electronegativity)


def charge_imbalance(composition: Composition | str, rule_set: RuleSet | str = "icsd24") -> float:
    """Smallest net charge of the reduced formula that listed oxidation states allow, in e.

    Unlike `smact_valid`, atoms of one element may have different states of one sign (Fe3O4 is
    neutral), and electronegativities are not looked at. 0 for one element or metals only; infinite
    when an element has no listed state.
    """
    return _charge_imbalance(_reduced_counts(composition), rule_set)


def _reduced_counts(composition: Composition | str) -> tuple[tuple[str, int], ...]:
    """Elements and their counts, truncated to integers and divided by their greatest divisor."""
    amounts = Composition(composition).get_el_amt_dict()
    counts = [int(n) for n in amounts.values()]
    divisor = gcd(*counts)
    return tuple(sorted((s, n // divisor if divisor else 0) for s, n in zip(amounts, counts, strict=True)))


@lru_cache(maxsize=200_000)
def _smact_valid(
    reduced: tuple[tuple[str, int], ...],
    rule_set: RuleSet | str,
    include_alloys: bool,
    missing_electronegativity: Literal["passes", "fails"],
) -> bool:
    symbols = [symbol for symbol, _ in reduced]
    counts = [count for _, count in reduced]
    if len(symbols) == 1:
        return True
    if include_alloys and all(symbol in _metals() for symbol in symbols):
        return True
    if not any(counts):
        return False
    table = _oxidation_states(rule_set)
    states = [table.get(symbol, ()) for symbol in symbols]
    if not all(states):
        return False
    eneg = [_electronegativities().get(symbol) for symbol in symbols]
    known = [e for e in eneg if e is not None]
    if len(known) < len(eneg):
        if missing_electronegativity == "fails":
            return False
        return _neutral(states, counts)
    # Cations at or below the threshold, anions above it; the lowest threshold has no cations.
    return any(
        _neutral(
            [
                tuple(q for q in qs if (q >= 0 if e <= threshold else q <= 0))
                for qs, e in zip(states, known, strict=True)
            ],
            counts,
        )
        for threshold in (-np.inf, *sorted(set(known)))
    )


@lru_cache(maxsize=200_000)
def _charge_imbalance(reduced: tuple[tuple[str, int], ...], rule_set: RuleSet | str) -> float:
    symbols = [symbol for symbol, _ in reduced]
    if len(symbols) == 1 or all(symbol in _metals() for symbol in symbols):
        return 0.0
    table = _oxidation_states(rule_set)
    # A set of integers is kept as the bits of one, bit k standing for the charge k + lowest.
    total, lowest = 1, 0
    for symbol, count in reduced:
        charges = _charges(tuple(table.get(symbol, ())), count)
        if not charges:
            return float("inf")
        start = min(charges)
        total = reduce(or_, (total << (charge - start) for charge in charges))
        lowest += start
    reached = [k + lowest for k in range(total.bit_length()) if total >> k & 1]
    return float(min(abs(charge) for charge in reached))


def _charges(states: tuple[int, ...], count: int) -> set[int]:
    """Total charges of so many atoms of an element, all cations or all anions."""
    found: set[int] = set()
    for sign in (1, -1):
        side = [sign * q for q in states if sign * q >= 0]
        if not side:
            continue
        sums = 1
        for _ in range(count):
            sums = reduce(or_, (sums << q for q in side))
        found |= {sign * k for k in range(sums.bit_length()) if sums >> k & 1}
    return found


def _neutral(states: list[tuple[int, ...]], counts: list[int]) -> bool:
    """Whether one state per element can be chosen so that the charges cancel."""
    reachable = {0}
    for charges, count in zip(states, counts, strict=True):
        reachable = {total + count * q for total in reachable for q in charges}
        if not reachable:
            return False
    return 0 in reachable


@cache
def _metals() -> frozenset[str]:
    from smact import metals

    return frozenset(metals)


@cache
def _electronegativities() -> Mapping[str, float | None]:
    from smact import element_dictionary

    return {symbol: element.pauling_eneg for symbol, element in element_dictionary().items()}


@cache
def _oxidation_states(rule_set: RuleSet | str) -> Mapping[str, tuple[int, ...]]:
    """Element symbol -> oxidation states of a rule set; absent when SMACT lists none."""
    from smact import element_dictionary
    from smact.utils.oxidation import ICSD24OxStatesFilter

    if rule_set in ("default", "consensus1"):
        table = ICSD24OxStatesFilter().filter(consensus=3 if rule_set == "default" else 1)
        return {
            str(symbol): tuple(int(q) for q in str(charges).split())
            for symbol, charges in zip(table["element"], table["oxidation_state"], strict=True)
        }
    if rule_set not in ("smact14", "icsd16", "icsd24"):
        raise ValueError(
            f"unknown SMACT rule set {rule_set!r}: expected default, smact14, icsd16, icsd24 or consensus1"
        )
    return {
        symbol: tuple(getattr(element, f"oxidation_states_{rule_set}") or ())
        for symbol, element in element_dictionary().items()
    }
