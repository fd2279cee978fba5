"""Physics as a term of the generator's training losses."""

from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import CrystalBatch
from autoperi.data.dataset import CrystalDataset
from autoperi.networks.physics import Physics, PhysicsWeights
from property_models.physics.guidance import soft_species
from property_models.physics.losses import PhysicsLoss
from property_models.potentials import distilled
from property_models.potentials.hull import SoftHull


def training_physics(weights: PhysicsWeights, train: CrystalDataset) -> Physics:
    """What ``run_stage`` asks for when a recipe weighs physics.

    Energies, forces and stresses are those of the shipped potential, at a twelfth of CHGNet's cost; CHGNet is
    left to judge.

    Args:
        weights: of the losses.
        train: its formation energies make the hull, so that nothing held out is seen.
    """
    needs_potential = any((weights.hull, weights.force, weights.stress, weights.pressure))
    loss = PhysicsLoss(
        weights,
        distilled.load() if needs_potential else None,
        SoftHull.from_dataset(train) if weights.hull else None,
    )

    def physics(batch: CrystalBatch, logits: Float[Tensor, "sites 101"]) -> Float[Tensor, "crystals"]:
        return loss(batch, soft_species(logits, batch.species))

    return physics
