import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.analysis.hhi import HHIModel

from evaluation.facts.chemistry import anonymous_formula, element_fractions, supply_concentration


def test_fractions_of_known_formulas():
    rows = element_fractions(["Na1Cl1", "O3Sr1Ti1"])
    assert rows.shape == (2, 118)
    assert rows[0, 10] == rows[0, 16] == 0.5
    assert rows[1, 7] == pytest.approx(0.6)
    assert element_fractions([]).shape == (0, 118)


@given(st.dictionaries(st.sampled_from(["H", "C", "Og", "Fe", "U"]), st.integers(1, 40), min_size=1))
def test_fractions_add_up_to_one(amounts):
    assert element_fractions(["".join(f"{s}{n}" for s, n in amounts.items())]).sum() == pytest.approx(1)


def test_anonymous_formula_forgets_the_elements_only():
    assert anonymous_formula("Na1Cl1") == anonymous_formula("Mg1O1") == "1:1"
    assert anonymous_formula("O3Sr1Ti1") == "3:1:1"
    assert anonymous_formula("Al2O3") != anonymous_formula("Al3O2O1")


@pytest.mark.parametrize("formula", ["Na1Cl1", "Fe2O3", "Ga1As1"])
def test_supply_concentration_is_that_of_pymatgen(formula):
    # Both weigh by mass; pymatgen rounds its table of atomic masses differently.
    assert supply_concentration(formula) == pytest.approx(HHIModel().get_hhi(formula), rel=1e-3)


def test_an_element_without_a_market_has_no_index():
    assert np.isnan(supply_concentration("Og1O1")).all()
