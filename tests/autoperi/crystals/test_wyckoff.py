"""The shipped Wyckoff table: reproducible, closed under the groups, with the multiplicities of ITA."""

import numpy as np
import pytest
import torch
from moyopy import Setting, operations_from_number
from pyxtal.symmetry import Group

from autoperi.crystals.wyckoff import LETTERS, SYSTEMS, crystal_system, gene_name, relabellings, wyckoff_table

TABLE = wyckoff_table()
SOME = [1, 2, 5, 15, 19, 47, 62, 70, 88, 122, 146, 148, 155, 167, 176, 186, 194, 205, 214, 225, 227, 230]


def _positions(group):
    return range(*TABLE.group_start[group : group + 2].tolist())


def _orbit(position, free):
    site = TABLE.origin[position] + TABLE.basis[position] @ free
    rows = slice(*TABLE.orbit_start[position : position + 2].tolist())
    return TABLE.orbit_rotation[rows] @ site + TABLE.orbit_shift[rows]


def _same_points(a, b):
    """Every point of a is a point of b up to lattice vectors."""
    difference = a[:, None] - b[None]
    return bool(((difference - difference.round()).abs().amax(-1).amin(1) < 1e-6).all())


def _free(position):
    generator = torch.Generator().manual_seed(position)
    free = torch.rand(3, generator=generator, dtype=torch.float64)
    return torch.where(torch.arange(3) < TABLE.dim[position], free, 0.0)


def test_there_are_1731_positions():
    assert len(TABLE.space_group) == 1731
    assert TABLE.group_start[231] == 1731


@pytest.mark.parametrize("group", SOME)
def test_positions_are_those_of_pyxtal(group):
    """Multiplicity and degrees of freedom of every letter, from an independent source."""
    cells = round(1 / float(torch.linalg.det(TABLE.primitive[group])))
    expected = {
        p.letter: (p.multiplicity, np.linalg.matrix_rank(p.ops[0].rotation_matrix)) for p in Group(group)
    }
    got = {
        LETTERS[TABLE.letter[p]]: (int(TABLE.multiplicity[p]) * cells, int(TABLE.dim[p]))
        for p in _positions(group)
    }
    assert got == expected


def test_table_is_what_the_builder_builds():
    """The shipped file is reproduced bit for bit by the code that made it, for a few groups' rows."""
    from scripts.shipped import build_wyckoff_table

    for group in (2, 47, 148, 194, 227):
        cell = TABLE.primitive[group].numpy()
        found = operations_from_number(group, setting=Setting.standard(), primitive=False)
        W, w = build_wyckoff_table._primitive_operations(
            np.array(found.rotations, float), np.array(found.translations), cell
        )
        signs, shifts = build_wyckoff_table._origins(W, w, W.mean(0))
        assert len(signs) == TABLE.origins[group]
        for p in Group(group):
            affine, inverse = p.ops[0].affine_matrix, np.linalg.inv(cell)
            span, origin = inverse @ affine[:3, :3], inverse @ affine[:3, 3]
            record = build_wyckoff_table._position(W, w, span, origin, signs, shifts)
            index = TABLE.index(group, p.letter)
            assert record["dim"] == TABLE.dim[index]
            np.testing.assert_allclose(record["basis"], TABLE.basis[index], atol=1e-12)
            np.testing.assert_allclose(record["origin"], TABLE.origin[index], atol=1e-6)
            rows = slice(*TABLE.move_start[index : index + 2].tolist())
            np.testing.assert_allclose(record["move_linear"], TABLE.move_linear[rows], atol=1e-12)
            assert record["move_keeps"] == TABLE.move_keeps[rows].bool().tolist()
            rows = slice(*TABLE.orbit_start[index : index + 2].tolist())
            np.testing.assert_allclose(record["orbit_rotation"], TABLE.orbit_rotation[rows], atol=1e-12)


@pytest.mark.parametrize("group", SOME)
def test_orbits_are_closed_and_of_full_size(group):
    """Every operation of the group maps an orbit onto itself, and its points are all different."""
    found = operations_from_number(group, setting=Setting.standard())
    P = TABLE.primitive[group]
    inverse = torch.linalg.inv(P)
    W = inverse @ torch.tensor(found.rotations, dtype=torch.float64) @ P
    w = torch.tensor(found.translations, dtype=torch.float64) @ inverse.T
    for position in _positions(group):
        orbit = _orbit(position, _free(position))
        assert len(orbit) == TABLE.multiplicity[position]
        difference = orbit[:, None] - orbit[None]
        distance = (difference - difference.round()).abs().amax(-1) + torch.eye(len(orbit))
        assert distance.min() > 1e-4
        images = torch.einsum("oij,aj->oai", W, orbit) + w[:, None]
        assert _same_points(images.reshape(-1, 3), orbit)


