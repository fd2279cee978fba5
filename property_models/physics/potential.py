"""CHGNet as a function of positions, cell and soft species (Deng et al., arXiv:2302.14231).

The network and its weights are those of the ``chgnet`` package, version 0.3.0; the computation is ours:
batched, on the symmetry-distinct sites, with a vector of element weights in the place of an atomic number.
The first layer of every gated MLP acts on concatenated features, so it is taken once per atom, bond and
angle, before they are gathered on edges.
"""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, one_hot, silu

from autoperi.crystal import CrystalBatch
from autoperi.layers import mean_by, sum_by
from autoperi.wyckoff import wyckoff_table
from property_models.physics.bond_graph import BondGraph, bond_graph

ELEMENTS = 94
"""CHGNet knows hydrogen to plutonium; column z - 1 of soft species belongs to atomic number z."""
VERSION = "0.3.0"
GPA = 160.21766208
"""GPa in one eV/Å³."""


@dataclass(frozen=True)
class Mechanics:
    """What a potential says of a batch.

    Attributes:
        energy: eV/atom.
        forces: on the sites, eV/Å, in the frame of ``batch.lattice()``; the other atoms of an orbit have
            them turned (``atom_forces``). They lie in the free directions of their sites.
        stress: (1/V) dE/dε for cell <- cell (1 + ε), eV/Å³ (times ``GPA`` for GPa), positive under tension;
            symmetric.
    """

    energy: Float[Tensor, "crystals"]
    forces: Float[Tensor, "sites 3"]
    stress: Float[Tensor, "crystals 3 3"]


