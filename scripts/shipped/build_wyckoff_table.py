"""Derive the Wyckoff table from the operations of each group: run once, result is shipped.

Sources: first representative of every position and the relabellings from pyxtal (International Tables A),
operations from moyo. Nothing is typed in by hand.

    python scripts/shipped/build_wyckoff_table.py
"""

from itertools import product
from pathlib import Path

import numpy as np

import autoperi.crystals.wyckoff
from autoperi.crystals.wyckoff import FAMILIES, LETTERS, PRIMITIVE, SYSTEMS

_TOL = 1e-6
_SMALL = np.array(sorted(product(range(-2, 3), repeat=3), key=lambda v: (np.square(v).sum(), v)))
_GENERIC = np.array([0.1372, 0.2931, 0.4178])
"""A free-coordinate vector on no special set."""


def build_wyckoff_arrays() -> dict[str, np.ndarray]:
    """Arrays of ``WyckoffTable`` for the 230 space groups. Needs pyxtal and moyopy; takes seconds."""
    from moyopy import HallSymbolEntry, Setting, operations_from_number
    from pyxtal.symmetry import Group

    rows: dict[str, list] = {key: [] for key in _ROW_KEYS}
    orbit_start, image_start, group_start = [0], [0], [0, 0]
    family, primitive, polar = [0], [np.eye(3)], [np.eye(3)]
    origins, move_start = [0], [0]
    relabel, relabel_start = [], [0, 0]
    centrings = _standard_centrings(HallSymbolEntry)
    for number in range(1, 231):
        cell = PRIMITIVE[centrings[number]]
        conventional = operations_from_number(number, setting=Setting.standard(), primitive=False)
        W, w = _primitive_operations(
            np.array(conventional.rotations, float), np.array(conventional.translations), cell
        )
        system = next(n for n, (a, b) in SYSTEMS.items() if a <= number <= b)
        family.append(FAMILIES.index("hexagonal" if system == "trigonal" else system))
        primitive.append(cell)
        polar.append(W.mean(axis=0))
        signs, shifts = _origins(W, w, polar[-1])
        origins.append(len(signs))
        positions = sorted(Group(number).Wyckoff_positions, key=lambda p: (p.letter == "A", p.letter))
        relabel += _relabellings(Group(number).get_alternatives()["Transformed WP"])
        relabel_start.append(len(relabel))
        for rank, position in enumerate(positions):
            affine = position.ops[0].affine_matrix
            record = _position(
                W, w, np.linalg.inv(cell) @ affine[:3, :3], np.linalg.inv(cell) @ affine[:3, 3], signs, shifts
            )
            expected = len(position.ops) * abs(np.linalg.det(cell))
            if not np.isclose(len(record["orbit_rotation"]), expected):
                raise RuntimeError(f"group {number}{position.letter}: {expected} atoms expected")
            rows["space_group"].append(number)
            rows["letter"].append(rank)
            rows["multiplicity"].append(len(record["orbit_rotation"]))
            for key, value in record.items():
                (rows[key].extend if key.startswith(("orbit", "image", "move")) else rows[key].append)(value)
            orbit_start.append(len(rows["orbit_rotation"]))
            image_start.append(len(rows["image_linear"]))
            move_start.append(len(rows["move_linear"]))
        group_start.append(len(rows["space_group"]))
    out = {key: np.array(value) for key, value in rows.items()}
    out |= {"orbit_start": np.array(orbit_start), "image_start": np.array(image_start)}
    out |= {"origins": np.array(origins), "move_start": np.array(move_start)}
    out |= {"relabel": np.array(relabel), "relabel_start": np.array(relabel_start)}
    out |= {"group_start": np.array(group_start), "family": np.array(family)}
    return out | {"primitive": np.array(primitive), "polar": np.array(polar)}


_ROW_KEYS = [
    "space_group",
    "letter",
    "multiplicity",
    "dim",
    "origin",
    "basis",
    "to_free",
    "orbit_rotation",
    "orbit_shift",
    "image_linear",
    "image_shift",
    "move_linear",
    "move_shift",
    "move_keeps",
]


def _relabellings(sequences: list[str]) -> list[list[int]]:
    """Distinct ones as the new rank of each letter, the identity first, padded to 27."""
    ranks = {tuple(LETTERS.index(letter) for letter in sequence.split()) for sequence in sequences}
    return [[*found, *range(len(found), len(LETTERS))] for found in sorted(ranks)]


def _standard_centrings(entry_type: type) -> dict[int, str]:
    centrings = {}
    for hall in range(1, 531):
        entry = entry_type(hall).as_dict()
        centrings.setdefault(entry["number"], str(entry["centering"]))
    return centrings


