"""Atomic fractions and reference energies of the elements as tensors, differentiable in soft species."""

from functools import cache

import torch
from ase.data import chemical_symbols
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import CrystalBatch
from autoperi.data.element_references import ElementReferences
from autoperi.networks.layers import sum_by
from property_models.potentials.potential import ELEMENTS


@cache
def element_references() -> Float[Tensor, "elements"]:
    """The shipped references (`ElementReferences`) of the elements 1-94, eV/atom, float64.

    Those that nothing could be fitted to (Ne, Po, At, Rn, Fr, Ra: MP-20 lacks them) stand at 0.
    """
    known = ElementReferences.load().energies
    return torch.tensor(
        [known.get(symbol, 0.0) for symbol in chemical_symbols[1 : ELEMENTS + 1]], dtype=torch.float64
    )


def composition(
    batch: CrystalBatch, species: Float[Tensor, "sites elements"]
) -> Float[Tensor, "crystals elements"]:
    """Atomic fractions of the elements, differentiable in soft species."""
    share = batch.multiplicity().to(species) / batch.n_atoms()[batch.crystal]
    return sum_by(share[:, None] * species, batch.crystal, batch.n_crystals)