@pytest.mark.parametrize("group", SOME)
def test_images_give_the_same_orbit(group):
    """s -> A s + a names another atom of the orbit on the same set."""
    for position in _positions(group):
        free = _free(position)
        orbit = _orbit(position, free)
        for row in range(*TABLE.image_start[position : position + 2].tolist()):
            moved = TABLE.image_linear[row] @ free + TABLE.image_shift[row]
            assert _same_points(_orbit(position, moved), orbit)


@pytest.mark.parametrize("group", SOME)
def test_free_coordinates_are_recovered(group):
    """``to_free`` inverts x = c + B s, and s and x wrap together."""
    for position in _positions(group):
        free, dim = _free(position), int(TABLE.dim[position])
        x = TABLE.origin[position] + TABLE.basis[position] @ (free + torch.tensor([1.0, -2.0, 3.0]))
        y = TABLE.to_free[position] @ (x - TABLE.origin[position])
        assert torch.allclose((y - free)[:dim], (y - free)[:dim].round())
        assert torch.allclose(y[dim:], y[dim:].round(), atol=1e-9)


def test_unknown_letters_and_groups_are_refused():
    with pytest.raises(ValueError, match="space group 225 has Wyckoff letters a-l: got 'z'"):
        TABLE.index(225, "z")
    with pytest.raises(ValueError, match="1 to 230: got 231"):
        crystal_system(231)


def test_systems_cover_all_groups():
    assert [crystal_system(n) for n in (1, 15, 16, 142, 143, 194, 230)] == [
        "triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic",
    ]  # fmt: skip
    assert sum(b - a + 1 for a, b in SYSTEMS.values()) == 230


@pytest.mark.parametrize("group", SOME)
def test_relabellings_hold_every_change_of_origin(group):
    """What a shift or inversion of the origin makes of each position, worked out from points alone."""
    from scripts.shipped import build_wyckoff_table

    cell = TABLE.primitive[group].numpy()
    found = operations_from_number(group, setting=Setting.standard(), primitive=False)
    W, w = build_wyckoff_table._primitive_operations(
        np.array(found.rotations, float), np.array(found.translations), cell
    )
    start, end = TABLE.relabel_start[group : group + 2].tolist()
    known = {tuple(row) for row in TABLE.relabel[start:end].tolist()}
    positions = list(_positions(group))
    for sign, shift in zip(*build_wyckoff_table._origins(W, w, W.mean(0)), strict=True):
        moved = [sign * _orbit(p, _free(p)) + torch.from_numpy(shift) for p in positions]
        names = [_position_of(points, group) for points in moved]
        assert (*names, *range(len(names), len(LETTERS))) in known


def _position_of(points, group):
    """Rank of the position of fewest freedoms whose orbit the points are."""
    fits = []
    for rank, p in enumerate(_positions(group)):
        if int(TABLE.multiplicity[p]) != len(points):
            continue
        for point in points:
            fit = TABLE.to_free[p] @ (point - TABLE.origin[p])
            free = torch.where(torch.arange(3) < TABLE.dim[p], fit, 0.0)
            if _same_points(_orbit(p, free), points):
                fits.append((int(TABLE.dim[p]), rank))
    return min(fits)[1]


def test_a_gene_has_its_first_name_first():
    table = TABLE
    names = [name for name, _ in relabellings(221, tuple(table.index(221, x) for x in "dba"))]
    assert [table.letters(torch.tensor(name)) for name in names] == ["abc", "abd"]
    _, order = relabellings(221, tuple(table.index(221, x) for x in "dba"))[0]
    for letters in ("abc", "abd", "dba", "cab"):
        assert gene_name(221, [table.index(221, x) for x in letters]) == "221:abc"
    assert gene_name(221, [table.index(221, x) for x in "aac"]) == "221:aac"
    assert order == (1, 2, 0)  # b is the new a, a the new b, d the new c
