import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from autoperi.crystals.wyckoff import wyckoff_table
from evaluation.facts.symmetry import _relabellings, gene, keeps_space_group, space_group
from tests.evaluation.crystals import disguised, perovskite, zoo

EXPECTED = ["225:a b", "221:a b c", "136:a f", "227:a", "186:b b", "225:a b"]


@pytest.mark.parametrize(("crystal", "expected"), list(zip(zoo(), EXPECTED, strict=True)))
def test_known_genes(crystal, expected):
    assert str(gene(crystal)) == expected


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
    ],
)
def test_cells_on_which_the_search_never_ends_have_no_answer(cell):
    assert space_group(Structure(Lattice(cell), ["Na"], [[0, 0, 0]]), 0.1) is None


def test_a_skewed_cell_of_a_real_crystal_has_its_answer():
    """Its raw cell is flat and long, its shortest vectors are not."""
    skewed = zoo()[2].make_supercell([[1, 0, 0], [9, 1, 0], [-8, 7, 1]], in_place=False)
    assert max(skewed.lattice.abc) > 10 * skewed.volume / np.prod(sorted(skewed.lattice.abc)[1:])
    assert space_group(skewed, 0.1) == 136


@pytest.mark.parametrize("number", range(1, 231))
def test_letters_are_exchanged_and_the_first_names_are_those_of_the_generator(number):
    """The generator's own table was made at another time by another script."""
    known = _relabellings(number)
    assert all(name == own for name, own in known[0].items())
    assert all(sorted(names.values()) == sorted(known[0]) for names in known)
    table, alphabet = wyckoff_table(), [*"abcdefghijklmnopqrstuvwxyzA"]
    first, end = table.relabel_start[number : number + 2].tolist()
    ranks = table.relabel[first:end, : len(known[0])].tolist()
    theirs = {tuple(alphabet[rank] for rank in row) for row in ranks}
    assert {tuple(names[letter] for letter in alphabet if letter in names) for names in known} == theirs
