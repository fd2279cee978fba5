"""Whether what is drawn is what was asked for: real symmetry and cell, and what no training crystal has."""

from functools import lru_cache

import numpy as np
import torch
from ase.data import chemical_symbols

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.lattice import constrain_lattice
from autoperi.crystals.symmetry import SymmetriseError, as_found
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.genes.empirical import EmpiricalGenes
from autoperi.genes.request import GeneRequest


class DeliveryWarning(UserWarning):
    """Something of a request that is not delivered, or that no training crystal has."""


class NothingDrawnError(ValueError):
    """No crystal that was drawn is what was asked for."""


def generic(gene: Crystal) -> Crystal:
    """What a gene really is wherever its free coordinates and its cell lie, under its own space group.

    Orbits of one element may have more symmetry together than their space group, or a smaller cell: sites
    without freedom always, in all geometries. Sites without species count as different elements.
    """
    kinds = {z: k for k, z in enumerate(dict.fromkeys(gene.species.tolist()), 1)}
    species = [kinds[z] if z else 50 + i for i, z in enumerate(gene.species.tolist())]
    return _generic(gene.space_group, tuple(gene.wyckoff.tolist()), tuple(species))


@lru_cache(maxsize=1 << 16)
def _generic(space_group: int, wyckoff: tuple[int, ...], species: tuple[int, ...]) -> Crystal:
    table, positions = wyckoff_table(), np.array(wyckoff)
    atoms = int(table.multiplicity.numpy()[positions].sum())
    centring = 1 / float(torch.linalg.det(table.primitive[space_group]))
    dims = table.dim.numpy()[positions]
    made = None
    for seed in range(5):  # atoms may meet by chance
        rng = np.random.default_rng(seed)
        coords = torch.from_numpy(rng.normal(0, 0.12, 6))
        coords[5] = np.log(20 * atoms * centring) / 3
        made = Crystal(
            space_group=space_group,
            wyckoff=positions,
            species=np.array(species),
            free=np.where(np.arange(3) < dims[:, None], rng.random((len(wyckoff), 3)), 0.0),
            lattice_coords=constrain_lattice(coords[None], table.family[space_group : space_group + 1])[
                0
            ].numpy(),
        )
        try:
            return as_found(made, (1e-4,))
        except SymmetriseError:
            continue
    assert made is not None
    return made


def delivered(crystal: Crystal, request: GeneRequest) -> Crystal | str:
    """The crystal under its real symmetry if it meets the request; else what is wrong with it."""
    try:
        real = as_found(crystal)
    except SymmetriseError as error:
        return f"{crystal.gene} has another symmetry, {error}"
    return real if request.fits(real) else misfit(crystal, real)


def fitting(crystal: Crystal, request: GeneRequest) -> Crystal | str:
    """The crystal as it is delivered, or what is wrong with it."""
    if not is_finite(crystal):
        return "a geometry is not finite: ask for less guidance"
    return delivered(crystal, request) if request.constrains_symmetry else crystal


def misfit(declared: Crystal, real: Crystal) -> str:
    """What a crystal is in place of what it was drawn as."""
    return f"{declared.gene} is {real.gene} with {real.n_atoms} atoms in its primitive cell"


def is_finite(crystal: Crystal) -> bool:
    """Whether a crystal has a geometry that can be written: finite, and within what a cell can be."""
    numbers = np.concatenate([crystal.free.ravel(), crystal.lattice_coords])
    return bool(np.isfinite(numbers).all() and np.abs(crystal.lattice_coords).max() <= 15)


def unseen(request: GeneRequest, training: EmpiricalGenes) -> list[str]:
    """What of a request no training crystal has, a sentence each."""
    elements = sorted(set(range(1, len(request.permitted()))) - training.elements())
    named = request.system() or (request.allowed_elements is not None and np.flatnonzero(request.permitted()))
    out = []
    strange = [chemical_symbols[z] for z in elements if named is not False and z in set(named)]
    if strange:
        out.append(f"no training crystal holds {', '.join(strange)}")
    elif not training.elements() & set(np.flatnonzero(request.permitted()).tolist()):
        out.append("no training crystal holds an element that may appear")
    sizes = training.n_atoms()
    low, high = request.n_atoms or (1, int(sizes.max()))
    if not ((sizes >= low) & (sizes <= high)).any():
        out.append(
            f"no training crystal has {low} to {high} atoms in its primitive cell, the largest {sizes.max()}"
        )
    if not set(request.groups()) & training.space_groups():
        out.append(f"no training crystal has a space group among {list(request.groups())}")
    return out
