"""Fixed descriptors of elements and Wyckoff positions, and the tables of them that gene networks read."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autoperi.crystals.crystal import MAX_Z
from autoperi.crystals.wyckoff import SYSTEMS, WyckoffTable, wyckoff_table

_GENERIC = np.array([0.1372, 0.2931, 0.4178])
CHARGES = range(-4, 9)
"""Charges that an element may have."""
_OPERATION_TYPES = [(d, t) for d in (1, -1) for t in (-3, -2, -1, 0, 1, 2, 3)]


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
