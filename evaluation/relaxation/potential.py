"""What a relaxation needs of a potential: a graph of a crystal, and energies and derivatives on graphs."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pymatgen.core import Structure

from autoperi.data.element_references import ElementReferences
from evaluation.relaxation.operations import Operations


@dataclass(frozen=True)
class Forces:
    """What a potential says about a batch.

    Attributes:
        energies: eV, of each crystal. [crystals]
        gradients: dE/dx of every atom of every crystal, eV/Å; of a graph that makes use of symmetry only
            their projection onto the symmetric displacements is meaningful. [atoms, 3]
        virials: dE/dε for cell ← cell (1 + ε), eV. [crystals, 3, 3]
    """

    energies: np.ndarray
    gradients: np.ndarray
    virials: np.ndarray

    def first(self, crystals: int, atoms: int) -> "Forces":
        """Those of the first crystals, which have so many atoms."""
        return Forces(self.energies[:crystals], self.gradients[:atoms], self.virials[:crystals])


@runtime_checkable
class Graph(Protocol):
    """A crystal as a potential reads it; serves until an atom may have crossed its cut-off."""

    @property
    def sites(self) -> int:
        """Symmetry-distinct atoms, of which a batch takes so many."""
        ...

    @property
    def work(self) -> int:
        """Terms computed for it; time is shared by them."""
        ...

    @property
    def memory(self) -> float:
        """Gigabytes that its derivatives take."""
        ...


@runtime_checkable
class Potential(Protocol):
    """An interatomic potential on batches of graphs.

    Attributes:
        cutoff: distance from which atoms are not neighbours, Å; graphs reach `SKIN` further.
        batch_sites: symmetry-distinct atoms that are best computed together.
    """

    cutoff: float
    batch_sites: int

    def graph(self, cell: np.ndarray, cart: np.ndarray, numbers: np.ndarray, operations: Operations) -> Graph:
        """The graph of a crystal on which the operations act exactly.

        Raises:
            ValueError: when it cannot be represented; the message says why.
        """
        ...

    def as_it_stands(self, structure: Structure) -> tuple[Graph, np.ndarray, np.ndarray]:
        """Graph, positions and cell of a crystal that is not to be relaxed.

        Raises:
            ValueError: when it cannot be represented.
        """
        ...

    def __call__(
        self,
        graphs: Sequence[Any],
        positions: Sequence[np.ndarray],
        cells: Sequence[np.ndarray],
        derivatives: bool = True,
    ) -> Forces:
        """Energies and derivatives; False leaves gradients and virials at zero, in a third of the time.

        Args:
            graphs: of its own making, one per crystal, still valid.
            positions: Cartesian, Å, continuous with those the graph was built from. [atoms, 3] each
            cells: lattice vectors as rows, Å. [3, 3] each
            derivatives: whether they are wanted.
        """
        ...


class Relaxer:
    """A potential by its name, which is all that settings and files say of it.

    Attributes:
        name: as printed beside every figure; part of the key under which results are journalled.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        """The name."""
        return self.name


class BatchRelaxer(Relaxer):
    """A potential that relaxes many crystals together.

    Attributes:
        package: whose weights and code it is.
        load: gives the potential on a torch device.
        references: gives the element references fitted to its energies.
    """

    def __init__(
        self,
        name: str,
        package: str,
        load: Callable[[str], Potential],
        references: Callable[[], ElementReferences],
    ) -> None:
        super().__init__(name)
        self.package, self.load, self.references = package, load, references

    def static_energies(
        self, structures: Sequence[Structure], batch_size: int = 32, device: str = "cpu"
    ) -> Iterator[float]:
        """Yield the energy of each structure as it stands, eV/atom.

        A structure the potential cannot represent (an isolated atom, an element it does not know)
        yields NaN; the others of its batch are unaffected.
        """
        potential = self.load(device)
        for start in range(0, len(structures), batch_size):
            batch = structures[start : start + batch_size]
            energies = np.full(len(batch), np.nan)
            built: dict[int, tuple[Graph, np.ndarray, np.ndarray]] = {}
            for k, structure in enumerate(batch):
                with contextlib.suppress(ValueError):
                    built[k] = potential.as_it_stands(structure)
            if built:
                graphs, positions, cells = zip(*built.values(), strict=True)
                found = potential(graphs, positions, cells, derivatives=False).energies
                energies[list(built)] = found / [len(x) for x in positions]
            yield from energies.tolist()
