"""NequIP: e3nn tensor products with l <= 2 (Batzner et al., arXiv:2101.03164)."""

from jaxtyping import Float
from torch import Tensor, nn

from autoperi.networks.layers import Interaction, Irreps, edge_harmonics, rotate_features
from property_models.convolutions.interface import Convolution, Shape
from property_models.graph.site_graph import SiteGraph


class NequIP(Convolution):
    """Gated interactions of scalars, vectors and l = 2 tensors; the answer is the scalars.

    Features of an atom are its site's, turned by its rotation in every irreducible representation.
    """

    needs_smooth_bonds = True
    is_smooth = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, edge_width, layers = shape.width, shape.edge_width, shape.layers
        first = Irreps(f"{width}x0e")
        middle = Irreps(f"{width}x0e + {width // 4}x1o + {width // 8}x2e")
        self.irreps = []
        interactions = []
        for layer in range(layers):
            self.irreps.append(first)
            given = middle if layer < layers - 1 else Irreps(f"{width}x0e")
            interactions.append(Interaction(first, given, edge_width))  # pyright: ignore[reportArgumentType]
            first = interactions[-1].irreps_out
        self.width = width
        self.interactions = nn.ModuleList(interactions)

    def forward(
        self, sites: Float[Tensor, "sites width"], edges: Float[Tensor, "edges edge_width"], graph: SiteGraph
    ) -> Float[Tensor, "sites width"]:
        """All interactions."""
        harmonics = edge_harmonics(graph.vector)
        features = sites
        for interaction, irreps in zip(self.interactions, self.irreps, strict=True):
            atoms = rotate_features(features[graph.atom_site], irreps, graph.rotation)
            features = interaction(features, atoms, graph.site, graph.atom, harmonics, edges)
        return sites + features[:, : self.width]
