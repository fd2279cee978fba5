"""Edits: part of a crystal is kept, the rest is drawn anew by the generator under the same gene."""

import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import Bool

from autoperi.crystals.crystal import Crystal, Crystals
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.discovery.seeded.seed import Energies, named_sites
from autoperi.discovery.templates import gene_with_species
from autoperi.flow.starts import Begin
from autoperi.flow.steering import Held
from autoperi.generator import CrystalGenerator
from autoperi.generator.arguments import check_count
from autoperi.generator.delivery import DeliveryWarning, fitting, generic, misfit
from autoperi.genes.request import GeneRequest

if TYPE_CHECKING:
    import pandas as pd

Part = Literal["species", "sites", "cell"]

_ATTEMPTS, _HOPELESS = 16, 4
"""Draws for each crystal until it is one; and rounds of which none brings one, after which none will."""
_AGAIN = 1 << 19
"""Keeps the noise of further draws apart from all other noise."""
_SHORTEST = 0.5
"""Å between atoms, below which they have met."""


@dataclass(frozen=True, eq=False)
class Kept:
    """What an edit keeps of a crystal, besides its gene.

    Attributes:
        species: whether each site keeps its element.
        places: whether each site keeps its place, as fractional coordinates.
        cell: whether the cell stays.
    """

    species: Bool[np.ndarray, "sites"]
    places: Bool[np.ndarray, "sites"]
    cell: bool

    @classmethod
    def of(
        cls,
        crystal: Crystal,
        *,
        species: bool = False,
        sites: Collection[int] = (),
        cell: bool = False,
        redraw: Collection[Part] = (),
    ) -> "Kept":
        """What is asked for.

        Args:
            crystal: whose parts they are.
            species: keep all elements.
            sites: numbers of sites that keep element and place.
            cell: keep it.
            redraw: what is drawn anew, all else is kept; by default everything that is not kept.

        Raises:
            ValueError: a site that is not there, a part both kept and redrawn, or nothing left to draw.
        """
        strange = sorted(set(sites) - set(range(crystal.n_sites)))
        if strange:
            raise ValueError(
                f"expected sites among {named_sites(crystal)}: got {', '.join(map(str, strange))}"
            )
        for part, stays in (("species", species), ("cell", cell)):
            if stays and part in redraw:
                raise ValueError(f"{part} cannot be both kept and redrawn: leave one of the two out")
        drawn = set(redraw or get_args(Part))
        stays = np.isin(np.arange(crystal.n_sites), list(sites))
        fixed = wyckoff_table().dim.numpy()[crystal.wyckoff] == 0
        kept = cls(
            species=stays | (species or "species" not in drawn),
            places=stays | ("sites" not in drawn),
            cell=cell or "cell" not in drawn,
        )
        if kept.species.all() and kept.cell and (kept.places | fixed).all():
            free = "" if fixed.all() else f" (free are {_numbers(~fixed)})"
            raise ValueError(
                f"nothing is left to redraw of {crystal.formula}, gene {crystal.gene}: keep less, or redraw "
                f"species, cell or sites with free coordinates{free}; sites: {named_sites(crystal)}"
            )
        return kept

    def moves(self, crystal: Crystal) -> bool:
        """Whether geometry is drawn at all."""
        fixed = wyckoff_table().dim.numpy()[crystal.wyckoff] == 0
        return not (self.cell and (self.places | fixed).all())

    def __str__(self) -> str:
        """In words, for people."""
        parts = [f"{name} of sites {_numbers(which)}" for name, which in self._masks() if which.any()]
        return ", ".join(["gene", *parts, *(["cell"] if self.cell else [])])

    def _masks(self) -> tuple[tuple[str, np.ndarray], ...]:
        return ("elements", self.species), ("places", self.places)


def edited(generator: CrystalGenerator, crystal: Crystal, kept: Kept, n: int = 10, seed: int = 0) -> Crystals:
    """Draw n crystals that share what is kept with a crystal; its gene is the gene of all of them.

    The prior draws elements, told those that are kept; the flow draws geometry from noise, in which kept
    places and cell stand at every time where they would be (`Hold`). In the end they are what they were, to
    the last bit. Where elements alone are drawn, no crystal comes twice and none is the one given. Crystal i
    is seeded by (seed, i).

    Raises:
        ValueError: a number that is no number of crystals, or nothing drawn has the gene; why is said.

    Warns:
        DeliveryWarning: fewer crystals than asked for, and why.
    """
    check_count(n)
    moves, request = kept.moves(crystal), GeneRequest(gene=crystal.gene)
    taken = {_name(crystal)}
    found: dict[int, Crystal] = {}
    wrong: Counter[str] = Counter()
    for attempt in range(_ATTEMPTS):
        pending = [i for i in range(n) if i not in found]
        if not pending or (attempt == _HOPELESS and not found):
            break
        genes: dict[int, Crystal] = {}
        for i, gene in zip(
            pending, _with_species(generator, crystal, kept, pending, seed, attempt), strict=True
        ):
            if not kept.species.all() and (real := generic(gene)).gene != crystal.gene:
                wrong[misfit(gene, real)] += 1
            elif not moves and _name(gene) in taken:
                wrong["its elements have been drawn before"] += 1
            else:
                genes[i] = gene
                taken.add(_name(gene))
        for i, drawn in _with_geometry(generator, crystal, kept, genes, seed, attempt).items():
            real = fitting(drawn, request)
            if isinstance(real, str):
                wrong[real] += 1
            elif moves and not drawn.to_structure().is_valid(_SHORTEST):
                wrong["atoms have met"] += 1
            else:
                told = {"edited": crystal.id, "kept": str(kept), "seed": seed, "index": i}
                found[i] = replace(drawn, id=f"{i:06d}", properties={}, provenance=told)
    reasons = "; ".join(f"{reason} ({count} times)" for reason, count in wrong.most_common(3))
    if not found:
        raise ValueError(f"nothing that was drawn is an edit of {crystal.formula}: {reasons}")
    if len(found) < n:
        told = f"{len(found)} of {n} crystals are delivered, others are not what was asked for: {reasons}"
        warnings.warn(told, DeliveryWarning, stacklevel=2)
    return Crystals(found[i] for i in sorted(found))


