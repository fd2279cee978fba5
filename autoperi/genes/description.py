"""A gene with its species in numbers: composition, charges, symmetry and sizes of whole crystals."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from autoperi.crystals.crystal import MAX_Z
from autoperi.genes.batch import GeneBatch
from autoperi.genes.features import CHARGES, GeneTables, charge_states

_RATIOS = 8
_TOLERANCES = (0.03, 0.1, 0.3)
"""Charges per atom that are nearly balanced."""
_RARE = 1e-4


class GeneDescription(GeneTables):
    """What networks that judge whole crystals read of them; no geometry."""

    states: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("states", torch.from_numpy(charge_states()))
        self.n_described = (
            4 * self.element_features.shape[1]
            + 2 * self.position_features.shape[1]
            + 3 * self.counts.shape[1]
            + _RATIOS
            + 2
            + len(self.states) * (1 + len(_TOLERANCES))
        )

    def described(self, batch: GeneBatch) -> Float[Tensor, "crystals inputs"]:
        """Composition, charges, symmetry and sizes, as numbers that depend on no order and no origin."""
        is_site = batch.wyckoff >= 0
        wyckoff = batch.wyckoff.clamp(min=0)
        atoms = self.multiplicity[wyckoff] * is_site
        total, sites = atoms.sum(dim=1), is_site.sum(dim=1)
        share = (atoms / total[:, None])[..., None]
        amounts = (one_hot(batch.species, MAX_Z + 1) * atoms[..., None]).sum(dim=1)
        fractions = (amounts / total[:, None]).sort(dim=1, descending=True).values[:, :_RATIOS]
        elements = self.element_features[batch.species]
        mean = (share * elements).sum(dim=1)
        spread = (share * (elements - mean[:, None]).square()).sum(dim=1).sqrt()
        absent = ~is_site[..., None]
        extremes = (
            elements.masked_fill(absent, torch.inf).amin(dim=1),
            elements.masked_fill(absent, -torch.inf).amax(dim=1),
        )
        general = self.position_features[self.group_start[batch.space_group + 1] - 1]
        places = (self.position_features[wyckoff] * is_site[..., None]).sum(dim=1) / sites[:, None]
        free = (self.dim[wyckoff] * is_site).sum(dim=1)
        sizes = [self.count(n) for n in (total, sites, (amounts > 0).sum(dim=1))]
        numbers = [fractions, fractions.square().sum(dim=1, keepdim=True), free[:, None].log1p(), *sizes]
        return torch.cat([mean, spread, *extremes, general, places, *numbers, self._balance(amounts)], dim=1)

    def _balance(self, amounts: Int[Tensor, "crystals 101"]) -> Float[Tensor, "crystals balances"]:
        """Log of the share of all assignments of one known charge to each element that balance."""
        atoms = amounts.sum(dim=1, keepdim=True)
        shares = []
        for states in self.states:
            chance = _total_charge(amounts, states)
            charge = torch.arange(chance.shape[1], device=chance.device) + CHARGES.start * atoms
            shares.append((chance * (charge == 0)).sum(dim=1))
            for tolerance in _TOLERANCES:
                near = torch.exp(-0.5 * (charge / (tolerance * atoms)).square())
                shares.append((chance * near).sum(dim=1))
        return (torch.stack(shares, dim=1).clamp(min=0) + _RARE).log()


def _total_charge(
    amounts: Int[Tensor, "crystals 101"], states: Float[Tensor, "101 charges"]
) -> Float[Tensor, "crystals total"]:
    """Distribution of a crystal's charge when each element takes one of its charges at random.

    A sum of independent integers: the product of their characteristic functions, so nothing is enumerated.
    Index 0 stands for all elements at the lowest charge.
    """
    n, element = amounts.topk(int((amounts > 0).sum(dim=1).max()), dim=1)
    size = 1 << int(amounts.sum(dim=1).max() * (len(CHARGES) - 1)).bit_length()
    turns = (n[..., None] * torch.arange(size, device=n.device)) % size / size
    step = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
    function = torch.zeros_like(step)
    for chance in states[element].flip(-1).unbind(dim=-1):
        function = function * step + chance[..., None]
    return torch.fft.fft(function.prod(dim=1)).real / size
