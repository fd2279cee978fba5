"""Convolutions of crystal graphs: one file and one entry each; `README.md` has sources and figures.

A convolution takes sites [sites, width], bonds and the graph, and returns sites. A new one is a file with a
`Convolution` and a line in ``CONVOLUTIONS``.
"""

import difflib
from importlib import import_module

from property_models.convolutions.interface import Convolution, Shape
from property_models.convolutions.stack import LayerStack

__all__ = ["CONVOLUTIONS", "Convolution", "LayerStack", "Shape", "convolution", "convolution_class"]

CONVOLUTIONS = {
    "cgcnn": "cgcnn.CGCNN",
    "nnconv": "nnconv.ContinuousKernel",
    "gcn": "gcn.GCN",
    "sage": "sage.GraphSAGE",
    "gin": "gin.GIN",
    "gat": "attention.GAT",
    "gatv2": "attention.GATv2",
    "mpnn": "mpnn.MPNN",
    "schnet": "schnet.SchNet",
    "dimenet": "dimenet.DimeNetPlusPlus",
    "megnet": "megnet.MEGNet",
    "painn": "painn.PaiNN",
    "nequip": "nequip.NequIP",
    "orbit": "density.OrbitDensity",
}
"""File and class of each, by its name in a network's config; a file is imported when it is asked for."""


def convolution_class(name: str) -> type[Convolution]:
    """The class of a name; raises ValueError for an unknown one, naming the nearest."""
    if name not in CONVOLUTIONS:
        near = difflib.get_close_matches(name, CONVOLUTIONS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected a convolution among {', '.join(CONVOLUTIONS)}: got {name!r}{hint}")
    file, kind = CONVOLUTIONS[name].split(".")
    return getattr(import_module(f"{__name__}.{file}"), kind)


def convolution(name: str, shape: Shape) -> Convolution:
    """A whole convolution; of one that is a single layer, a stack of them."""
    kind = convolution_class(name)
    return LayerStack(kind, shape) if kind.is_layer else kind(shape)
