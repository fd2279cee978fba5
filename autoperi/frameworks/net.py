"""Nets of tetrahedral sites: four neighbours of each, and the oxygen atoms between them.

A zeolite is drawn as the net of its tetrahedral sites alone, which has a third of the atoms and a quarter of
the orbits; where the oxygen atoms lie follows from who is bonded to whom.
"""

from dataclasses import fields, replace
from itertools import combinations

import numpy as np
import torch

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.symmetry import SymmetriseConfig, SymmetriseError, symmetrise
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.data.dataset import CrystalDataset
from autoperi.frameworks.distances import Contacts, FrameworkError, Wishes, contacts, fitted

SILICON, OXYGEN = 14, 8
T_T, T_O, O_O = 3.07, 1.61, 2.629
"""Distances that are wanted between tetrahedral sites, to oxygen, and between the oxygens of one site, Å."""
_APART = 4.2
"""Least distance of tetrahedral sites that are not bonded, Å: a little less than across a ring of four."""
_ACROSS = 5.0
"""Between two neighbours of a site at the angle of a tetrahedron, Å."""
_BONDED, _LOOSE = 3.5, 3.7
"""Neighbours are bonded below the first, Å, and there are none up to the second."""
_NET_WEIGHTS = (1.0, 0.6, 0.12)
_WEIGHTS = (2.0, 0.61, 0.23)
"""Of T-O, O-O and T-T distances, as in DLS-76."""
_MOST = 0.12
"""Root mean square misfit of the distances of a framework, weighted, Å."""
_BENDS = 3
_GRID = 4800
"""Parts of a free coordinate that nets are rounded to: halves, thirds, fifths and eighths are kept."""


def framework(net: Crystal) -> Crystal:
    """SiO2 on the net of tetrahedral sites that comes nearest to a draw, every distance as it should be.

    Sites are moved until each has four neighbours, oxygen atoms are placed between these, and all are
    relaxed by distances, the space group kept. Where the net has more symmetry than it was drawn with, the
    crystal is named for what it has.

    Raises:
        FrameworkError: sites that do not come to four neighbours, or distances that do not fit together.
    """
    silicon = replace(net, species=np.full(net.n_sites, SILICON))
    settled, _ = fitted(silicon, _net_wishes, rounds=25, steps=2)
    _bonds(settled)  # here most draws end
    settled, _ = fitted(settled, _net_wishes, rounds=100, steps=2, gain=1e-11)
    bridged = bridges(_rounded(settled))
    best, misfit = bridged, np.inf
    for bend in range(_BENDS):
        found, own = fitted(_bent(bridged, bend), _framework_wishes(bridged), rounds=1, steps=60)
        if own < misfit:
            best, misfit = found, own
    if misfit > _MOST:
        raise FrameworkError(f"expected distances that fit to {_MOST} Å: got {misfit:.2f} Å")
    _refuse_contacts(best)
    return replace(
        best,
        id=net.id,
        properties=net.properties,
        provenance={**net.provenance, "net": net.gene, "misfit": round(misfit, 4)},
    )


def tetrahedral_net(crystal: Crystal) -> Crystal:
    """The tetrahedral sites of a framework of one cation and oxygen, as silicon, under their own symmetry.

    Raises:
        FrameworkError: not every cation has four oxygen neighbours and every oxygen two cations.
    """
    cations = set(crystal.species.tolist()) - {OXYGEN}
    if len(cations) != 1 or OXYGEN not in crystal.species:
        raise FrameworkError(f"expected one cation and oxygen: got {crystal.formula}")
    near = contacts(crystal, 2.1)
    oxygen = crystal.species == OXYGEN
    other = near.site[oxygen[near.site] != oxygen[near.kind]]
    counts = np.bincount(other, minlength=crystal.n_sites)
    if not np.array_equal(counts, np.where(oxygen, 2, 4)):
        raise FrameworkError("expected four oxygen around each cation and two cations around each oxygen")
    structure = crystal.to_structure()
    structure.remove_species(["O"])
    structure.replace_species({structure[0].specie.symbol: "Si"})
    try:
        return replace(symmetrise(structure), id=crystal.id, properties=crystal.properties)
    except SymmetriseError as error:
        raise FrameworkError(str(error)) from error


