import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from evaluation.facts.description import describe
from evaluation.facts.matching import MatchSettings, duplicates, formula_key, known_in
from evaluation.metrics.reconstruction import match_pair
from tests.evaluation.crystals import disguised, rocksalt, zoo


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000))
def test_every_disguise_is_found_out(seed):
    crystals = zoo()
    twins = duplicates(crystals + [disguised(c, seed) for c in crystals])
    assert twins.match == (None,) * len(crystals) + tuple(range(len(crystals)))
    assert twins.pairs_compared == len(crystals)
    assert not twins.failures


def test_polymorphs_differ():
    salt = rocksalt()
    caesium_chloride = Structure(salt.lattice, ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    assert duplicates([salt, caesium_chloride]).match == (None, None)


def test_formulas_that_differ_cost_no_comparison():
    assert duplicates(zoo()).pairs_compared == 0


def test_novelty_reads_only_formula_hits():
    reference = zoo()
    asked = []

    def lookup(index):
        asked.append(index)
        return reference[index]

    new = rocksalt("K", "Br", 6.6)
    twins = known_in([disguised(reference[2], 1), new], [formula_key(s) for s in reference], lookup)
    assert twins.match == (2, None)
    assert set(asked) == {2}
    assert str(twins.settings) == "StructureMatcher(ltol=0.2, stol=0.3, angle=5.0)"


@pytest.mark.parametrize("crystal", zoo())
def test_formula_key_is_the_same_for_a_supercell(crystal):
    assert formula_key(disguised(crystal, 3)) == formula_key(crystal)


def test_a_finer_bucket_keeps_crystals_apart():
    salt = rocksalt()
    twins = [salt, disguised(salt, 1), disguised(salt, 2)]
    assert duplicates(twins).match == (None, 0, 0)
    assert duplicates(twins, buckets=["a", "b", "a"]).match == (None, None, 0)
    found = known_in(twins, ["b"], lambda _: salt, buckets=["a", "b", "a"])
    assert found.match == (None, 0, None)
    assert found.pairs_compared == 1


def test_the_bucket_is_printed_when_it_can_lose_matches():
    assert "within one formula and gene" in str(MatchSettings(bucket="gene"))


def _dressed(structure):
    """The crystal with charges, with spins, and with two charges of one element."""
    charged, spinning, mixed = (structure.copy() for _ in range(3))
    symbols = sorted(structure.symbol_set)
    charged.add_oxidation_state_by_element(dict(zip(symbols, (-1, 1, 2), strict=False)))
    spinning.add_spin_by_element(dict.fromkeys(symbols, 5))
    mixed.add_oxidation_state_by_site([k % 2 + 1 for k in range(len(structure))])
    return [charged, spinning, mixed]


@pytest.mark.parametrize("crystal", zoo())
def test_charges_and_spins_make_no_other_crystal(crystal):
    """In any order, of sample and of reference, and to every metric of prediction."""
    dressed = [crystal, *_dressed(crystal)]
    for turn in range(len(dressed)):
        order = dressed[turn:] + dressed[:turn]
        assert duplicates(order).match == (None, 0, 0, 0)
        assert known_in(order, [formula_key(order[0])], lambda _, o=order: o[0]).match == (0, 0, 0, 0)
        errors = match_pair(order[0], order[1])
        assert errors is not None
        assert errors.rmse < 1e-6
    facts = [describe(s) for s in dressed]
    assert all(f == facts[0] for f in facts)


def test_cells_that_no_crystal_has_are_named_and_not_compared():
    """Their reduction takes hours."""
    sheet = Structure(Lattice.tetragonal(3, 1e5), ["K", "Br"], [[0, 0, 0], [0.5, 0.5, 0]])
    twins = duplicates([sheet, sheet])
    assert twins.match == (None, None)
    assert twins.failures == {
        1: "no primitive cell: its cell is flat, or has a vector shorter or longer than any crystal's"
    }
