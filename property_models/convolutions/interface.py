"""What every convolution is: site features, bonds and graph in, site features out."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from property_models.graph.site_graph import SiteGraph


@dataclass(frozen=True)
class Shape:
    """What a convolution is built from.

    Attributes:
        width: channels of a site.
        edge_width: channels of a bond.
        layers: rounds of messages.
        cutoff: of the bonds, Å.
        dropout: probability in the hidden layer of site updates, where there is one.
        learn_edges: bonds are updated after every layer (`LayerStack`).
    """

    width: int
    edge_width: int
    layers: int
    cutoff: float
    dropout: float = 0.0
    learn_edges: bool = False


class Convolution(nn.Module):
    """Called as ``convolution(sites, bonds, graph)``; built from a `Shape` alone.

    Class attributes say what it needs of the network around it.

    Attributes:
        is_layer: one layer, of which `LayerStack` makes a convolution; else all of them, so that it may carry
            vectors, messages on bonds or a state of the crystal along.
        needs_smooth_bonds: linear in the bond functions, which must vanish at the cutoff (Bessel).
        is_smooth: does not jump where an atom crosses the cutoff, so it may serve as a potential.
    """

    is_layer: ClassVar[bool] = False
    needs_smooth_bonds: ClassVar[bool] = False
    is_smooth: ClassVar[bool] = False

    def bonds(self, edges: Float[Tensor, "edges edge_width"], graph: SiteGraph) -> Any:  # noqa: ARG002
        """What ``forward`` reads of the bonds: by default their features."""
        return edges