def nets(dataset: CrystalDataset, most: int) -> CrystalDataset:
    """The tetrahedral nets of a data set of frameworks; what is no framework, or too large, is left out.

    Args:
        dataset: of SiO2 frameworks.
        most: tetrahedral sites per primitive cell.

    Raises:
        ValueError: there is not one framework.
    """
    kept, reasons = [], list(dataset.failures)
    for crystal in dataset:
        try:
            net = tetrahedral_net(crystal)
            if net.n_atoms > most:
                raise FrameworkError(f"expected {most} tetrahedral sites or fewer: got {net.n_atoms}")
            kept.append(net)
        except FrameworkError as error:
            reasons.append((crystal.id, dataset.name, str(error)))
    if not kept:
        first = f", first {reasons[0][0]}: {reasons[0][2]}" if reasons else ""
        raise ValueError(f"expected SiO2 frameworks in {dataset.name}: got none{first}")
    return replace(CrystalDataset.from_crystals(kept, dataset.name), failures=reasons)


def bridges(net: Crystal) -> Crystal:
    """The net with an oxygen atom in the middle of every bond, under the symmetry that it has.

    Raises:
        FrameworkError: a site without just four neighbours.
    """
    near = _bonds(net)
    if _directions(net) < 3:
        raise FrameworkError("expected a net that is connected in three directions: got less")
    structure = net.to_structure()
    inverse = np.linalg.inv(structure.lattice.matrix)
    batch = CrystalBatch.from_crystals([net])
    x = batch.site_positions().numpy()
    # cells of Crystal and of its structure are the same, so fractional coordinates are too
    middles = x[near.site] + 0.5 * near.vector @ inverse
    places = _orbit(net.space_group, middles)
    if len(places) != 2 * net.n_atoms:
        raise FrameworkError(f"expected two oxygen atoms a site: got {len(places)} for {net.n_atoms}")
    for place in places:
        structure.append("O", place)
    try:
        return symmetrise(structure, SymmetriseConfig(symprec=0.01))
    except SymmetriseError as error:
        raise FrameworkError(str(error)) from error


def _bonds(net: Crystal) -> Contacts:
    """The four neighbours of every site; raises FrameworkError for more, for less, and for sites too near."""
    near = contacts(net, _LOOSE)
    bonded = near.distance < _BONDED
    counts = np.bincount(near.site[bonded], minlength=net.n_sites)
    if (counts != 4).any() or not bonded.all():
        raise FrameworkError(f"expected four neighbours of every site: got {sorted(set(counts.tolist()))}")
    if near.distance.min() < 2.6:
        raise FrameworkError(f"expected sites 2.6 Å apart: got {near.distance.min():.2f} Å")
    return near


def _rounded(net: Crystal) -> Crystal:
    """The net on a grid, fine beside the tolerance of a symmetry search.

    The last digits of a draw depend on the size of its batch, and a search takes equal axes, origins and
    images of a site by them: off the grid the same crystal would be written in other ways.
    """
    cell = CrystalBatch.from_crystals([net]).lattice_mask().numpy()[0] > 0
    coords = np.where(cell, np.round(net.lattice_coords * _GRID) / _GRID, net.lattice_coords)
    return replace(net, free=np.round(net.free * _GRID) / _GRID % 1.0, lattice_coords=coords)


def _directions(net: Crystal) -> int:
    """Independent directions in which the bonds of a net repeat it; 0 where it is several pieces."""
    whole = Crystal.without_symmetry(*net.expand())
    near = contacts(whole, _BONDED)
    reached, waiting, ways = {0: np.zeros(3)}, [0], []
    while waiting:
        atom = waiting.pop()
        for row in np.flatnonzero(near.centre == atom):
            other, there = int(near.atom[row]), reached[atom] + near.shift[row]
            if other in reached:
                ways.append(there - reached[other])
            else:
                reached[other] = there
                waiting.append(other)
    return int(np.linalg.matrix_rank(np.array(ways))) if len(reached) == whole.n_atoms else 0


def _orbit(space_group: int, points: np.ndarray) -> np.ndarray:
    """All images of points under a space group inside one primitive cell, fractional, each once."""
    table = wyckoff_table()
    general = int(table.group_start[space_group + 1]) - 1
    rows = slice(*table.orbit_start[general : general + 2].tolist())
    # the general position sits at x = s, so its orbit is the group itself
    rotation, shift = table.orbit_rotation[rows].numpy(), table.orbit_shift[rows].numpy()
    images = (np.einsum("gij,pj->pgi", rotation, points) + shift).reshape(-1, 3)
    steps = 10_000
    keys = np.round(images % 1.0 * steps).astype(int) % steps
    _, first = np.unique(keys, axis=0, return_index=True)
    found = images[first] % 1.0
    apart = found[:, None] - found[None]
    same = np.abs(apart - apart.round()).max(-1) < 3 / steps
    return found[np.flatnonzero(~np.triu(same.T, 1).any(axis=0))]