def _with_species(
    generator: CrystalGenerator,
    crystal: Crystal,
    kept: Kept,
    numbers: Sequence[int],
    seed: int,
    attempt: int,
) -> list[Crystal]:
    """The crystal with the elements that each number draws, its sites in their order."""
    if kept.species.all():
        return [crystal for _ in numbers]
    blank = replace(crystal, species=np.where(kept.species, crystal.species, 0))
    prior = generator.learned_genes()
    drawn = prior.draw_species([blank for _ in numbers], numbers, seed, attempt=attempt)
    return [replace(crystal, species=_in_order(blank, one)) for one in drawn]


def _in_order(crystal: Crystal, drawn: Crystal) -> np.ndarray:
    """Elements of a crystal whose sites were put into another order, each by the place of its site."""

    def places(one: Crystal) -> list[tuple]:
        return [(p, *s) for p, s in zip(one.wyckoff.tolist(), one.free.tolist(), strict=True)]

    species = dict(zip(places(drawn), drawn.species.tolist(), strict=True))
    return np.array([species[place] for place in places(crystal)])


def _with_geometry(
    generator: CrystalGenerator,
    crystal: Crystal,
    kept: Kept,
    genes: dict[int, Crystal],
    seed: int,
    attempt: int,
) -> dict[int, Crystal]:
    """What the flow makes of genes by number, and what is kept as it was."""
    if not genes or not kept.moves(crystal):
        return genes
    keys = [(i, _AGAIN, attempt) if attempt else (i,) for i in genes]
    begin = Begin(held=Held(kept.places, kept.cell))
    drawn = generator.flow.draw(list(genes.values()), seed, keys=keys, begins=[begin for _ in genes])
    cell = {"lattice_coords": crystal.lattice_coords} if kept.cell else {}
    stays = kept.places[:, None]
    return {
        i: replace(one, free=np.where(stays, crystal.free, one.free), **cell)
        for i, one in zip(genes, drawn, strict=True)
    }


def deviation(crystal: Crystal, other: Crystal, kept: Kept) -> float:
    """How far what is kept is from what it was in an edited crystal, Å.

    The largest of: moves of the atoms of kept sites, their fractional coordinates seen in the edited cell,
    and changes of the lengths of the primitive vectors where the cell is kept.
    """
    cells, fracs, _ = zip(crystal.expand(), other.expand(), strict=True)
    atoms = np.repeat(kept.places, crystal.multiplicities)
    moved = (fracs[1] - fracs[0])[atoms]
    far = [float(np.linalg.norm((moved - moved.round()) @ cells[1], axis=1).max(initial=0.0))]
    if kept.cell:
        lengths = [np.linalg.norm(cell, axis=1) for cell in cells]
        far.append(float(np.abs(lengths[1] - lengths[0]).max()))
    return max(far)


def edit_table(crystal: Crystal, edits: Sequence[Crystal], kept: Kept, energies: Energies) -> "pd.DataFrame":
    """What an edit changed, a row each, the crystal itself first.

    Columns: ``id``, ``formula``, ``gene``, ``elements_changed`` (sites), ``volume`` (Å³/atom), ``deviation``
    of what is kept (Å) and ``energy`` (eV/atom, NaN where there is none).
    """
    import pandas as pd

    every = [crystal, *edits]
    rows = [
        {
            "id": one.id,
            "formula": one.formula,
            "gene": one.gene,
            "elements_changed": int((one.species != crystal.species).sum()),
            "volume": round(abs(float(np.linalg.det(one.expand()[0]))) / one.n_atoms, 4),
            "deviation": deviation(crystal, one, kept),
            "energy": energy,
        }
        for one, energy in zip(every, energies(every), strict=True)
    ]
    return pd.DataFrame(rows).replace({"energy": {np.inf: np.nan}})


def _name(crystal: Crystal) -> tuple[int, ...]:
    return gene_with_species(crystal.space_group, crystal.wyckoff, crystal.species.tolist())


def _numbers(which: np.ndarray) -> str:
    return " ".join(map(str, np.flatnonzero(which)))