class CHGNetPotential(nn.Module):
    """Energy, forces and stress of CHGNet, differentiable in (s, ℓ) and in soft species.

    Its precision is float32; ``.double()`` serves finite differences. Weights are frozen.
    """

    def __init__(self) -> None:
        """Load the weights that come inside the chgnet package; raises TypeError for another architecture."""
        super().__init__()
        from chgnet.model.model import CHGNet

        with contextlib.redirect_stdout(io.StringIO()):
            model: Any = CHGNet.load(model_name=VERSION, use_device="cpu", verbose=False)
        if not model.mlp_first or any(layer.atom_norm is not None for layer in model.atom_conv_layers):
            raise TypeError(f"expected the architecture of CHGNet {VERSION}: this chgnet package has another")
        self.model = model.eval().requires_grad_(False)
        self.atom_layers = nn.ModuleList(_SplitGate(layer.twoBody_atom) for layer in model.atom_conv_layers)
        self.bond_layers = nn.ModuleList(_SplitGate(layer.twoBody_bond) for layer in model.bond_conv_layers)
        self.angle_layers = nn.ModuleList(_SplitGate(layer.twoBody_bond) for layer in model.angle_layers)

    def energy(
        self, batch: CrystalBatch, species: Float[Tensor, "sites elements"] | None = None
    ) -> Float[Tensor, "crystals"]:
        """Energy in eV/atom, differentiable in the batch's geometry and in ``species``.

        Args:
            batch: crystals; geometry is taken to the precision of the weights.
            species: weights of the elements 1-94 on each site; by default the batch's own species.

        Raises:
            ValueError: a species that is unknown or beyond plutonium, or weights of another shape.
        """
        weights = self._weights(batch, species)
        graph = bond_graph(batch)
        return self._energy(batch, weights, graph, graph.vector)

    def forward(
        self, batch: CrystalBatch, species: Float[Tensor, "sites elements"] | None = None
    ) -> Mechanics:
        """Energy, forces and stress by one backward pass; arguments and errors as for ``energy``.

        Where gradients are enabled, all three can be differentiated once more.
        """
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            weights = self._weights(batch, species)
            graph = bond_graph(batch)
            vector = graph.vector if graph.vector.requires_grad else graph.vector.detach().requires_grad_()
            energy = self._energy(batch, weights, graph, vector)
            total = (energy * batch.n_atoms()).sum()
            (slope,) = torch.autograd.grad(total, vector, create_graph=again)
            answer = Mechanics(energy, _forces(batch, graph, slope), _stress(batch, graph, vector, slope))
        if again:
            return answer
        return Mechanics(answer.energy.detach(), answer.forces.detach(), answer.stress.detach())

    def _weights(self, batch: CrystalBatch, species: Tensor | None) -> Float[Tensor, "sites elements"]:
        like = self.model.mlp.layers[0].weight
        if species is None:
            species = element_weights(batch)
        if species.shape != (batch.n_sites, ELEMENTS):
            raise ValueError(
                f"expected weights of shape {(batch.n_sites, ELEMENTS)}: got {tuple(species.shape)}"
            )
        return species.to(like)

    def _energy(self, batch: CrystalBatch, weights: Tensor, graph: BondGraph, vector: Tensor) -> Tensor:
        site_energy = self._site_energy(weights, graph, vector.to(weights))
        site_energy = site_energy + weights @ self.model.composition_model.fc.weight[0]
        total = sum_by(site_energy * batch.multiplicity(), batch.crystal, batch.n_crystals)
        return total / batch.n_atoms()

    def _site_energy(self, weights: Tensor, graph: BondGraph, vector: Tensor) -> Float[Tensor, "sites"]:
        """Energy of one atom of each site, eV, without its element's reference."""
        model, first, second = self.model, graph.first, graph.second
        distance = vector.norm(dim=-1)
        radial = model.bond_basis_expansion.rbf_expansion_ag(distance)
        short_radial = model.bond_basis_expansion.rbf_expansion_bg(distance[graph.short])
        unit = (vector / distance[:, None])[graph.short]
        cosine = (unit[first] * unit[second]).sum(-1)
        atoms = weights @ model.atom_embedding.embedding.weight
        bonds = model.bond_embedding(radial)
        # 1 - 1e-6 as in CHGNet: the derivative of the angle stays finite in straight lines
        angles = model.angle_embedding(
            model.angle_basis_expansion.fourier_expansion(torch.acos(cosine * (1 - 1e-6)))
        )
        edge_weights = model.bond_weights_ag(radial)
        short_weights = model.bond_weights_bg(short_radial)
        angle_weights = short_weights[first] * short_weights[second]
        apex = graph.site[graph.short][first]

        for k, layer in enumerate(model.bond_conv_layers):
            atoms = self._atom_step(k, atoms, bonds, edge_weights, graph)
            short = bonds[graph.short]
            message = self.bond_layers[k]((short, first), (short, second), (angles, None), (atoms, apex))
            gathered = sum_by(message * angle_weights, first, len(short))
            both = gathered + torch.cat([gathered, gathered.new_zeros(1, gathered.shape[1])])[graph.reverse]
            # longer bonds receive nothing, and mlp_out has no bias: they stay as they are
            bonds = bonds.index_add(0, graph.short, layer.mlp_out(both))
            if k + 1 < len(model.bond_conv_layers):  # nothing reads the angles after the last one
                short = bonds[graph.short]
                update = self.angle_layers[k]((short, first), (short, second), (angles, None), (atoms, apex))
                angles = angles + update
        atoms = self._atom_step(-1, atoms, bonds, edge_weights, graph)
        return model.mlp(model.readout_norm(atoms)).squeeze(-1)

    def _atom_step(self, k: int, atoms: Tensor, bonds: Tensor, weights: Tensor, graph: BondGraph) -> Tensor:
        message = self.atom_layers[k]((atoms, graph.site), (bonds, None), (atoms, graph.sender)) * weights
        return atoms + self.model.atom_conv_layers[k].mlp_out(sum_by(message, graph.site, len(atoms)))


def element_weights(batch: CrystalBatch) -> Float[Tensor, "sites elements"]:
    """The batch's own species as weights: 1 for the element of the site, 0 for the others.

    Raises:
        ValueError: a species that is unknown (0) or beyond plutonium.
    """
    if bool(((batch.species < 1) | (batch.species > ELEMENTS)).any()):
        bad = sorted({z for z in batch.species.tolist() if not 1 <= z <= ELEMENTS})
        raise ValueError(f"expected atomic numbers from 1 to {ELEMENTS}: got {bad}")
    return one_hot(batch.species - 1, ELEMENTS).to(batch.free.dtype)


