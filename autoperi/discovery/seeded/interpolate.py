"""The way from one crystal to another in the latent space, with all symmetry that both have on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import MAX_Z, Crystal, CrystalBatch, Crystals
from autoperi.crystals.lattice import constrain_lattice, coords_from_lattice, lattice_from_coords
from autoperi.crystals.precision import single_precision
from autoperi.crystals.symmetry import SymmetriseConfig, SymmetriseError, as_found, symmetrise
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.discovery.seeded.alignment import aligned
from autoperi.discovery.seeded.normalizer import Alignment, group_operations
from autoperi.discovery.seeded.seed import Energies
from autoperi.generator import CrystalGenerator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_GENERIC = 0.381966
"""A share of the way at which a crystal is not likely to have more symmetry than all of it."""
_FEWEST, _MOST = 3, 1000
"""Crystals of a path."""
_FINE = SymmetriseConfig(symprec=1e-3, min_distance=0.0)
"""Crystals of a path have their symmetry exactly."""
_MET = 0.1
"""Contact below which two atoms are in one place."""


@dataclass(frozen=True, eq=False)
class Way:
    """Two crystals under one gene, site by site, and the straight way between them.

    Attributes:
        first, second: the ends, with one gene and order of sites.
        moves: of the free coordinates, not wrapped.
        group: number of the space group that holds on all of it.
        backwards: whether it leads from what was given as the second to the first.
        alignment: what it was made of.
    """

    first: Crystal
    second: Crystal
    moves: Float[np.ndarray, "sites 3"]
    group: int
    backwards: bool
    alignment: Alignment


def way_between(first: Crystal, second: Crystal) -> Way:
    """Write two crystals under one gene: that of one of them if the other has all its operations, else in P1.

    In P1 the operations that both have hold all the same: the way is straight.

    Raises:
        ValueError: primitive cells with different numbers of atoms.
    """
    for backwards, (one, other) in enumerate(((first, second), (second, first))):
        found = aligned(one, other)
        if found.operations == len(group_operations(one.space_group)[0]):
            end, moves = _under_gene(one, other, found)
            return Way(one, end, moves, one.space_group, bool(backwards), found)
    found = aligned(first, second)
    (lattice, frac, species), elements = first.expand(), second.expand()[2]
    start = Crystal.without_symmetry(lattice, frac, species)
    end = Crystal.without_symmetry(found.lattice, frac + found.moves, elements[found.atoms])
    way = Way(start, end, found.moves, 1, False, found)
    try:
        return replace(way, group=symmetrise(_geometry(way, [_GENERIC])[0].to_structure(), _FINE).space_group)
    except SymmetriseError:  # then nothing more than P1 is claimed
        return way


def _under_gene(one: Crystal, other: Crystal, found: Alignment) -> tuple[Crystal, np.ndarray]:
    """The other crystal as a point of the one's gene, and the moves of its free coordinates."""
    table = wyckoff_table()
    atom = np.cumsum(one.multiplicities) - one.multiplicities
    moves = np.einsum("sij,sj->si", table.to_free.numpy()[one.wyckoff], found.moves[atom])
    moves = np.where(np.arange(3) < table.dim.numpy()[one.wyckoff, None], moves, 0.0)
    columns = np.linalg.inv(table.primitive[one.space_group].numpy().T)
    coords = coords_from_lattice(torch.from_numpy(columns @ found.lattice)[None])
    family = table.family[one.space_group : one.space_group + 1]
    end = replace(
        other,
        space_group=one.space_group,
        wyckoff=one.wyckoff,
        species=other.expand()[2][found.atoms[atom]],
        free=(one.free + moves) % 1.0,
        lattice_coords=constrain_lattice(coords, family)[0].numpy(),
    )
    return end, moves


def path(
    generator: CrystalGenerator, first: Crystal, second: Crystal, steps: int = 7
) -> tuple[Crystals, Way]:
    """Crystals on the way from one crystal to another in the latent space, both ends among them.

    Free coordinates go straight, cells along the geodesic of their metrics, h of each site straight between
    what the encoder says of the ends; where the elements differ, the decoder reads them from h. The ends are
    the given crystals as the way describes them. In their properties: ``fraction`` of the way, ``distance``
    that the atoms have come (root mean square, Å, the strain taken out) and ``contact``, the
    shortest distance of two atoms over the sum of their covalent radii. Crystals of a way in P1 are described
    under the group that they have; where atoms meet it says so in ``provenance["problem"]``.

    Raises:
        ValueError: a number of steps that makes no path, or crystals that no way joins (`way_between`).
    """
    if not _FEWEST <= steps <= _MOST:
        raise ValueError(f"expected {_FEWEST} to {_MOST} steps, both ends among them: got {steps}")
    way = way_between(first, second)
    fractions = np.linspace(0, 1, steps)
    along = 1 - fractions if way.backwards else fractions
    points = _with_elements(generator, way, _geometry(way, along), along)
    out = Crystals()
    for fraction, share, point in zip(fractions, along, points, strict=True):
        told = {
            "fraction": float(fraction),
            "distance": _distance(way, abs(share - along[0])),
            **_contact(point),
        }
        names = {"from": first.id, "to": second.id, "common_group": way.group}
        if told.get("contact", 1.0) < _MET:
            names = {**names, "problem": "two atoms meet"}
        elif way.first.space_group == 1:
            point = symmetrise(point.to_structure(), _FINE)
        out.append(replace(point, id=f"{len(out):03d}", properties=told, provenance=names))
    return out, way


