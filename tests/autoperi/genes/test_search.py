from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.genes.request import GeneRequest
from autoperi.genes.search import OrbitSearch, SpeciesSearch, fits

TABLE = wyckoff_table()
MULTIPLICITY, DIM = TABLE.multiplicity.tolist(), TABLE.dim.tolist()
START = TABLE.group_start.tolist()


def genes_by_brute_force(group, most):
    """Every gene of the group with at most so many atoms, by listing multisets of positions."""
    positions = range(START[group], START[group + 1])
    for k in range(1, most + 1):
        for combination in combinations_with_replacement(positions, k):
            if sum(MULTIPLICITY[p] for p in combination) > most:
                continue
            if all(combination.count(p) == 1 for p in combination if DIM[p] == 0):
                yield combination


def assignments(multiplicities, amounts):
    """Every way of giving each site one of the elements so that the amounts come out (brute force)."""
    for elements in product(range(len(amounts)), repeat=len(multiplicities)):
        sums = [0] * len(amounts)
        for e, m in zip(elements, multiplicities, strict=True):
            sums[e] += m
        if tuple(sums) == tuple(amounts):
            yield elements


def genes_by_search(search, group):
    """Every gene that the search lets grow, and no dead ends on the way."""

    def grow(chosen, state):
        mask = search.allowed(group, state, chosen)
        assert mask.any(), f"dead end after {chosen}"
        for letter in np.flatnonzero(mask):
            if letter == 27:
                yield tuple(chosen)
            else:
                p = START[group] + int(letter)
                yield from grow([*chosen, p], search.step(state, p))

    return set(grow([], search.start)) if group in search.groups else set()


@pytest.mark.parametrize("group", [2, 62, 166, 221, 225, 227])
@pytest.mark.parametrize("ratios", [None, (1,), (1, 1), (3, 1, 1)])
def test_the_search_reaches_exactly_what_brute_force_finds(group, ratios):
    most = 6
    formula = {None: None, (1,): "Si", (1, 1): "NaCl", (3, 1, 1): "BaTiO3"}[ratios]
    expected = set()
    for gene in genes_by_brute_force(group, most):
        sizes = [MULTIPLICITY[p] for p in gene]
        units, left = divmod(sum(sizes), sum(ratios or (1,)))
        if ratios is None or (
            not left and any(True for _ in assignments(sizes, [a * units for a in ratios]))
        ):
            expected.add(gene)
    request = GeneRequest(formula=formula, space_groups=[group])
    if not expected:
        with pytest.raises(ValueError, match=r"no combination of orbits|no multiple"):
            OrbitSearch(request, most)
        return
    search = OrbitSearch(request, most)
    assert genes_by_search(search, group) == expected
    assert all(search.accepts(gene) for gene in expected)


def test_atom_range_and_number_of_elements_limit_the_genes():
    search = OrbitSearch(GeneRequest(chemical_system="Na-Cl-O", n_atoms=(4, 6), space_groups=[225]), 20)
    found = genes_by_search(search, 225)
    expected = {
        g for g in genes_by_brute_force(225, 6) if sum(MULTIPLICITY[p] for p in g) >= 4 and len(g) >= 3
    }
    assert found == expected


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=4),
    st.lists(st.sampled_from([1, 2, 3, 4]), max_size=5),
)
@settings(deadline=None, max_examples=200)
def test_fits_against_brute_force(room, multiplicities):
    expected = any(True for _ in assignments(multiplicities, room))
    assert fits(tuple(sorted(room, reverse=True)), tuple(sorted(multiplicities, reverse=True))) == expected


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_permitted_species_are_those_that_brute_force_can_complete(data):
    multiplicities = data.draw(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=4))
    elements = [8, 11, 17]
    species = data.draw(
        st.lists(st.sampled_from([0, *elements]), min_size=len(multiplicities), max_size=len(multiplicities))
    )
    species[0] = 0
    fields = data.draw(
        st.sampled_from(
            [
                {"formula": "Na2O"},
                {"formula": "NaClO3"},
                {"anonymous_formula": "AB2"},
                {"chemical_system": "Na-Cl"},
            ]
        )
    )
    request = GeneRequest(
        **fields, **({} if "formula" in fields else {"allowed_elements": ["O", "Na", "Cl"]})
    )
    if "chemical_system" in fields:
        request = GeneRequest(**fields)

    def meets(z):
        amounts = {e: sum(m for m, w in zip(multiplicities, z, strict=True) if w == e) for e in set(z)}
        units = sum(multiplicities) / sum(request.ratios() or (sum(multiplicities),))
        if request.amounts() is not None:
            return amounts == {e: a * units for e, a in request.amounts().items()}
        if request.ratios() is not None:
            return sorted(amounts.values()) == sorted(a * units for a in request.ratios())
        return set(z) == request.system()

    options = [[z] if z else elements for z in species]
    expected = {z[0] for z in product(*options) if meets(z)}
    allowed = SpeciesSearch(request).allowed(species, multiplicities, 0)
    assert set(np.flatnonzero(allowed).tolist()) == expected
    assert SpeciesSearch(request).accepts(species, multiplicities) == bool(expected)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"formula": "Li7La3Zr2O12"}, "24 atoms per formula unit: no multiple lies within 1-20"),
        ({"formula": "BaTiO3", "space_groups": [227], "n_atoms": (5, 5)}, "space group 227 gives BaTiO3"),
        ({"gene": "225:ab", "formula": "BaTiO3"}, "gene 225:ab does not give BaTiO3"),
        ({"gene": "225:ab", "chemical_system": "Ba-Ti-O"}, "does not give Ba-Ti-O"),
        ({"space_groups": [225], "n_atoms": (25, 25), "chemical_system": "Na"}, None),
    ],
)
def test_impossible_requests_are_refused_with_the_reason(fields, says):
    if says is None:
        assert OrbitSearch(GeneRequest(**fields), 20).groups == (225,)
        return
    with pytest.raises(ValueError, match=says):
        OrbitSearch(GeneRequest(**fields), 20)


def test_larger_cells_are_searched_quickly():
    search = OrbitSearch(GeneRequest(formula="Li7La3Zr2O12", n_atoms=(48, 96), space_groups=[139, 230]), 20)
    assert search.groups == (139, 230)