def atom_forces(batch: CrystalBatch, forces: Float[Tensor, "sites 3"]) -> Float[Tensor, "atoms 3"]:
    """Forces on all atoms from those on the sites, in the order of ``batch.atoms()``."""
    atoms, columns = batch.atoms(), batch.lattice().transpose(-1, -2)
    turn = columns[atoms.crystal] @ atoms.rotation @ torch.linalg.inv(columns)[atoms.crystal]
    return torch.einsum("aij,aj->ai", turn.to(forces), forces[atoms.site])


def _forces(batch: CrystalBatch, graph: BondGraph, slope: Tensor) -> Float[Tensor, "sites 3"]:
    """-dE/dx of one atom of each site, from dE/dvector of the sites' edges.

    An edge moves with both of its ends; the end at an atom is carried back onto the atom's site. The mean
    over a site's stabiliser is the projection onto its free directions.
    """
    turn = graph.orbits.rotation[graph.orbits.atom]
    at_sender = sum_by(torch.einsum("eji,ej->ei", turn, slope), graph.sender, batch.n_sites)
    gradient = (at_sender - sum_by(slope, graph.site, batch.n_sites)) / batch.multiplicity()[:, None]
    return -torch.einsum("sij,sj->si", batch.cartesian_basis(), batch.tangent(gradient))


def _stress(batch: CrystalBatch, graph: BondGraph, vector: Tensor, slope: Tensor) -> Tensor:
    """(1/V) Σ vector ⊗ dE/dvector over the sites' edges, averaged over the point group, [crystals, 3, 3].

    Equal edges of a site do not share their slope equally, so only the symmetric part has a meaning.
    """
    table, lattice = wyckoff_table(str(batch.device)), graph.orbits.lattice
    outer = sum_by(vector[:, :, None] * slope[:, None, :], batch.crystal[graph.site], batch.n_crystals)
    # the general position, the last of its group, has one atom for every operation
    general = table.group_start[batch.space_group + 1] - 1
    count = table.multiplicity[general]
    crystal = torch.repeat_interleave(torch.arange(batch.n_crystals, device=batch.device), count)
    within = torch.arange(len(crystal), device=batch.device) - (count.cumsum(0) - count)[crystal]
    operation = table.orbit_rotation[table.orbit_start[general][crystal] + within].to(lattice)
    columns = lattice.transpose(-1, -2)
    turn = columns[crystal] @ operation @ torch.linalg.inv(columns)[crystal]
    virial = mean_by(turn @ outer[crystal] @ turn.transpose(-1, -2), crystal, batch.n_crystals)
    volume = torch.linalg.det(lattice).abs()[:, None, None]
    return (virial + virial.transpose(-1, -2)) / (2 * volume)


class _SplitGate(nn.Module):
    """A gated MLP of CHGNet (its eq. 3) whose first layer is applied to each input before it is gathered."""

    weight: Tensor
    bias: Tensor

    def __init__(self, gated: Any) -> None:
        super().__init__()
        core, gate = (
            [m for m in mlp.layers if isinstance(m, nn.Linear)] for mlp in (gated.mlp_core, gated.mlp_gate)
        )
        self.register_buffer("weight", torch.cat([core[0].weight, gate[0].weight]).detach())
        self.register_buffer("bias", torch.cat([core[0].bias, gate[0].bias]).detach())
        self.second = nn.ModuleList([m[1] for m in (core, gate) if len(m) == 2])
        self.norms = nn.ModuleList([gated.bn1, gated.bn2])

    def forward(self, *inputs: tuple[Tensor, Tensor | None]) -> Tensor:
        """Inputs are (features, rows), in the order in which CHGNet concatenates ``features[rows]``."""
        widths = [features.shape[1] for features, _ in inputs]
        hidden = self.bias
        for block, (features, rows) in zip(self.weight.split(widths, dim=1), inputs, strict=True):
            part = linear(features, block)
            hidden = hidden + (part if rows is None else part[rows])
        if len(self.second):
            hidden = silu(hidden)
        core, gate = hidden.chunk(2, dim=1)
        if len(self.second):
            core, gate = self.second[0](core), self.second[1](gate)
        return silu(self.norms[0](core)) * torch.sigmoid(self.norms[1](gate))