def _net_wishes(net: Crystal) -> Wishes:
    """Four neighbours at the right distance, all others farther, neighbours of a site as in a tetrahedron.

    Of the four nearest only those are pulled that have the site among their own four nearest.
    """
    near = contacts(net, 6.0)
    rows = [np.flatnonzero(near.site == site) for site in range(net.n_sites)]
    if min(map(len, rows)) < 4:
        raise FrameworkError("expected four neighbours of every site within 6 Å: got fewer")
    fourth = near.distance[[own[3] for own in rows]]
    parts = []
    for own in rows:
        bonds, others = own[:4], own[4:]
        others = others[near.distance[others] < _APART]
        pairs = np.array(
            [
                (a, b)
                for a, b in combinations(bonds, 2)
                if np.linalg.norm(near.vector[a] - near.vector[b]) > _LOOSE
            ],
            dtype=int,
        ).reshape(-1, 2)
        mutual = bonds[near.distance[bonds] <= fourth[near.kind[bonds]] + 1e-6]
        parts += [
            _from_site(near, mutual, T_T, _NET_WEIGHTS[0]),
            _from_site(near, others, _APART, _NET_WEIGHTS[1], least=True),
            _between(near, pairs, _ACROSS, _NET_WEIGHTS[2]),
        ]
    return _joined(parts)


def _framework_wishes(bridged: Crystal) -> Wishes:
    """The bonds, edges of tetrahedra and distances across oxygen of a net with its oxygen in place."""
    near = contacts(bridged, 2.2)
    oxygen = bridged.species == OXYGEN
    parts = []
    for site in range(bridged.n_sites):
        own = np.flatnonzero((near.site == site) & (oxygen[near.kind] != oxygen[site]))
        pairs = np.array(list(combinations(own, 2)), dtype=int).reshape(-1, 2)
        if oxygen[site]:
            parts.append(_between(near, pairs, T_T, _WEIGHTS[2]))
        else:
            parts += [_from_site(near, own, T_O, _WEIGHTS[0]), _between(near, pairs, O_O, _WEIGHTS[1])]
    return _joined(parts)


def _refuse_contacts(crystal: Crystal) -> None:
    """Raise FrameworkError for atoms that came near each other without being bonded."""
    near = contacts(crystal, _LOOSE)
    oxygen = crystal.species == OXYGEN
    ends = oxygen[near.site].astype(int) + oxygen[near.kind]  # 0 for T-T, 1 for T-O, 2 for O-O
    for kind, least, name in ((1, 2.2, "T-O"), (0, 3.45, "T-T")):
        close = near.site[(ends == kind) & (near.distance < least)]
        counts = np.bincount(close, minlength=crystal.n_sites)[~oxygen]
        if (counts != 4).any():
            raise FrameworkError(f"expected four {name} contacts within {least} Å of every site: got others")
    if (near.distance[ends == 2] < 2.05).any() or (near.distance[ends == 0] < 2.75).any():
        raise FrameworkError("expected oxygen atoms 2.05 Å and tetrahedral sites 2.75 Å apart: got others")


def _from_site(
    near: Contacts, rows: np.ndarray, distance: float, weight: float, least: bool = False
) -> Wishes:
    n = len(rows)
    shape = np.full(n, distance), np.full(n, weight), np.full(n, least)
    return Wishes(near.centre[rows], near.atom[rows], near.shift[rows], *shape)


def _between(near: Contacts, pairs: np.ndarray, distance: float, weight: float) -> Wishes:
    """Of two neighbours of one site."""
    a, b, n = pairs[:, 0], pairs[:, 1], len(pairs)
    shape = np.full(n, distance), np.full(n, weight), np.full(n, False)
    return Wishes(near.atom[a], near.atom[b], near.shift[b] - near.shift[a], *shape)


def _joined(parts: list[Wishes]) -> Wishes:
    return Wishes(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Wishes)))


def _bent(bridged: Crystal, number: int) -> Crystal:
    """Every oxygen atom off the middle of its bond, where it is free: on the line nothing bends it."""
    batch = CrystalBatch.from_crystals([bridged])
    arrows = np.random.default_rng(number).normal(0, 0.3, (bridged.n_sites, 3))
    arrows[bridged.species != OXYGEN] = 0.0
    moved = bridged.free + batch.tangent(torch.from_numpy(arrows)).numpy()
    return replace(bridged, free=moved)
