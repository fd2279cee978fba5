"""The empirical prior: genes and species of a training set, resampled."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.labels import DEFAULT_CONDITIONS, Condition
from autoperi.crystals.wyckoff import relabellings, wyckoff_table
from autoperi.genes.batch import GeneBatch
from autoperi.genes.request import GeneRequest
from autoperi.genes.search import OrbitSearch
from autoperi.networks.condition import Targets


class EmpiricalGenes:
    """The genes and species of a training set, as compact arrays that travel inside a checkpoint."""

    def __init__(
        self,
        n_sites: np.ndarray,
        wyckoff: np.ndarray,
        species: np.ndarray,
        properties: np.ndarray,
        conditions: Mapping[str, Condition] = DEFAULT_CONDITIONS,
    ) -> None:
        """Sites per crystal [crystals]; positions and species [sites]; scalars [crystals, scalars]."""
        if not n_sites.sum() == len(wyckoff) == len(species) or properties.shape != (
            len(n_sites),
            len(conditions),
        ):
            raise ValueError(
                f"expected {n_sites.sum()} sites and properties {[len(n_sites), len(conditions)]}: got "
                f"{len(wyckoff)} positions, {len(species)} species, properties {list(properties.shape)}"
            )
        self._conditions = dict(conditions)
        self._arrays = {
            "n_sites": n_sites.astype(np.int16),
            "wyckoff": wyckoff.astype(np.int16),
            "species": species.astype(np.uint8),
            "properties": properties.astype(np.float32),
        }
        ends = n_sites.cumsum()
        self._orbits = [tuple(w.tolist()) for w in np.split(wyckoff.astype(int), ends[:-1])]
        self._species = np.split(species.astype(int), ends[:-1])
        self._groups = wyckoff_table().space_group.numpy()[[o[0] for o in self._orbits]]

    @classmethod
    def from_crystals(
        cls, crystals: Sequence[Crystal], conditions: Mapping[str, Condition] = DEFAULT_CONDITIONS
    ) -> "EmpiricalGenes":
        """Keep gene, species and known scalars of each crystal; raises ValueError for an empty list."""
        batch = GeneBatch.from_crystals(crystals, conditions)
        is_site = batch.wyckoff >= 0
        return cls(
            is_site.sum(dim=1).numpy(),
            batch.wyckoff[is_site].numpy(),
            batch.species[is_site].numpy(),
            batch.conditions.numpy(),
            conditions,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to rebuild it with `from_state_dict`, about 20 bytes a crystal and 3 a site."""
        return {name: torch.from_numpy(array) for name, array in self._arrays.items()}

    @classmethod
    def from_state_dict(
        cls, state: dict[str, Tensor], conditions: Mapping[str, Condition] = DEFAULT_CONDITIONS
    ) -> "EmpiricalGenes":
        """The prior that `state_dict` described; columns of its properties are the conditions."""
        return cls(**{name: tensor.cpu().numpy() for name, tensor in state.items()}, conditions=conditions)

    def with_conditions(self, conditions: Mapping[str, Condition]) -> "EmpiricalGenes":
        """The same crystals with a column for each of these: NaN where there are no labels of one."""
        columns = dict(zip(self._conditions, self._arrays["properties"].T, strict=True))
        missing = np.full(len(self), np.nan)
        rows = np.array([columns.get(name, missing) for name in conditions]).reshape(len(conditions), -1)
        return EmpiricalGenes(**{**self._arrays, "properties": rows.T}, conditions=conditions)

    def __len__(self) -> int:
        """Number of training crystals."""
        return len(self._orbits)

    def labels(self, name: str) -> np.ndarray:
        """Known values of a condition, in its unit."""
        values = self._arrays["properties"][:, list(self._conditions).index(name)]
        return values[np.isfinite(values)]

    def elements(self) -> set[int]:
        """Atomic numbers of the training set."""
        return set(self._arrays["species"].tolist())

    def formulas(self) -> set[str]:
        """Reduced formulas of the training set."""
        rows = zip(self._groups.tolist(), self._orbits, self._species, strict=True)
        return {gene_crystal(group, orbits, species, {}).formula for group, orbits, species in rows}

    def space_groups(self) -> set[int]:
        """Space groups of the training set."""
        return set(self._groups.tolist())

    def n_atoms(self) -> np.ndarray:
        """Atoms in the primitive cell of each training crystal."""
        sizes = wyckoff_table().multiplicity.numpy()[self._arrays["wyckoff"]]
        ends = self._arrays["n_sites"].astype(int).cumsum()
        return np.add.reduceat(sizes, np.concatenate([[0], ends[:-1]]))

    def names(self) -> set[tuple[int, ...]]:
        """First name of every gene (`relabellings`)."""
        groups = wyckoff_table().space_group.tolist()
        return {relabellings(groups[orbits[0]], orbits)[0][0] for orbits in set(self._orbits)}

    def holds(self, crystal: Crystal) -> bool:
        """Whether a training crystal has this formula and this gene; species must be known."""
        return _named(crystal.space_group, crystal.wyckoff.tolist(), crystal.species.tolist()) in self._whole

    @cached_property
    def _whole(self) -> frozenset[tuple]:
        """Gene and formula of every training crystal."""
        rows = zip(self._groups.tolist(), self._orbits, self._species, strict=True)
        return frozenset(_named(group, orbits, species.tolist()) for group, orbits, species in rows)

    def sample(
        self,
        numbers: Sequence[int],
        seed: int,
        request: GeneRequest | None = None,
        targets: Targets | None = None,
        attempt: int = 0,
    ) -> list[Crystal]:
        """Draw a training gene for each number, among those that meet the request; species stay open (0).

        Targets weigh the training crystals by a Gaussian kernel around each value, 1/20 of the
        condition's range wide, raised to the guidance. Further attempts take other random numbers.

        Raises:
            ValueError: an impossible request, or one that no training crystal meets.
        """
        request = request or GeneRequest()
        table = wyckoff_table().multiplicity.numpy()
        search = OrbitSearch(request, max(int(table[list(o)].sum()) for o in self._orbits))
        known = {orbits: search.accepts(orbits) for orbits in set(self._orbits)}
        keep = np.array([known[orbits] for orbits in self._orbits], dtype=float)
        cumulative: dict[tuple[str, ...], np.ndarray] = {}
        drawn = []
        for i, values in zip(numbers, target_rows(targets, len(numbers), len(self._conditions)), strict=True):
            key = tuple(map(str, values))
            if key not in cumulative:
                weight = keep * self._kernel(values, targets.guidance if targets else 1.0)
                if not weight.sum() > 0:
                    raise ValueError(
                        f"none of the {len(self)} training crystals has a gene for {request} near "
                        f"{dict(zip(self._conditions, values, strict=True))}: widen the request, or use the "
                        "learned prior, which draws genes beyond the training set"
                    )
                cumulative = {key: weight.cumsum()}
            sums = cumulative[key]
            u = np.random.default_rng([seed, i, 0, attempt] if attempt else [seed, i, 0]).random()
            row = int(np.searchsorted(sums, u * sums[-1], side="right"))
            origin = {"seed": seed, "index": i, "gene_prior": "empirical"}
            orbits = self._orbits[row]
            drawn.append(gene_crystal(int(self._groups[row]), orbits, np.zeros(len(orbits)), origin))
        return drawn

    def _kernel(self, values: Sequence[float], power: float) -> np.ndarray:
        weight = np.ones(len(self))
        for column, (condition, value) in enumerate(zip(self._conditions.values(), values, strict=True)):
            if np.isfinite(value):
                width = 0.05 * (condition.high - condition.low)
                distance = (self._arrays["properties"][:, column] - value) / width
                weight *= np.nan_to_num(np.exp(-0.5 * power * distance**2))
        return weight


def _named(group: int, orbits: Sequence[int], species: Sequence[int]) -> tuple:
    """First name of a gene, and its atoms of each element."""
    atoms: dict[int, int] = {}
    for z, n in zip(species, wyckoff_table().multiplicity[list(orbits)].tolist(), strict=True):
        atoms[z] = atoms.get(z, 0) + n
    return relabellings(group, tuple(orbits))[0][0], tuple(sorted(atoms.items()))


def target_rows(targets: Targets | None, crystals: int, scalars: int) -> list[list[float]]:
    """Target values of each crystal."""
    return [[float("nan")] * scalars] * crystals if targets is None else targets.values.tolist()


def gene_crystal(
    group: int, orbits: Sequence[int], species: np.ndarray, provenance: dict[str, str | int | float]
) -> Crystal:
    """A crystal without geometry: free and lattice coordinates are zero."""
    return Crystal(
        space_group=group,
        wyckoff=np.array(orbits, dtype=np.int64),
        species=np.asarray(species, dtype=np.int64),
        free=np.zeros((len(orbits), 3)),
        lattice_coords=np.zeros(6),
        provenance=provenance,
    )
