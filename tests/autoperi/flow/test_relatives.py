from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.symmetry import symmetrise
from autoperi.crystals.wyckoff import relabellings, wyckoff_table
from autoperi.flow.relatives import Relatives, element_distances
from tests.autoperi.small import SOME_GROUPS, small_crystal
from tests.prototypes import prototype

MATCHER = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)


def named(name: str) -> Crystal:
    return replace(symmetrise(prototype(name)), id=name)


def exchanged(crystal: Crystal, names: dict[int, int]) -> Crystal:
    return replace(crystal, species=np.array([names.get(z, z) for z in crystal.species.tolist()]))


def blank(crystal: Crystal) -> Crystal:
    """What is drawn: the gene without geometry."""
    return replace(crystal, free=np.zeros_like(crystal.free), lattice_coords=np.zeros(6))


@pytest.fixture(scope="module")
def many() -> list[Crystal]:
    return [replace(small_crystal(g, 0), id=f"c{g}") for g in SOME_GROUPS]


def test_a_crystal_is_its_own_nearest_relative(many):
    """Geometry comes back to the precision of the arrays, whatever the order of the gene's sites."""
    relatives = Relatives.from_state_dict(Relatives.from_crystals(many).state_dict())
    for row, crystal in enumerate(many):
        order = np.random.default_rng(row).permutation(crystal.n_sites)
        gene = replace(blank(crystal), wyckoff=crystal.wyckoff[order], species=crystal.species[order])
        found = relatives.nearest(gene)
        assert found is not None
        assert (found.row, found.id, found.distance) == (row, crystal.id, 0.0)
        assert found.crystal.species.tolist() == gene.species.tolist()
        assert MATCHER.fit(found.crystal.to_structure(), crystal.to_structure())
        np.testing.assert_allclose(found.crystal.lattice_coords, crystal.lattice_coords, atol=2e-4)


@pytest.mark.parametrize("group", [62, 63, 136, 166, 194, 221, 225, 227])
def test_every_name_of_a_gene_has_the_same_relative(group):
    """A change of origin or of axes renames the letters of a gene, not its structure."""
    crystal = small_crystal(group, 1, sites=4)
    relatives = Relatives.from_crystals([crystal])
    names = relabellings(group, tuple(crystal.wyckoff.tolist()))
    for name, sites in names:
        gene = replace(blank(crystal), wyckoff=np.array(name), species=crystal.species[list(sites)])
        found = relatives.nearest(gene)
        assert found is not None
        assert MATCHER.fit(found.crystal.to_structure(), crystal.to_structure())
        assert found.crystal.gene == crystal.gene


def test_elements_take_the_places_of_those_most_like_them():
    """Perovskite: a new A cation goes to A, and the nearest of several training crystals is taken."""
    perovskite = named("SrTiO3 perovskite")
    far = replace(exchanged(perovskite, {38: 55, 22: 82, 8: 17}), id="CsPbCl3")
    relatives = Relatives.from_crystals([far, perovskite])
    for z, other, expected in ((56, 22, "SrTiO3 perovskite"), (37, 82, "CsPbCl3")):
        anion = 8 if expected == "SrTiO3 perovskite" else 35
        gene = blank(exchanged(perovskite, {38: z, 22: other, 8: anion}))
        found = relatives.nearest(gene)
        assert found is not None
        assert found.id == expected
        assert MATCHER.fit_anonymous(found.crystal.to_structure(), perovskite.to_structure())
        bonds = found.crystal.to_structure().get_all_neighbors(3.2)
        places = dict(zip(found.crystal.to_structure().atomic_numbers, map(len, bonds), strict=True))
        assert places[other] == 6


def test_elements_on_equal_sites_are_given_to_the_likest():
    """Rock salt: either ion may sit at the origin, and chlorine takes fluorine's place, not lithium's."""
    relatives = Relatives.from_crystals([named("NaCl")])
    gene = blank(named("NaCl"))
    turned = replace(gene, species=gene.species[::-1].copy())
    for asked in (gene, turned):
        found = relatives.nearest(asked)
        assert found is not None
        assert found.distance == 0