def _geometry(way: Way, along: Sequence[float] | np.ndarray) -> list[Crystal]:
    """The geometry at shares of the way, with the elements of the nearer end."""
    ends = [lattice_from_coords(torch.from_numpy(c.lattice_coords)[None])[0] for c in (way.first, way.second)]
    start, stop = (cell @ cell.T for cell in ends)
    values, vectors = torch.linalg.eigh(start)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.T
    inverse = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    values, vectors = torch.linalg.eigh(inverse @ stop @ inverse)
    family = wyckoff_table().family[way.first.space_group : way.first.space_group + 1]
    out = []
    for f in along:
        # the geodesic of positive definite matrices: it keeps every change of basis that both ends keep
        metric = root @ vectors @ torch.diag(values**f) @ vectors.T @ root
        coords = constrain_lattice(coords_from_lattice(torch.linalg.cholesky(metric)[None]), family)
        nearer = way.first if f < 0.5 else way.second
        free = (way.first.free + f * way.moves) % 1.0
        out.append(replace(nearer, free=free, lattice_coords=coords[0].numpy()))
    return out


@single_precision()
@torch.no_grad()
def _with_elements(
    generator: CrystalGenerator, way: Way, points: Sequence[Crystal], along: np.ndarray
) -> list[Crystal]:
    """Elements of the inner points where those of the ends differ, as the decoder reads them.

    Sites that go from one element to the same other one have one element; sites that have different ones
    at both ends have so on the way, else symmetry would rise.
    """
    flow = generator.flow
    pairs = np.stack([way.first.species, way.second.species])
    if (pairs[0] == pairs[1]).all():
        return list(points)
    parameter = next(flow.parameters())
    start, stop = (latents.mean for latents in flow.encode([way.first, way.second]))
    h = torch.cat([(1 - f) * start + f * stop for f in along.tolist()])
    blank = [replace(p, species=np.where(pairs[0] == pairs[1], pairs[0], 0)) for p in points]
    batch = CrystalBatch.from_crystals(blank).to(parameter.device, parameter.dtype)
    z = flow.velocity.scale.from_coords(batch.lattice_coords, batch)
    logits = flow.autoencoder.decoder((h, batch.free, z), batch).logits
    scores = logits[:, 1 : MAX_Z + 1].log_softmax(-1).double().cpu().split(way.first.n_sites)
    weights = torch.from_numpy(way.first.multiplicities).double()[:, None]
    return [
        p if f in (0, 1) else replace(p, species=_elements(pairs, own * weights))
        for p, f, own in zip(points, along, scores, strict=True)
    ]


def _elements(pairs: np.ndarray, scores: Float[Tensor, "sites elements"]) -> np.ndarray:
    """The likeliest elements of sites, one for each kind of site, told apart where both ends are."""
    kinds, kind = np.unique(pairs, axis=1, return_inverse=True)
    kind = kind.reshape(-1)
    totals = np.stack([scores[kind == k].sum(dim=0).numpy() for k in range(kinds.shape[1])])
    fixed = kinds[0] == kinds[1]
    chosen = np.where(fixed, kinds[0], 0)
    for k in np.argsort(-totals.max(axis=1), kind="stable"):
        if not fixed[k]:
            apart = (kinds != kinds[:, [k]]).all(axis=0)
            totals[k, chosen[apart & (chosen > 0)] - 1] = -np.inf
            chosen[k] = int(totals[k].argmax()) + 1
    return chosen[kind]


def _distance(way: Way, share: float) -> float:
    """Root mean square of what the atoms have moved, Å, in the mean of both cells."""
    start = way.first.expand()[0]
    metric = (start @ start.T + way.alignment.lattice @ way.alignment.lattice.T) / 2
    moves = share * way.alignment.moves
    return float(np.sqrt(np.einsum("ai,ij,aj->a", moves, metric, moves).mean()))


def _contact(crystal: Crystal) -> dict[str, float]:
    """The shortest distance of two atoms over the sum of their covalent radii; nothing beyond 6 Å."""
    structure = crystal.to_structure()
    i, j, _, distances = structure.get_neighbor_list(6.0, exclude_self=True)
    radii = covalent_radii[[site.specie.Z for site in structure]]
    return {"contact": float((distances / (radii[i] + radii[j])).min())} if len(distances) else {}


def path_table(points: Sequence[Crystal], energies: Energies) -> "pd.DataFrame":
    """What ``path.csv`` holds: a row each, properties of the crystals among the columns.

    ``space_group`` is that of the description, ``found`` the one that a search finds, a supergroup of it;
    ``energy`` is in eV/atom, missing where there is none.
    """
    import pandas as pd

    rows = []
    for point, energy in zip(points, energies(points), strict=True):
        told = point.properties
        rows.append(
            {
                "fraction": told["fraction"],
                "id": point.id,
                "formula": point.formula,
                "elements": " ".join(chemical_symbols[z] for z in point.species),
                "space_group": point.space_group,
                "gene": point.gene,
                "found": _found(point),
                "volume": round(abs(float(np.linalg.det(point.expand()[0]))) / point.n_atoms, 4),
                "energy": energy,
                **{key: value for key, value in told.items() if key != "fraction"},
                "problem": point.provenance.get("problem", ""),
            }
        )
    return pd.DataFrame(rows).replace({"energy": {np.inf: np.nan}})


def _found(crystal: Crystal) -> int | None:
    try:
        return as_found(crystal).space_group
    except SymmetriseError:
        return None


def path_picture(table: "pd.DataFrame", shown: dict[str, str]) -> "Figure":
    """Columns of a path over the share of the way, a panel each.

    Args:
        table: of `path_table`.
        shown: name of the axis of each column, with its unit.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1.9 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (column, name) in zip(panels, shown.items(), strict=True):
        axes.plot(table["fraction"], table[column], "o-", color="#1b6ca8")
        axes.set_ylabel(name, fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel(f"share of the way from {table['formula'].iloc[0]} to {table['formula'].iloc[-1]}")
    return figure
