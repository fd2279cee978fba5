"""Zeolites: TO2 frameworks, every tetrahedral site T bonded to four others through one oxygen each.

A framework type is told by the coordination sequences of its sites (Meier and Moeck, J. Solid State Chem. 27,
349, 1979) and the shortest rings at their angles, much as the International Zeolite Association tells them.
"""

import hashlib
from collections import Counter
from math import gcd

import numpy as np
from pymatgen.core import Structure

from evaluation.classes.verdict import Verdict

MOST_ATOMS = 1500
"""Atoms of a cell that is judged."""
BOND = (1.45, 1.80)
"""T-O bonds, Å."""
BRIDGE = (2.7, 3.45)
"""T-T distances across an oxygen, Å."""
EDGE = 2.0
"""Least O-O distance, Å."""
DENSITY = (7.0, 23.0)
"""T sites per 1,000 Å³: frameworks of the IZA have 7.5 to 21.6 as SiO2."""
SHELLS = 10
"""Of a coordination sequence."""
_MOST_RING = 14

Node = tuple[int, int, int, int]
"""A T site by its number in the cell, and the cell that it is in."""
Net = list[list[Node]]
"""Of every T site of a cell the sites that it is bonded to through oxygen."""


def judge(structure: Structure) -> Verdict:
    """Whether a crystal is a four-connected TO2 framework; its density, smallest ring and framework type."""
    if len(structure) > MOST_ATOMS:
        return Verdict(f"more than {MOST_ATOMS} atoms in the cell, which are too many to be judged")
    oxygen = np.array([site.specie.symbol == "O" for site in structure])
    if 3 * oxygen.sum() != 2 * len(structure):
        return Verdict("formula is not TO2")
    centre, other, image, distance = structure.get_neighbor_list(BRIDGE[1])
    first, second = oxygen[centre], oxygen[other]
    near = distance <= BOND[1]
    if (near & (first == second)).any() or (near & (distance < BOND[0])).any():
        return Verdict(f"like atoms within {BOND[1]} Å, or a bond below {BOND[0]} Å")
    bonds = np.bincount(centre[near], minlength=len(structure))
    if (bonds != np.where(oxygen, 2, 4)).any():
        return Verdict("not every T site has four oxygen neighbours and every oxygen two T neighbours")
    if (distance[first & second] < EDGE).any():
        return Verdict(f"oxygen atoms nearer than {EDGE} Å")
    net = _net(oxygen, centre[near], other[near], image[near])
    if any(len(set(own)) != 4 or (t, 0, 0, 0) in own for t, own in enumerate(net)):
        return Verdict("two T sites share two oxygen atoms")
    between = ~first & ~second
    bridged = np.bincount(centre[between], minlength=len(structure))[~oxygen]
    if (distance[between] < BRIDGE[0]).any() or (bridged != 4).any():
        return Verdict(
            f"T-T distances of bonded sites outside {BRIDGE[0]} to {BRIDGE[1]} Å, or others inside"
        )
    density = 1000 * float((~oxygen).sum()) / structure.volume
    rings = [angle_rings(net, site) for site in range(len(net))]
    numbers = {
        "framework_density": density,
        "smallest_ring": float(min(filter(None, sum(rings, ())), default=0)),
    }
    if _dimensions(net) < 3:
        return Verdict("its bonds do not lead through the crystal in three directions", numbers)
    if not DENSITY[0] <= density <= DENSITY[1]:
        return Verdict(f"framework density outside {DENSITY[0]:g} to {DENSITY[1]:g} T per 1,000 Å³", numbers)
    return Verdict("", numbers, _type(net, rings))


def _net(oxygen: np.ndarray, centre: np.ndarray, other: np.ndarray, image: np.ndarray) -> Net:
    """From T-O bonds, each seen from both ends."""
    number = np.cumsum(~oxygen) - 1
    ends: dict[int, list[tuple[int, np.ndarray]]] = {}
    for i, j, cell in zip(centre.tolist(), other.tolist(), image.astype(int), strict=True):
        if oxygen[i]:
            ends.setdefault(i, []).append((int(number[j]), cell))
    net: Net = [[] for _ in range(int((~oxygen).sum()))]
    for (a, here), (b, there) in ends.values():
        net[a].append((b, *(there - here).tolist()))
        net[b].append((a, *(here - there).tolist()))
    return net


def _neighbours(net: Net, node: Node) -> list[Node]:
    number, *cell = node
    return [(j, a + cell[0], b + cell[1], c + cell[2]) for j, a, b, c in net[number]]


def coordination_sequence(net: Net, site: int) -> tuple[int, ...]:
    """How many sites are 1, 2, ... bonds away from one."""
    start: Node = (site, 0, 0, 0)
    before, shell, found = set[Node](), {start}, []
    for _ in range(SHELLS):
        shell, before = {n for node in shell for n in _neighbours(net, node)} - shell - before, shell
        found.append(len(shell))
    return tuple(found)


def angle_rings(net: Net, site: int) -> tuple[int, ...]:
    """Lengths of the shortest rings through each two bonds of a site, ascending; 0 where none is short."""
    start: Node = (site, 0, 0, 0)
    bonded = _neighbours(net, start)
    found = []
    for k, first in enumerate(bonded[:-1]):
        left, shell, seen = set(bonded[k + 1 :]), {first}, {start, first}
        for length in range(3, _MOST_RING + 1):
            shell = {n for node in shell for n in _neighbours(net, node)} - seen
            seen |= shell
            found += [length] * len(left & shell)
            left -= shell
            if not left:
                break
        found += [0] * len(left)
    return tuple(sorted(found))


def _dimensions(net: Net) -> int:
    """Directions in which the piece that holds the first site repeats; 0 where others hang on nothing."""
    reached: dict[int, np.ndarray] = {0: np.zeros(3, int)}
    waiting, cycles = [0], []
    while waiting:
        i = waiting.pop()
        for j, *cell in net[i]:
            there = reached[i] + np.array(cell)
            if j in reached:
                cycles.append(there - reached[j])
            else:
                reached[j] = there
                waiting.append(j)
    return int(np.linalg.matrix_rank(np.array(cycles))) if len(reached) == len(net) else 0


def _type(net: Net, rings: list[tuple[int, ...]]) -> str:
    """The coordination sequences of all sites, with the rings at their angles, in their ratio."""
    counts = Counter((coordination_sequence(net, site), own) for site, own in enumerate(rings))
    smallest = gcd(*counts.values())
    told = sorted((site, n // smallest) for site, n in counts.items())
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
