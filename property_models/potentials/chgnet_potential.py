"""CHGNet as a function of positions, cell and soft species (Deng et al., arXiv:2302.14231).

The network and its weights are those of the ``chgnet`` package, version 0.3.0; the computation is ours:
batched, on the symmetry-distinct sites, with a vector of element weights in the place of an atomic number.
The first layer of every gated MLP acts on concatenated features, so it is taken once per atom, bond and
angle, before they are gathered on edges.
"""

import contextlib
import io
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from autoperi.crystals.crystal import CrystalBatch
from autoperi.networks.layers import sum_by
from property_models.potentials.bond_graph import BondGraph, bond_graph
from property_models.potentials.potential import Bonds, Potential

VERSION = "0.3.0"


class CHGNetPotential(Potential):
    """Energy, forces and stress of CHGNet; weights are frozen and float32 by default."""

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

    def bonds(self, batch: CrystalBatch) -> BondGraph:
        """Edges within 6 Å and the angles between short ones."""
        return bond_graph(batch)

    def site_energies(self, weights: Tensor, bonds: Bonds, vector: Tensor) -> Float[Tensor, "sites"]:
        """CHGNet's, with its element's reference."""
        assert isinstance(bonds, BondGraph)
        return self._site_energy(weights, bonds, vector) + weights @ self.model.composition_model.fc.weight[0]

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