def test_another_pattern_is_no_relative():
    """Two elements where the training crystal has one."""
    rock_salt = named("NaCl")
    relatives = Relatives.from_crystals([rock_salt])
    assert relatives.nearest(exchanged(rock_salt, {17: 11})) is None
    assert relatives.nearest(named("Si diamond")) is None


def test_itself_can_be_left_out():
    """So that training pairs are made of different crystals; the next nearest comes then."""
    rock_salt = named("NaCl")
    other = replace(exchanged(rock_salt, {11: 19}), id="KCl")
    relatives = Relatives.from_crystals([rock_salt, other])
    found = relatives.nearest(rock_salt, skip=0)
    assert found is not None
    assert found.id == "KCl"
    assert [r.id for r in relatives.ranked(rock_salt, 5)] == ["NaCl", "KCl"]


def test_volume_follows_the_elements():
    """Larger ions make a larger cell; the same ions the same."""
    sodium, potassium = named("NaCl"), exchanged(named("NaCl"), {11: 19, 17: 35})
    grown = replace(potassium, lattice_coords=potassium.lattice_coords + np.array([0, 0, 0, 0, 0, 0.15]))
    relatives = Relatives.from_crystals([sodium, grown])
    found = relatives.nearest(blank(potassium), skip=1)
    assert found is not None
    assert found.crystal.lattice_coords[5] > sodium.lattice_coords[5] + 0.05


def test_a_training_crystal_takes_other_elements(many):
    """In its own geometry but for the volume; by its own elements it is unchanged."""
    relatives = Relatives.from_crystals(many)
    for row, crystal in enumerate(many):
        same = relatives.renamed(row, {z: z for z in crystal.species.tolist()})
        assert np.allclose(same.lattice_coords, crystal.lattice_coords, atol=1e-12)
        assert np.array_equal(same.free, crystal.free)
    salt = Relatives.from_crystals([named("NaCl"), named("CsCl")])
    caesium = salt.renamed(0, {11: 55, 17: 17})
    assert (caesium.formula, caesium.space_group) == ("CsCl", 225)
    assert caesium.to_structure().volume > named("NaCl").to_structure().volume


def test_arrays_are_small_and_exact(many):
    """Every site and every name returns; a name may hold any character."""
    crystals = [replace(many[0], id="a\nb"), *many[1:]]
    state = Relatives.from_crystals(crystals).state_dict()
    again = Relatives.from_state_dict(state).state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)
    free = small_crystal(1, 0).n_free
    assert free > 0
    assert state["free"].dtype == torch.int16


def test_distances_order_elements_as_chemists_do():
    """Neighbours in a group are near, metal and halogen far; every element is known."""
    distance = element_distances()
    assert distance[56, 38] < distance[56, 22] < distance[56, 9]
    assert np.isfinite(distance).all()
    assert (np.diag(distance)[1:] == 0).all()
    assert len(wyckoff_table().space_group) == 1731


def test_names_must_be_as_many():
    """A name for each crystal."""
    crystals = [named("NaCl")]
    batch = Relatives.from_crystals(crystals)._batch
    with pytest.raises(ValueError, match="expected 1 names: got 0"):
        Relatives(batch, [])


def test_elements_ordered_otherwise_lend_their_geometry():
    """Site by site, whatever their order; where they are far, or the gene is another, nothing does."""
    crystal = small_crystal(62, 3, sites=4)
    known = replace(crystal, species=np.array([22, 22, 8, 8]), id="known")
    relatives = Relatives.from_crystals([exchanged(known, {8: 55, 22: 55}), known])
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(4)
        species = np.array([22, 23, 8, 8])
        gene = replace(blank(crystal), wyckoff=crystal.wyckoff[order], species=species[order])
        assert relatives.nearest(gene) is None
        found = relatives.rearranged(gene)
        assert found is not None
        assert (found.row, found.id) == (1, "known")
        assert found.distance == pytest.approx(
            element_distances()[22, 23] * crystal.multiplicities[1] / crystal.n_atoms
        )
        assert found.crystal.species.tolist() == gene.species.tolist()
        same = exchanged(found.crystal, {23: 22})
        assert MATCHER.fit(same.to_structure(), known.to_structure())
    far = replace(blank(crystal), species=np.array([1, 9, 87, 88]))
    assert relatives.rearranged(far) is None
    assert relatives.rearranged(small_crystal(63, 3)) is None
