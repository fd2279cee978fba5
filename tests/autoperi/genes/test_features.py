"""What is read of whole crystals: the balance of their charges above all."""

from itertools import product

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Element

from autoperi.crystals.crystal import MAX_Z
from autoperi.genes.features import CHARGES, GeneDescription, _total_charge, charge_states


def amounts(formula):
    row = torch.zeros(1, MAX_Z + 1, dtype=torch.long)
    for symbol, n in formula.items():
        row[0, Element(symbol).Z] = n
    return row


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["Li", "Fe", "O", "Mo", "Cl", "Ar", "N"]), st.integers(1, 9), min_size=1, max_size=4
    ),
    st.integers(0, 1),
)
def test_the_total_charge_is_that_of_all_assignments(formula, table):
    """The product in Fourier space equals adding up every assignment one by one."""
    states = torch.from_numpy(charge_states()[table])
    found = _total_charge(amounts(formula), states)[0].numpy()
    wanted = np.zeros_like(found)
    rows = [states[Element(symbol).Z].numpy() for symbol in formula]
    for chosen in product(range(len(CHARGES)), repeat=len(rows)):
        chance = np.prod([row[k] for row, k in zip(rows, chosen, strict=True)])
        wanted[sum(n * k for n, k in zip(formula.values(), chosen, strict=True))] += chance
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_known_charges_are_those_of_the_periodic_table():
    """Sodium is +1 and argon 0 in both tables; every row is a distribution."""
    states = charge_states()
    np.testing.assert_allclose(states.sum(axis=-1), 1.0, rtol=1e-6)
    for z, charge in ((11, 1), (18, 0)):
        assert (states[:, z, CHARGES.index(charge)] == 1).all()


def test_balanced_charges_are_told_from_unbalanced_ones():
    """The exact balance of common charges is sure in NaCl and impossible in NaCl2."""
    read = GeneDescription()
    sure, none = (read._balance(amounts({"Na": 1, "Cl": n}))[0, 0].exp() for n in (1, 2))
    assert sure > 0.1
    assert none < 2e-4
