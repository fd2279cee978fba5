"""A property led to a value along the free coordinates and the cell, against what it costs in energy."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import CrystalBatch
from property_models.graph.site_graph import site_graph
from property_models.model import PropertyModel
from property_models.potentials.potential import Potential

_STIFFNESS = 0.05
"""eV/atom: what a miss by one more tolerance costs as much as."""


@dataclass(frozen=True)
class Aim:
    """An energy that grows with the distance of a property from a value: what a `Descent` goes down.

    Quadratic within the tolerance and linear beyond (Huber 1964, doi:10.1214/aoms/1177703732), so that far
    crystals are not torn apart. Where the model is sure of a zero, as of metals' gaps, there is no slope.

    Attributes:
        model: of one property.
        potential: whose energy is the price.
        value: in the unit of the property.
        tolerance: in the same.

    Raises:
        ValueError: a negative value of what is never negative.
    """

    model: PropertyModel
    potential: Potential
    value: float
    tolerance: float

    def __post_init__(self) -> None:
        (target,) = self.model.targets
        network = self.model.ensemble.config.network
        if self.value < 0 and target in (*network.log, *network.gated):
            raise ValueError(f"expected a value of {target} from 0 up, which alone it has: got {self.value}")

    def energy(self, batch: CrystalBatch) -> Float[Tensor, "crystals"]:
        """eV/atom, differentiable in the geometry."""
        (target,) = self.model.targets
        ensemble, network = self.model.ensemble, self.model.ensemble.config.network
        like = next(ensemble.parameters())
        graph = site_graph(batch.to(like.device, like.dtype), network.cutoff, network.nearest)
        found = ensemble(graph).value[:, ensemble.targets.index(target)]
        found = 10**found if target in network.log else found
        miss = ((found - self.value) / self.tolerance).abs()
        far = torch.where(miss < 1, miss.square() / 2, miss - 0.5)
        return self.potential.energy(batch) + _STIFFNESS * far
