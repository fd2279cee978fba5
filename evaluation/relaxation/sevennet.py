"""Energies, forces and stresses from SevenNet-l3i5 (JCTC 20, 4857, 2024), with the crystal's symmetry used.

The network is SevenNet's, with its weights, from the package sevenn (extra ``judge``); the convolution is
computed here, for one site of each orbit and one edge of each orbit of its neighbours. Features of angular
momentum turn with the crystal: those of an atom are its site's, turned by the operation that leads there; the
sum over a site's neighbours is the sum over one edge of each orbit, averaged over the operations that fix the
site. The network tells left from right (it has no parity), so only proper rotations are made use of. Equal to
the package's own calculator to float32 rounding.

Crystals are computed one by one, so that a result does not depend on the company.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from e3nn.o3 import matrix_to_angles, wigner_3j, wigner_D
from pymatgen.core import Structure
from torch import Tensor, nn
from torch.nn.functional import one_hot

from autoperi.crystals.device import usable_device
from autoperi.crystals.precision import single_precision
from autoperi.data.cache import required
from autoperi.data.element_references import SEVENNET_REFERENCES, ElementReferences
from evaluation.relaxation.operations import Operations, symmetric_crystal
from evaluation.relaxation.potential import BatchRelaxer, Forces
from evaluation.relaxation.quotient_graph import QuotientGraph, quotient_graph

NAME = "SevenNet-l3i5"
_MODEL, _LAYERS = "7net-l3i5", 5
_DEGREES = range(4)
_EDGE = 4e-4
"""Gigabytes of an edge in a relaxation."""
_AS_IT_STANDS = 1e-3
"""Å by which a crystal that is not relaxed is moved at most, to make use of its symmetry."""


@cache
def sevennet(device: str = "cpu") -> "SevenNetPotential":
    """The potential, loaded once per process."""
    return SevenNetPotential(usable_device(device))


@dataclass(frozen=True)
class SevenNetGraph:
    """A quotient graph and how features turn along its edges.

    Attributes:
        quotient: without angles; its operations are the crystal's proper rotations.
        turn: from the features of a site to those of the atom at the end of an edge, by degree;
            None without symmetry. [edges, 2l+1, 2l+1] each
        average: over the operations that fix a site. [sites, 2l+1, 2l+1] each
    """

    quotient: QuotientGraph
    turn: list[Tensor] | None = None
    average: list[Tensor] | None = None

    @property
    def sites(self) -> int:
        """Orbits of atoms."""
        return self.quotient.sites

    @property
    def work(self) -> int:
        """Edges."""
        return self.quotient.work

    @property
    def memory(self) -> float:
        """Gigabytes of its edges in a relaxation."""
        return _EDGE * self.quotient.work


class SevenNetPotential:
    """SevenNet-l3i5 on one site of each orbit."""

    batch_sites = 32

    @single_precision()
    def __init__(self, device: str = "cpu") -> None:
        """Load the weights that come inside the sevenn package.

        Raises:
            ImportError: without it; the message names the extra.
        """
        required("sevenn", "judge")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of compilers and accelerators that are not there
            from sevenn.util import load_checkpoint  # type: ignore

            model: Any = load_checkpoint(_MODEL).build_model().eval().requires_grad_(False).to(device)
        self.cutoff = float(model.cutoff)
        self.device = device
        self._modules: dict[str, Any] = dict(model.named_children())
        self._types: Tensor = model.z_to_onehot_tensor.to(device)
        self._convolutions = [_Convolution(self._modules[f"{k}_convolution"], device) for k in range(_LAYERS)]

    def graph(
        self, cell: np.ndarray, cart: np.ndarray, numbers: np.ndarray, operations: Operations
    ) -> SevenNetGraph:
        """See `Potential`."""
        if unknown := sorted({int(z) for z in numbers if self._types[z] < 0}):
            raise ValueError(f"{NAME} does not know atomic numbers {unknown}")
        proper = operations.proper()
        quotient = quotient_graph(cell, cart, numbers, proper, self.cutoff, 0.0)
        if len(proper) == 1:
            return SevenNetGraph(quotient)
        angles = matrix_to_angles(torch.from_numpy(proper.cartesian(cell).transpose(0, 2, 1).copy()))
        fixing = torch.from_numpy(quotient.fixing).double()
        turn, average = [], []
        for degree in _DEGREES:
            matrices = wigner_D(degree, *angles)
            turn.append(matrices[quotient.head_operation].to(self.device, torch.float32))
            mean = torch.einsum("os,oij->sij", fixing / fixing.sum(0), matrices)
            average.append(mean.to(self.device, torch.float32))
        return SevenNetGraph(quotient, turn, average)

    def as_it_stands(self, structure: Structure) -> tuple[SevenNetGraph, np.ndarray, np.ndarray]:
        """See `Potential`; without its deviations from symmetry, up to 0.001 Å."""
        numbers = np.array(structure.atomic_numbers)
        cell, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
        exact = symmetric_crystal(cell, frac, numbers, _AS_IT_STANDS)
        cart = exact.frac @ exact.cell
        return self.graph(exact.cell, cart, exact.numbers, exact.operations), cart, exact.cell

    @single_precision()
    def __call__(
        self,
        graphs: Sequence[SevenNetGraph],
        positions: Sequence[np.ndarray],
        cells: Sequence[np.ndarray],
        derivatives: bool = True,
    ) -> Forces:
        """See `Potential`."""
        energies, gradients, virials = [], [], []
        for graph, cart, cell in zip(graphs, positions, cells, strict=True):
            q = graph.quotient
            vectors = (cart[q.head] + q.shift @ cell - cart[q.tail])[: len(q.center)]
            near = np.linalg.norm(vectors, axis=1) < self.cutoff
            arrows = torch.from_numpy(vectors[near]).to(self.device, torch.float32)
            arrows.requires_grad_(derivatives)
            with torch.set_grad_enabled(derivatives):
                site = self._site_energies(graph, torch.from_numpy(near).to(self.device), arrows)
                total = site @ torch.from_numpy(q.orbit_size).to(site)
            energies.append(float(total.detach()))
            slope = np.zeros_like(vectors)
            if derivatives:
                slope[near] = torch.autograd.grad(total, arrows)[0].double().cpu().numpy()
            tail, head = q.tail[: len(slope)], q.head[: len(slope)]
            gradients.append(
                np.stack(
                    [np.bincount(head, s, len(cart)) - np.bincount(tail, s, len(cart)) for s in slope.T],
                    axis=1,
                )
            )
            strain = vectors.T @ slope
            virials.append((strain + strain.T) / 2)
        return Forces(np.array(energies), np.concatenate(gradients), np.array(virials))

    def _site_energies(self, graph: SevenNetGraph, near: Tensor, arrows: Tensor) -> Tensor:
        """Energy of one atom of each orbit, eV, [sites]."""
        q, modules = graph.quotient, self._modules

        def edges(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(self.device)[near]

        center, neighbor, count = edges(q.center), edges(q.neighbor), edges(q.edge_count).to(arrows)
        turn = None if graph.turn is None else [matrices[near] for matrices in graph.turn]
        embedding = modules["edge_embedding"]
        lengths = torch.linalg.vector_norm(arrows, dim=1)
        radial = embedding.basis_function(lengths) * embedding.cutoff_function(lengths)[:, None]
        sphere = embedding.spherical(arrows)
        kinds = self._types[torch.from_numpy(q.numbers).to(self.device).long()]
        kind = one_hot(kinds, int(self._types.max()) + 1).to(arrows)
        x = modules["onehot_to_feature_x"].linear(kind)
        for k, convolution in enumerate(self._convolutions):
            own = modules[f"{k}_self_connection_intro"].linear(x)
            sent = convolution.sources(modules[f"{k}_self_interaction_1"].linear(x), neighbor, turn)
            summed = convolution(sent, radial, sphere, center, count, len(x))
            x = modules[f"{k}_self_interaction_2"].linear(convolution.joined(summed, graph.average)) + own
            x = modules[f"{k}_equivariant_gate"].gate(x)
        x = modules["reduce_hidden_to_energy"].linear(modules["reduce_input_to_hidden"].linear(x))[:, 0]
        scale = modules["rescale_atomic_energy"]
        return x * scale.scale[kinds] + scale.shift[kinds]


@dataclass(frozen=True)
class _Paths:
    """The paths of a convolution that begin at one kind of feature.

    Attributes:
        columns: of these features among all.
        degree: their angular momentum.
        couplings: Clebsch-Gordan coefficients times path weights. [harmonics, 2l+1, components]
        weights: columns of these paths among the radial weights, by channel and then path.
        spread: 1 where a component belongs to a path. [paths, components]
        ends: number and width of the outputs, in the order of the components.
    """

    columns: slice
    degree: int
    couplings: Tensor
    weights: slice
    spread: Tensor
    ends: list[tuple[int, int]]


class _Convolution:
    """Σ over neighbours of features ⊗ spherical harmonics, weighted by a network of the distance."""

    def __init__(self, module: Any, device: str) -> None:
        kwargs = module.convolution_kwargs
        self._weights: nn.Module = module.weight_nn
        self._denominator = float(module.denominator)
        self._out = [m.ir.l for m in kwargs["irreps_out"]]
        inputs = [(m.mul, 2 * m.ir.l + 1) for m in kwargs["irreps_in1"]]
        starts = np.cumsum([0] + [channels * width for channels, width in inputs])
        own: list[list[tuple[int, int, Tensor]]] = [[] for _ in inputs]
        first = 0
        for path in module.convolution.instructions:
            channels, width = inputs[path.i_in1]
            edge, end = kwargs["irreps_in2"][path.i_in2].ir.l, self._out[path.i_out]
            coupling = torch.zeros(len(_DEGREES) ** 2, width, 2 * end + 1)
            three = wigner_3j(width // 2, edge, end).permute(1, 0, 2)
            coupling[edge**2 : (edge + 1) ** 2] = path.path_weight * three
            own[path.i_in1].append((path.i_out, first, coupling))
            first += channels
        columns = [
            (torch.tensor([first for _, first, _ in paths]) + torch.arange(channels)[:, None]).flatten()
            for (channels, _), paths in zip(inputs, own, strict=True)
        ]
        *_, last = module.weight_nn.children()
        last.weight = nn.Parameter(last.weight[:, torch.cat(columns).to(device)], requires_grad=False)
        ends = np.cumsum([0] + [len(c) for c in columns])
        self._paths = [
            _Paths(
                columns=slice(int(starts[k]), int(starts[k + 1])),
                degree=inputs[k][1] // 2,
                couplings=torch.cat([coupling for _, _, coupling in paths], dim=2).to(device),
                weights=slice(int(ends[k]), int(ends[k + 1])),
                spread=torch.block_diag(*(torch.ones(1, c.shape[2]) for _, _, c in paths)).to(device),
                ends=[(end, coupling.shape[2]) for end, _, coupling in paths],
            )
            for k, paths in enumerate(own)
        ]

    def sources(self, x: Tensor, neighbor: Tensor, turn: list[Tensor] | None) -> list[Tensor]:
        """Features of the atom at the end of each edge, [edges, channels, 2l+1] for each kind."""
        found = []
        for paths in self._paths:
            features = x[:, paths.columns].reshape(len(x), -1, 2 * paths.degree + 1)[neighbor]
            found.append(features if turn is None or paths.degree == 0 else features @ turn[paths.degree])
        return found

    def __call__(
        self, sources: list[Tensor], radial: Tensor, sphere: Tensor, center: Tensor, count: Tensor, sites: int
    ) -> list[Tensor]:
        """Outputs of each site in the order of the network's, [sites, channels, 2l+1] each."""
        weights = self._weights(radial) * (count / self._denominator)[:, None]
        outputs: dict[int, Tensor] = {}
        for features, paths in zip(sources, self._paths, strict=True):
            messages = features @ torch.einsum("es,sic->eic", sphere, paths.couplings)
            own = weights[:, paths.weights].reshape(len(weights), -1, len(paths.ends))
            messages = messages * (own @ paths.spread)
            summed = messages.new_zeros(sites, *messages.shape[1:]).index_add(0, center, messages)
            widths = [width for _, width in paths.ends]
            outputs |= {
                end: part for (end, _), part in zip(paths.ends, summed.split(widths, dim=2), strict=True)
            }
        return [outputs[k] for k in range(len(self._out))]

    def joined(self, outputs: list[Tensor], average: list[Tensor] | None) -> Tensor:
        """One row a site, averaged over the operations that fix it."""
        if average is not None:
            outputs = [x @ average[degree] for x, degree in zip(outputs, self._out, strict=True)]
        return torch.cat([x.reshape(len(x), -1) for x in outputs], dim=1)


SEVENNET = BatchRelaxer(NAME, "sevenn", sevennet, partial(ElementReferences.load, SEVENNET_REFERENCES))
