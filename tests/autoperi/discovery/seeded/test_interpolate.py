from dataclasses import replace

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

import autoperi
from autoperi.crystals.symmetry import symmetrise
from autoperi.discovery.seeded import path, path_picture, path_table, way_between
from evaluation.facts.symmetry import space_group
from tests.prototypes import prototype

SAME = StructureMatcher(scale=False)


@pytest.fixture(scope="module")
def generator():
    """The shipped one."""
    return autoperi.load()


def named(name):
    """A prototype as a crystal."""
    return replace(symmetrise(prototype(name)), id=name)


def distorted():
    """A polar tetragonal perovskite."""
    lattice, frac, species = symmetrise(prototype("SrTiO3 perovskite")).expand()
    moved = frac + np.where(species == 22, 0.02, 0.0)[:, None] * [0, 0, 1]
    return symmetrise(Structure(Lattice(lattice * [1, 1, 1.02]), species, moved))


PAIRS = [
    ("ZnS zincblende", "GaAs", 216, True),
    ("MoS2", "MoS2", 194, True),
    ("NaCl", "CsCl", 166, False),
    ("TiO2 rutile", "TiO2 anatase", 1, False),
]


@pytest.mark.parametrize(("first", "second", "group", "gene"), PAIRS)
def test_the_ends_are_the_crystals_and_the_group_holds_between(generator, first, second, group, gene):
    """By a symmetry search: what is found has the group of the way, and at generic points no more."""
    one, other = named(first), named(second)
    points, way = path(generator, one, other, 5)
    assert way.group == group
    assert (way.first.space_group > 1) == gene
    assert [p.properties["fraction"] for p in points] == [0, 0.25, 0.5, 0.75, 1]
    assert SAME.fit(points[0].to_structure(), one.to_structure())
    assert SAME.fit(points[-1].to_structure(), other.to_structure())
    found = [space_group(p.to_structure(), 1e-3) for p in points]
    assert found == [p.space_group for p in points]
    assert found[1:-1] == [group] * 3
    volumes = [abs(np.linalg.det(p.expand()[0])) for p in points]
    assert np.diff(np.log(volumes)) == pytest.approx(
        np.full(4, np.log(volumes[-1] / volumes[0]) / 4), abs=1e-9
    )


def test_elements_are_read_from_the_latents_and_kept_apart(generator):
    """Near an end they are its own; two kinds of sites never become one."""
    points, _ = path(generator, named("ZnS zincblende"), named("GaAs"), 9)
    formulas = [p.formula for p in points]
    assert formulas[:3] == ["ZnS"] * 3
    assert formulas[-3:] == ["GaAs"] * 3
    assert all(len(set(p.species.tolist())) == 2 for p in points)


@pytest.mark.parametrize("turned", [False, True])
def test_a_subgroup_carries_the_whole_way(generator, turned):
    """Both crystals under the tetragonal gene, whichever comes first; the cubic end has more."""
    ends = [distorted(), symmetrise(prototype("SrTiO3 perovskite"))]
    first, second = ends[::-1] if turned else ends
    way = way_between(first, second)
    assert (way.first.space_group, way.group, way.backwards) == (99, 99, turned)
    points, _ = path(generator, first, second, 5)
    assert {p.gene for p in points} == {distorted().gene}
    table = path_table(points, lambda every: [0.0] * len(every))
    expected = [99, 99, 99, 99, 221]
    assert table["found"].tolist() == (expected[::-1] if turned else expected)
    assert SAME.fit(points[0].to_structure(), first.to_structure())
    assert table["distance"].iloc[0] == 0
    assert (np.diff(table["distance"]) > 0).all()


def test_atoms_that_meet_on_the_way_are_told(generator):
    """The point where they do is described in P1 and says why; the others have their group."""
    cell = Lattice([[4, 0, 0], [0.3, 5, 0], [0.2, 0.4, 9]])
    species = ["Na", "Cl", "K", "Br", "Ca", "S", "Ti", "O"]
    places = np.array([[0.3, 0.1, 0.1], [0.7, 0.1, 0.1], [0.45, 0.5, 0.52], [0.1, 0.65, 0.8]])
    places = np.concatenate([places, places + np.array([0.1, 0.47, 0.23])])
    swapped = places[[1, 0, *range(2, 8)]]
    ends = [symmetrise(Structure(cell, species, own)) for own in (places, swapped)]
    points, way = path(generator, *ends, 5)
    assert way.group == 1
    table = path_table(points, lambda every: [np.inf] * len(every))
    assert table["problem"].str.len().gt(0).tolist() == [False, False, True, False, False]
    assert table["contact"].iloc[2] < 1e-6
    assert table["energy"].isna().all()


def test_the_table_and_the_picture(generator):
    """A row for each point; a panel for each column asked for."""
    points, _ = path(generator, named("NaCl"), named("CsCl"), 3)
    table = path_table(points, lambda every: [-1.0, -2.0, -3.0][: len(every)])
    assert table["energy"].tolist() == [-1, -2, -3]
    assert table["space_group"].tolist() == [225, 166, 221]
    figure = path_picture(table, {"energy": "eV/atom", "contact": ""})
    assert len(figure.axes) == 2


@pytest.mark.parametrize("steps", [0, 2, 1001])
def test_a_path_has_three_points_or_more(generator, steps):
    """Both ends and what lies between."""
    with pytest.raises(ValueError, match="3 to 1000 steps"):
        path(generator, named("NaCl"), named("CsCl"), steps)
