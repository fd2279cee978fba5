"""Descriptors of elements, Wyckoff positions and whole genes, and the tables that gene networks read."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot

from autoperi.crystals.crystal import MAX_Z
from autoperi.crystals.wyckoff import SYSTEMS, WyckoffTable, wyckoff_table
from autoperi.genes.batch import GeneBatch

_GENERIC = np.array([0.1372, 0.2931, 0.4178])
CHARGES = range(-4, 9)
"""Charges that an element may have."""
_OPERATION_TYPES = [(d, t) for d in (1, -1) for t in (-3, -2, -1, 0, 1, 2, 3)]
_RATIOS = 8
_TOLERANCES = (0.03, 0.1, 0.3)
"""Charges per atom that are nearly balanced."""
_RARE = 1e-4


def element_features() -> np.ndarray:
    """Periodic-table descriptors of Z = 0..100, [101, features]; row 0 (unknown) is zero.

    Group and period one-hot, block, electronegativity, radius, ionisation energy, electron affinity, and
    the common oxidation states one-hot, from pymatgen's table. Numbers are scaled to about one.
    """
    from pymatgen.core import Element

    rows = [np.zeros(18 + 7 + 4 + 5 + 2 * len(CHARGES))]
    for z in range(1, MAX_Z + 1):
        element = Element.from_Z(z)
        numbers = [
            _number(element.data.get("X"), 1.5),
            _number(element.data.get("Atomic radius"), 1.5),
            _number(element.ionization_energy, 8.0),
            _number(element.electron_affinity, 1.0),
            z / MAX_Z,
        ]
        common, seen = element.common_oxidation_states, element.icsd_oxidation_states
        rows.append(
            np.concatenate(
                [
                    np.arange(1, 19) == element.group,
                    np.arange(1, 8) == element.row,
                    [element.block == block for block in "spdf"],
                    numbers,
                    [state in common for state in CHARGES],
                    [state in seen for state in CHARGES],
                ]
            )
        )
    return np.stack(rows).astype(np.float32)


def charge_assignments(tables: int) -> np.ndarray:
    """One common oxidation state of each element, drawn for each table with a fixed seed, [101, tables]."""
    from pymatgen.core import Element

    rng = np.random.default_rng(0)
    out = np.zeros((MAX_Z + 1, tables), dtype=np.float32)
    for z in range(1, MAX_Z + 1):
        states = Element.from_Z(z).common_oxidation_states or (0,)
        out[z] = rng.choice(states, size=tables)
    return out


def charge_states() -> np.ndarray:
    """Chance of each charge of each element, [2, 101, charges]: its common ones, and all seen in the ICSD.

    All of an element's are equally likely; an element without any, and Z = 0, has charge 0.
    """
    from pymatgen.core import Element

    out = np.zeros((2, MAX_Z + 1, len(CHARGES)), dtype=np.float32)
    out[:, :, -CHARGES.start] = 1.0
    for z in range(1, MAX_Z + 1):
        element = Element.from_Z(z)
        for chance, states in zip(
            out[:, z], (element.common_oxidation_states, element.icsd_oxidation_states), strict=True
        ):
            known = [state in states for state in CHARGES]
            if any(known):
                chance[:] = np.array(known) / sum(known)
    return out


def _number(value: object, fallback: float) -> float:
    """The tabulated value over its typical size; 1 where the table has none."""
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return 1.0
    return number / fallback if np.isfinite(number) else 1.0


@cache
def position_features() -> np.ndarray:
    """Descriptors of the 1,731 Wyckoff positions, [positions, features].

    Site symmetry and point group as counts of operations of each type (determinant, trace), which tells
    the 32 point groups apart and lets groups that share a site symmetry share what is learned about it;
    multiplicity, free dimension, crystal system, rank of the letter.
    """
    table = wyckoff_table()
    group = table.space_group.numpy()
    rows = []
    for p in range(len(group)):
        general = int(table.group_start[group[p] + 1]) - 1
        span = slice(*table.orbit_start[general : general + 2].tolist())
        W = table.orbit_rotation[span].numpy()
        fixing = W[_stabiliser(table, p, span)]
        multiplicity = float(table.multiplicity[p])
        systems = [first <= group[p] <= last for first, last in SYSTEMS.values()]
        letters = int(table.group_start[group[p] + 1] - table.group_start[group[p]])
        rank = float(table.letter[p])
        rows.append(
            np.concatenate(
                [
                    np.log2(1 + _operation_counts(fixing)),
                    np.log2(1 + _operation_counts(W)),
                    np.arange(4) == int(table.dim[p]),
                    count_features(np.array([multiplicity]))[0],
                    np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 48]) == multiplicity,
                    systems,
                    [rank / letters, rank == 0, rank == letters - 1, letters / 27],
                ]
            )
        )
    return np.stack(rows).astype(np.float32)


def count_features(count: np.ndarray) -> np.ndarray:
    """A number of atoms as size and remainders, [..., features]; works for hundreds."""
    count = np.asarray(count, dtype=float)[..., None]
    periods = np.array([2.0, 3, 4, 5, 7, 8, 12, 20])
    angle = 2 * np.pi * count / periods
    return np.concatenate([np.log1p(count), 1 / np.maximum(count, 1), np.cos(angle), np.sin(angle)], axis=-1)


def _stabiliser(table: WyckoffTable, position: int, general: slice) -> np.ndarray:
    """Which operations of the group leave a generic site of the position where it is (modulo a lattice)."""
    site = table.origin[position].numpy() + table.basis[position].numpy() @ _GENERIC
    moved = table.orbit_rotation[general].numpy() @ site + table.orbit_shift[general].numpy()
    difference = moved - site
    return np.all(np.abs(difference - np.round(difference)) < 1e-4, axis=1)


def _operation_counts(rotations: np.ndarray) -> np.ndarray:
    kind = np.stack([np.round(np.linalg.det(rotations)), np.trace(rotations, axis1=1, axis2=2)], axis=1)
    return np.array([np.all(np.abs(kind - np.array(k)) < 0.5, axis=1).sum() for k in _OPERATION_TYPES])


_MAX_COUNT = 512


class GeneTables(nn.Module):
    """A network that reads genes; its tables are found again by the networks built on it."""

    multiplicity: Tensor
    dim: Tensor
    group_start: Tensor
    counts: Tensor
    position_features: Tensor
    element_features: Tensor

    def __init__(self) -> None:
        super().__init__()
        table = wyckoff_table()
        self.register_buffer("multiplicity", table.multiplicity.clone(), persistent=False)
        self.register_buffer("dim", table.dim.clone(), persistent=False)
        self.register_buffer("group_start", table.group_start.clone(), persistent=False)
        counts = torch.from_numpy(count_features(np.arange(_MAX_COUNT + 1))).float()
        self.register_buffer("counts", counts, persistent=False)
        positions = torch.from_numpy(position_features())
        self.register_buffer("position_features", positions, persistent=False)
        # kept in the checkpoint: a later periodic table must not change a trained network
        self.register_buffer("element_features", torch.from_numpy(element_features()))

    def count(self, number: Int[Tensor, "..."]) -> Float[Tensor, "... features"]:
        """Features of a number of atoms, sites or elements; as of 512 beyond that."""
        return self.counts[number.clamp(max=_MAX_COUNT)]


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