def _primitive_operations(W: np.ndarray, w: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Operations in the primitive basis, one of each set that differs by a centring translation."""
    inverse = np.linalg.inv(cell)
    W, w = np.round(inverse @ W @ cell), _wrap(w @ inverse.T)
    _, first = np.unique(np.round(np.c_[W.reshape(-1, 9), w], 4) % 1000, axis=0, return_index=True)
    first = np.sort(first)
    return W[first], w[first]


def _wrap(x: np.ndarray) -> np.ndarray:
    """Into [0, 1), snapped to the 48ths on which every space-group translation lies."""
    return (np.round(x * 48) / 48) % 1.0


def _is_integer(x: np.ndarray) -> np.ndarray:
    return np.all(np.abs(x - np.round(x)) < _TOL, axis=-1)


def _origins(W: np.ndarray, w: np.ndarray, polar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The other origins of a group: all x -> e x + t, e = 1 or -1, that carry its operations onto themselves.

    They are the part of the Euclidean normalizer (ITA, chapter 3.5) that exists for every cell of the
    group. Shifts along polar directions are continuous and left out; the identity comes first.
    """
    grid = np.array(list(product(range(24), repeat=3))) / 24
    grid = grid[np.abs(grid @ polar.T).max(-1) < _TOL]
    moved = grid @ (np.eye(3) - W).transpose(0, 2, 1)  # operations, grid, 3
    found = [(1.0, t) for t in grid[_is_integer(moved).all(0)]]
    if not (np.abs(W + np.eye(3)).max((1, 2)) < _TOL).any():
        found += [(-1.0, t) for t in grid[_is_integer(moved - 2 * w[:, None]).all(0)]]
    signs, shifts = zip(*found, strict=True)
    return np.array(signs), np.array(shifts)


def _position(
    W: np.ndarray,
    w: np.ndarray,
    span: np.ndarray,
    origin: np.ndarray,
    signs: np.ndarray,
    shifts: np.ndarray,
) -> dict:
    """One Wyckoff position from its representative ``x = span @ (x, y, z) + origin`` (primitive)."""
    origin = _wrap(origin)
    completed, dim = _unimodular_completion(span)
    inverse = np.linalg.inv(completed)
    basis = np.where(np.arange(3) < dim, completed, 0.0)
    generic = origin + basis @ _GENERIC
    points = generic @ W.transpose(0, 2, 1) + w
    kept: list[int] = []
    for i, point in enumerate(points):
        if not kept or not _is_integer(points[kept] - point).any():
            kept.append(i)
    # every operation that maps the set onto itself, as a map of s
    linear = inverse @ W @ completed
    shift = (origin @ W.transpose(0, 2, 1) + w - origin) @ inverse.T
    onto = np.all(np.abs(linear[:, dim:, :dim]) < _TOL, axis=(1, 2)) & _is_integer(shift[:, dim:])
    A = np.zeros((onto.sum(), 3, 3))
    a = np.zeros((onto.sum(), 3))
    A[:, :dim, :dim] = np.round(linear[onto][:, :dim, :dim])
    a[:, :dim] = _wrap(shift[onto][:, :dim])
    _, first = np.unique(np.c_[A.reshape(-1, 9), np.round(a, 5)], axis=0, return_index=True)
    first = np.sort(first)
    moves = [_move(W, w, completed, dim, origin, e, t) for e, t in zip(signs, shifts, strict=True)]
    return {
        "dim": dim,
        "origin": origin,
        "basis": basis,
        "to_free": inverse,
        "orbit_rotation": W[kept],
        "orbit_shift": w[kept],
        "image_linear": A[first],
        "image_shift": a[first],
        "move_linear": [linear for linear, _, _ in moves],
        "move_shift": [shift for _, shift, _ in moves],
        "move_keeps": [keeps for _, _, keeps in moves],
    }


def _move(
    W: np.ndarray,
    w: np.ndarray,
    completed: np.ndarray,
    dim: int,
    origin: np.ndarray,
    sign: float,
    shift: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """What x -> sign x + shift does to s of one position, and whether its orbit stays on that position."""
    inverse = np.linalg.inv(completed)
    linear = sign * inverse @ W @ completed
    offset = (sign * (origin @ W.transpose(0, 2, 1) + w) + shift - origin) @ inverse.T
    onto = np.all(np.abs(linear[:, dim:, :dim]) < _TOL, axis=(1, 2)) & _is_integer(offset[:, dim:])
    A, a = np.zeros((3, 3)), np.zeros(3)
    if not onto.any():
        return A, a, False
    first = int(onto.argmax())
    A[:dim, :dim] = np.round(linear[first, :dim, :dim])
    a[:dim] = _wrap(offset[first, :dim])
    return A, a, True


def _unimodular_completion(span: np.ndarray) -> tuple[np.ndarray, int]:
    """Unimodular U whose first d columns span all integer vectors in the column space of ``span``."""
    dim = int(np.linalg.matrix_rank(span, tol=1e-4))
    if dim in (0, 3):
        return np.eye(3), dim
    u, _, _ = np.linalg.svd(span)
    outside = u[:, dim:].T
    inside = [v for v in _SMALL if v.any() and np.all(np.abs(outside @ v) < 1e-4)]
    others = [v for v in _SMALL if v.any()]
    firsts = [(v,) for v in inside] if dim == 1 else [(a, b) for a in inside for b in inside]
    rests = [(a, b) for a in others for b in others] if dim == 1 else [(a,) for a in others]
    for first in firsts:
        for rest in rests:
            candidate = np.stack([*first, *rest], axis=1).astype(float)
            if np.isclose(np.linalg.det(candidate), 1.0):
                return candidate, dim
    raise RuntimeError(f"no unimodular completion for {span}")


if __name__ == "__main__":
    path = Path(autoperi.crystals.wyckoff.__file__).with_name("wyckoff.npz")
    np.savez_compressed(path, allow_pickle=False, **build_wyckoff_arrays())
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
