"""Electrons counted: likely oxidation states, what they leave unbalanced, and whether the number is odd.

Metal or insulator hangs on exact counts over the whole cell, which means over atoms and neighbours lose: an
odd number of electrons in the primitive cell fills no band, and charges that balance leave none to conduct.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import MAX_Z

_UNUSUAL, _IONIC, _CHARGED = 0.5, 0.1, 10.0
"""Cost per atom of a state that is not a common one; of a positive charge, times electronegativity; of net
charge."""
_KEPT = 4_000
"""Net charges followed, those nearest to neutral, when a formula has many elements."""


@dataclass(frozen=True)
class Electrons:
    """What is counted of each crystal and of each site; soft species count as their likeliest element.

    Attributes:
        crystals: odd number of electrons; whether common oxidation states balance, and the least net charge
            per atom (at most 1) that they leave; the same of all known states; cost of the assignment.
        sites: oxidation state / 3; valence electrons that are left / 10; whether the states balance; the
            oxidation state / 3 where they do.
    """

    crystals: Float[Tensor, "crystals 6"]
    sites: Float[Tensor, "sites 4"]

    @classmethod
    def of(cls, species: Tensor, multiplicity: Tensor, start: Tensor) -> "Electrons":
        """Count those of sites, whose atoms per primitive cell are given; ``start`` as in ``SiteGraph``."""
        numbers = species.argmax(-1) if species.is_floating_point() else species
        z, atoms = numbers.cpu().numpy(), multiplicity.detach().cpu().numpy().round().astype(int)
        ends = start.cpu().numpy()
        whole, own = np.zeros((len(ends) - 1, 6), np.float32), np.zeros((len(z), 4), np.float32)
        for crystal, (first, last) in enumerate(pairwise(ends)):
            elements, place = np.unique(z[first:last], return_inverse=True)
            amounts = np.bincount(place, atoms[first:last]).astype(int)
            reduced = amounts // np.gcd.reduce(amounts)
            found = oxidation_states(tuple(elements.tolist()), tuple(reduced.tolist()))
            odd = int((elements * amounts).sum()) % 2
            charge, balanced = np.array(found.charges)[place], found.net < 1e-6
            usual, net = min(found.usual_net, 1.0), min(found.net, 1.0)
            whole[crystal] = odd, usual < 1e-6, usual, balanced, net, found.cost
            left = _valence()[z[first:last]] - charge
            columns = [charge / 3, left / 10, np.full(len(charge), balanced), balanced * charge / 3]
            own[first:last] = np.stack(columns, 1)
        like = {"device": multiplicity.device, "dtype": multiplicity.dtype}
        return cls(torch.from_numpy(whole).to(**like), torch.from_numpy(own).to(**like))


@dataclass(frozen=True)
class OxidationStates:
    """The likeliest states of a formula, one for each element.

    Attributes:
        charges: in the order of the elements; 0 of an element by itself.
        net: charge per atom that they leave.
        usual_net: the least that common states would leave.
        cost: per atom; low for common states with the negative charge on electronegative elements.
    """

    charges: tuple[float, ...]
    net: float
    usual_net: float
    cost: float


@lru_cache(maxsize=100_000)
def oxidation_states(elements: tuple[int, ...], amounts: tuple[int, ...]) -> OxidationStates:
    """The states that best balance a formula, and among those the commonest and most ionic."""
    atoms = sum(amounts)
    if len(elements) == 1:
        return OxidationStates((0.0,), 1.0, 1.0, 0.0)
    net, cost, chosen = np.zeros(1), np.zeros(1), np.zeros((1, 0))
    usual_net = np.zeros(1)
    for z, amount in zip(elements, amounts, strict=True):
        states, usual, negativity = _states(z)
        price = (_UNUSUAL * ~usual + _IONIC * negativity * states) * amount / atoms
        net = (net[:, None] + amount * states).ravel()
        cost = (cost[:, None] + price).ravel()
        before = np.repeat(chosen, len(states), 0)
        chosen = np.column_stack([before, np.tile(states, len(chosen))])
        order = np.lexsort((cost, net))
        order = order[np.diff(net[order], prepend=-np.inf) > 0]  # the cheapest way to each net charge
        order = order[np.abs(net[order]).argsort(kind="stable")[:_KEPT]]
        net, cost, chosen = net[order], cost[order], chosen[order]
        usual_net = np.unique((usual_net[:, None] + amount * states[usual]).ravel())
        usual_net = usual_net[np.abs(usual_net).argsort(kind="stable")[:_KEPT]]
    best = int((cost + _CHARGED * np.abs(net) / atoms).argmin())
    charges = tuple(chosen[best].tolist())
    return OxidationStates(charges, abs(net[best]) / atoms, np.abs(usual_net).min() / atoms, cost[best])


@cache
def _states(z: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Known oxidation states of an element, which of them are common, and its electronegativity (Pauling)."""
    from pymatgen.core import Element

    if z == 0:
        return np.zeros(1), np.ones(1, bool), 0.0
    element = Element.from_Z(z)
    common = set(element.common_oxidation_states)
    known = sorted(common | set(element.icsd_oxidation_states) | set(element.oxidation_states)) or [0]
    usual = np.array([state in common or not common for state in known])
    negativity = element.data.get("X")
    return np.array(known, float), usual, float(negativity) if negativity is not None else 1.5


@cache
def _valence() -> Float[np.ndarray, "elements"]:
    """Valence electrons of each element; 0 where unknown."""
    import smact

    counts = [smact.Element(smact.ordered_elements(z, z)[0]).num_valence or 0 for z in range(1, MAX_Z + 1)]
    return np.nan_to_num(np.array([0, *counts], float))
