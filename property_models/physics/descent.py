"""A few steps down a potential, the symmetry kept: tells which of several geometries is the better one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.precision import single_precision
from autoperi.networks.layers import sum_by
from property_models.potentials import distilled
from property_models.potentials.potential import ELEMENTS

_FIRST = 0.05
"""Length of the first step, Å² atom/eV: the inverse of a usual curvature."""
_FARTHEST = 0.1
"""Root mean square move of a step at most, Å."""
_TOGETHER = 64


@runtime_checkable
class Energy(Protocol):
    """What can be gone down: a potential, or one with a price for something else."""

    def energy(self, batch: CrystalBatch) -> Tensor:
        """Of each crystal, eV/atom, differentiable in the geometry."""
        ...


@dataclass(frozen=True)
class Descent:
    """Steps of Barzilai and Borwein (IMA J. Numer. Anal. 8, 141, 1988) in free coordinates and cell.

    Lengths are taken in the metric of the mean square move of atoms, in which a strain moves neighbours by
    itself times their distance. Of the geometries on the way the lowest is kept: no crystal ends higher
    than it began.

    Attributes:
        potential: whose energy is lowered.
        steps: evaluations after the first.
    """

    potential: Energy
    steps: int = 10

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"expected no steps or more: got {self.steps}")

    @single_precision()
    def __call__(self, crystals: Sequence[Crystal]) -> list[tuple[Crystal, float]]:
        """Each crystal further down, and its energy, eV/atom; as it is and infinite beyond plutonium."""
        found: list[tuple[Crystal, float]] = [(crystal, float("inf")) for crystal in crystals]
        known = [i for i, c in enumerate(crystals) if ((c.species > 0) & (c.species <= ELEMENTS)).all()]
        known.sort(key=lambda i: crystals[i].n_sites * crystals[i].n_atoms)
        for first in range(0, len(known), _TOGETHER):
            some = known[first : first + _TOGETHER]
            own = [crystals[i] for i in some]
            free, lattice, energy = self._lowest(CrystalBatch.from_crystals(own))
            parts = np.split(free, np.cumsum([c.n_sites for c in own])[:-1])
            found_now = zip(own, parts, lattice, energy, strict=True)
            for i, (crystal, s, coords, e) in zip(some, found_now, strict=True):
                found[i] = replace(crystal, free=s % 1.0, lattice_coords=coords), float(e)
        return found

    def _lowest(self, batch: CrystalBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Free coordinates, lattice coordinates and energies of the lowest geometries on the way."""
        best_energy = torch.full((batch.n_crystals,), torch.inf)
        best = batch
        for here, energy in self._way(batch):
            better = energy < best_energy
            best_energy = torch.where(better, energy, best_energy)
            best = best.with_geometry(
                torch.where(better[best.crystal, None], here.free, best.free),
                torch.where(better[:, None], here.lattice_coords, best.lattice_coords),
            )
        return best.free.numpy(), best.lattice_coords.numpy(), best_energy.numpy()

    def _way(self, batch: CrystalBatch) -> Iterator[tuple[CrystalBatch, Float[Tensor, "crystals"]]]:
        """Geometries and their energies, from the given one on."""
        n, length = batch.n_crystals, torch.full((batch.n_crystals,), _FIRST).double()
        weight = (batch.multiplicity() / batch.n_atoms()[batch.crystal]).double()
        before: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        for step in range(self.steps + 1):
            energy, ds, dl = self._slope(batch)
            yield batch, energy
            if step == self.steps:
                return
            cart = batch.cartesian_basis()
            gram = cart.transpose(-1, -2) @ cart * weight[:, None, None]
            gram = gram + torch.diag_embed(1 - batch.free_mask())
            spacing = (torch.linalg.det(batch.lattice()).abs() / batch.n_atoms()).pow(2 / 3)[:, None]
            if before is not None:
                moved_s, moved_l, old_s, old_l = before
                square = sum_by(torch.einsum("si,sij,sj->s", moved_s, gram, moved_s), batch.crystal, n)
                square = square + (moved_l.square() * spacing).sum(-1)
                bend = sum_by((moved_s * (ds - old_s)).sum(-1), batch.crystal, n)
                bend = bend + (moved_l * (dl - old_l)).sum(-1)
                length = torch.where(bend > 0, square / bend, 2 * length).clamp(1e-4, 10.0)
            move_s = torch.linalg.solve(gram, ds) * batch.free_mask()
            move_l = dl / spacing
            far = sum_by(torch.einsum("si,sij,sj->s", move_s, gram, move_s), batch.crystal, n)
            far = (far + (move_l.square() * spacing).sum(-1)).sqrt()
            length = torch.minimum(length, _FARTHEST / far.clamp_min(1e-12))
            moved_s, moved_l = -length[batch.crystal, None] * move_s, -length[:, None] * move_l
            before = moved_s, moved_l, ds, dl
            batch = batch.with_geometry(batch.free + moved_s, batch.lattice_coords + moved_l)

    def _slope(self, batch: CrystalBatch) -> tuple[Float[Tensor, "crystals"], Tensor, Tensor]:
        """Energy per atom, infinite where there is none, and its slope in free and lattice coordinates."""
        free = batch.free.detach().clone().requires_grad_()
        lattice = batch.lattice_coords.detach().clone().requires_grad_()
        with torch.enable_grad():
            energy = self.potential.energy(batch.with_geometry(free, lattice))
            ds, dl = torch.autograd.grad(energy.sum(), (free, lattice), allow_unused=True)
        ds = torch.zeros_like(free) if ds is None else ds.nan_to_num()
        dl = torch.zeros_like(lattice) if dl is None else dl.nan_to_num() * batch.lattice_mask()
        return energy.detach().double().nan_to_num(torch.inf), ds * batch.free_mask(), dl


def shipped_descent(steps: int = Descent.steps) -> Descent:
    """Down the shipped potential; raises CheckpointError for damaged weights."""
    return Descent(distilled.load(), steps)


def energies(crystals: Sequence[Crystal]) -> list[float]:
    """Energies of the shipped potential, eV/atom; infinite beyond plutonium.

    Raises:
        CheckpointError: damaged weights.
    """
    return [energy for _, energy in shipped_descent(steps=0)(crystals)]
