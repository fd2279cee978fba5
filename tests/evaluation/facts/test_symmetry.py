import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pyxtal.symmetry import Group

from autoperi.crystals.symmetry import symmetrise
from autoperi.crystals.wyckoff import gene_name, wyckoff_table
from evaluation.facts.symmetry import gene, keeps_space_group, space_group
from tests.evaluation.crystals import disguised, perovskite, zoo

EXPECTED = ["225:ab", "221:abc", "136:af", "227:a", "186:bb", "225:ab"]


@pytest.mark.parametrize(("crystal", "expected"), list(zip(zoo(), EXPECTED, strict=True)))
def test_known_genes(crystal, expected):
    found = gene(crystal)
    assert found is not None
    assert (found.name, found.space_group) == (expected, space_group(crystal))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(range(len(zoo()))))
def test_gene_does_not_depend_on_origin_cell_or_order(seed, which):
    crystal = zoo()[which]
    assert gene(disguised(crystal, seed)) == gene(crystal)


def test_noise_is_symmetric_at_the_loose_tolerance_only():
    crystal = zoo()[1].make_supercell(1, in_place=False)
    crystal.perturb(0.03)
    assert space_group(crystal, 0.1) == 221
    assert space_group(crystal, 0.001) != 221


def test_what_has_no_cell_has_no_group():
    broken = Structure(Lattice.cubic(4), ["Na"], [[np.nan] * 3])
    assert space_group(broken) is None
    assert gene(broken) is None


def test_gaining_symmetry_keeps_the_space_group():
    """A distorted perovskite that becomes cubic has kept its group, the other way round it has lost it."""
    cubic, tetragonal = perovskite(), perovskite()
    tetragonal.apply_strain([0, 0, 0.05])
    assert keeps_space_group(tetragonal, cubic)
    assert keeps_space_group(cubic, cubic * (1, 1, 2))
    assert not keeps_space_group(cubic, tetragonal)


@pytest.mark.parametrize(
    "cell",
    [
        [[1, 0, 0], [0.3, 1, 0], [5.6, 0, 20]],
        [[4, 0, 0], [1.2, 4, 0], [0, 0, 1e5]],
        [[300, 0, 0], [0, 2, 0], [0.6, 0.6, 4]],
        [[0.3, -1.351, -1.1], [60, 0, 0], [0.6786, 1.5792, 0]],
    ],
)
def test_cells_on_which_the_search_never_ends_have_no_answer(cell):
    assert space_group(Structure(Lattice(cell), ["Na"], [[0, 0, 0]]), 0.1) is None


def test_a_skewed_cell_of_a_real_crystal_has_its_answer():
    """Its raw cell is flat and long, its shortest vectors are not."""
    skewed = zoo()[2].make_supercell([[1, 0, 0], [9, 1, 0], [-8, 7, 1]], in_place=False)
    assert max(skewed.lattice.abc) > 10 * skewed.volume / np.prod(sorted(skewed.lattice.abc)[1:])
    assert space_group(skewed, 0.1) == 136


def test_judge_and_generator_call_a_gene_by_one_name(prototypes):
    """However a crystal is described, its gene has the name that the judge finds for it."""
    named = {name: symmetrise(structure).gene for name, structure in prototypes.items()}
    found = {name: gene(structure) for name, structure in prototypes.items()}
    assert named == {name: g and g.name for name, g in found.items()}
    for seed in range(3):
        shifted = {name: symmetrise(disguised(s, seed)).gene for name, s in prototypes.items()}
        assert shifted == named


@pytest.mark.parametrize("number", range(1, 231))
def test_the_first_name_is_the_first_of_all_that_pyxtal_knows(number):
    """By PyXtal's tables of today, from which the shipped one was made; and every renaming is undone."""
    rows = [row.split() for row in Group(number).get_alternatives()["Transformed WP"]]
    known = [dict(zip(rows[0], row, strict=True)) for row in rows]
    assert all(sorted(names.values()) == sorted(rows[0]) for names in known)
    table, rank = wyckoff_table(), "abcdefghijklmnopqrstuvwxyzA".index
    rng = np.random.default_rng(number)
    for _ in range(5):
        letters = rng.choice(rows[0], 4).tolist()
        first = min(
            (sorted(map(names.get, letters), key=rank) for names in known), key=lambda n: [*map(rank, n)]
        )
        for names in known:
            positions = [table.index(number, names[letter]) for letter in letters]
            assert gene_name(number, positions) == f"{number}:{''.join(first)}"
