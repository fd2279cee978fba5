"""Embeddings of a crystal as a whole: lattice, space group and electrons."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoperi.crystals.wyckoff import wyckoff_table
from property_models.graph.site_graph import SiteGraph


class CrystalFeatures(nn.Module):
    """What a crystal is as a whole, and what follows for its sites.

    ``lattice``: shape, and volume per atom; ``symmetry``: space group and crystal family; ``electrons``: what
    `Electrons` counts, of the crystal and of each site.
    """

    def __init__(self, which: tuple[str, ...]) -> None:
        super().__init__()
        self.which = which
        self.group = nn.Embedding(231, 16) if "symmetry" in which else None
        counted = "electrons" in which
        self.outputs = 6 * ("lattice" in which) + (16 + 6) * ("symmetry" in which) + 6 * counted
        self.site_outputs = self.outputs + 4 * counted

    def forward(self, graph: SiteGraph) -> Float[Tensor, "crystals outputs"]:
        """Concatenated features; empty where nothing is asked."""
        table = wyckoff_table(str(graph.vector.device))
        parts = [graph.lattice_coords.new_zeros(len(graph), 0)]
        if "lattice" in self.which:
            atoms = parts[0].new_zeros(len(graph)).index_add(0, graph.crystal, graph.multiplicity)
            centring = torch.linalg.det(table.primitive[graph.space_group]).abs().to(atoms)
            shape, volume = graph.lattice_coords[:, :5], graph.lattice_coords[:, 5]
            parts += [shape, (volume - (atoms / centring).log() / 3)[:, None]]
        if self.group is not None:
            family = nn.functional.one_hot(table.family[graph.space_group], 6)
            parts += [self.group(graph.space_group), family.to(parts[0])]
        if "electrons" in self.which:
            parts.append(graph.electrons.crystals.to(parts[0]))
        return torch.cat(parts, -1)

    def of_sites(
        self, crystals: Float[Tensor, "crystals outputs"], graph: SiteGraph
    ) -> Float[Tensor, "sites site_outputs"]:
        """The features of each site's crystal and its own."""
        own = [graph.electrons.sites.to(crystals)] if "electrons" in self.which else []
        return torch.cat([crystals[graph.crystal], *own], -1)
