"""Differentiable physics losses of crystals, one number per crystal."""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.networks.layers import sum_by
from autoperi.networks.physics import PhysicsWeights
from property_models.physics.contacts import barrier_loss
from property_models.potentials.hull import SoftHull
from property_models.potentials.potential import EnergyForcesStress, Potential, element_weights
from property_models.potentials.references import composition, element_references

Loss = Callable[[CrystalBatch, Float[Tensor, "sites elements"]], Float[Tensor, "crystals"]]
"""Of crystals and soft species (weights of the elements 1-94); differentiable in (s, ℓ) and the weights."""

_SMOOTH = 1e-3
"""Length below which norms are rounded off, in their unit: crystals at rest have a gradient too."""


def hull_loss(
    energy: Float[Tensor, "crystals"],
    fractions: Float[Tensor, "crystals elements"],
    hull: SoftHull,
    margin: float = 0.0,
) -> Float[Tensor, "crystals"]:
    """Energy above the hull beyond a margin, eV/atom: max(0, E/N - x·μ_ref - E_hull(x) - margin).

    Args:
        energy: CHGNet's, eV/atom.
        fractions: atomic fractions of the elements 1-94.
        hull: of formation energies, eV/atom; constant in the geometry, its slope in the composition are the
            chemical potentials.
        margin: what a crystal may lie above the hull at no cost, eV/atom.
    """
    formation = energy - fractions.to(energy) @ element_references().to(energy)
    return (formation - hull(fractions.to(energy)) - margin).clamp_min(0)


def force_loss(batch: CrystalBatch, mechanics: EnergyForcesStress) -> Float[Tensor, "crystals"]:
    """Root mean square force on an atom, eV/Å; rounded off below 1e-3."""
    squared = mechanics.forces.square().sum(-1) * batch.multiplicity()
    return _rounded(sum_by(squared, batch.crystal, batch.n_crystals) / batch.n_atoms())


def stress_loss(mechanics: EnergyForcesStress) -> Float[Tensor, "crystals"]:
    """Frobenius norm of the stress, eV/Å³ (1 is 160.2 GPa); rounded off below 1e-3."""
    return _rounded(mechanics.stress.square().sum((1, 2)))


def pressure_loss(mechanics: EnergyForcesStress, target: float = 0.0) -> Float[Tensor, "crystals"]:
    """Distance of the pressure -tr(σ)/3 from a target, eV/Å³ (1 is 160.2 GPa); rounded off below 1e-3."""
    pressure = -mechanics.stress.diagonal(dim1=1, dim2=2).mean(-1)
    return _rounded((pressure - target).square())


class PhysicsLoss:
    """Weighted sum of the losses above, from one pass of a potential: a ``Loss``."""

    def __init__(
        self,
        weights: PhysicsWeights,
        potential: Potential | None = None,
        hull: SoftHull | None = None,
    ) -> None:
        """Take what the weights ask for.

        Args:
            weights: of the losses.
            potential: needed for every loss but the barrier; its energies are those of CHGNet.
            hull: needed for the energy above the hull.

        Raises:
            ValueError: something that a weight asks for is missing.
        """
        self.weights, self.potential, self.hull = weights, potential, hull
        self._needs_derivatives = any((weights.force, weights.stress, weights.pressure))
        if (weights.hull or self._needs_derivatives) and potential is None:
            raise ValueError(f"expected a potential for {weights}: got none")
        if weights.hull and hull is None:
            raise ValueError(f"expected a hull for {weights}: got none (SoftHull.from_dataset makes one)")

    def terms(
        self, batch: CrystalBatch, species: Float[Tensor, "sites elements"]
    ) -> dict[str, Float[Tensor, "crystals"]]:
        """The losses whose weight is not zero, unweighted, by the names of ``PhysicsWeights``."""
        found: dict[str, Tensor] = {}
        energy: Tensor | None = None
        if self.potential is not None:
            self.potential.to(batch.device)
        if self._needs_derivatives:
            assert self.potential is not None
            mechanics = self.potential(batch, species)
            energy = mechanics.energy
            found = {
                "force": force_loss(batch, mechanics),
                "stress": stress_loss(mechanics),
                "pressure": pressure_loss(mechanics),
            }
        if self.weights.hull:
            assert self.potential is not None
            assert self.hull is not None
            energy = self.potential.energy(batch, species) if energy is None else energy
            found["hull"] = hull_loss(energy, composition(batch, species), self.hull)
        if self.weights.barrier:
            found["barrier"] = barrier_loss(batch, species)
        return {name: value for name, value in found.items() if getattr(self.weights, name)}

    def __call__(
        self, batch: CrystalBatch, species: Float[Tensor, "sites elements"]
    ) -> Float[Tensor, "crystals"]:
        """Weighted sum of the terms; zero where all weights are."""
        total = torch.zeros_like(batch.lattice_coords[:, 0])
        for name, value in self.terms(batch, species).items():
            total = total + getattr(self.weights, name) * value.to(total)
        return total


@torch.no_grad()
def loss_table(crystals: Sequence[Crystal], potential: Potential, hull: SoftHull) -> pd.DataFrame:
    """What a potential says of finished crystals, a row each.

    Columns: ``e_hull`` (eV/atom, below 0 under the hull), ``floor`` (energy of the hull, eV/atom), ``force``
    (root mean square, eV/Å) and ``stress`` (norm, eV/Å³). The mean of ``e_hull`` where positive, else 0,
    is the energy loss.
    """
    batch = CrystalBatch.from_crystals(crystals).to(dtype=next(potential.parameters()).dtype)
    found, x = potential(batch), composition(batch, element_weights(batch)).double()
    floor = hull(x)
    columns = {
        "e_hull": found.energy - x @ element_references() - floor,
        "floor": floor,
        "force": force_loss(batch, found),
        "stress": stress_loss(found),
    }
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


def _rounded(square: Tensor) -> Tensor:
    """√(x² + ε²) - ε: |x|, with a gradient at 0 (Charbonnier et al. 1994, doi:10.1109/ICIP.1994.413553)."""
    return (square + _SMOOTH**2).sqrt() - _SMOOTH
