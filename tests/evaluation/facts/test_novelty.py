from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from evaluation.facts.baselines import draw_baseline
from evaluation.facts.description import description_table
from evaluation.facts.levels import LEVELS
from evaluation.facts.matching import MatchSettings, anonymous_cell, known_in
from evaluation.facts.novelty import _Near, _parameters, novelty_levels, templates_in
from evaluation.facts.reference import Reference
from tests.evaluation.crystals import disguised, perovskite, rocksalt, wurtzite, zoo
from tests.prototypes import prototype


def pyrite(metal="Fe", other="S", u=0.3848):
    """FeS2 at its own u; CO2 sits on the same sites with u near 0.11, as lone molecules."""
    return Structure.from_spacegroup(205, Lattice.cubic(5.42), [metal, other], [[0, 0, 0], [u, u, u]])


def heusler(a="Fe", b="Al", c="Fe"):
    """D0_3 as it stands, Fe3Al; L2_1 with three elements on the same sites."""
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]]
    return Structure.from_spacegroup(225, Lattice.cubic(5.79), [a, b, c], sites)


KNOWN = Reference.from_structures([rocksalt(), perovskite(), pyrite(), heusler(), wurtzite()])
CASES = {
    "a known crystal": (rocksalt(), "duplicate", None),
    "at another volume": (rocksalt(a=6.5), "duplicate", None),
    "other elements": (rocksalt("K", "Br", 6.6), "substitution", 0),
    "elements of the same, exchanged": (perovskite("Ti", "Sr"), "substitution", 1),
    "an element for a compound": (prototype("Cu fcc"), "new_gene", None),
    "one element more on the same sites": (heusler("Mn", "Al", "Cu"), "known_gene", None),
    "the same ratio on the same sites otherwise": (pyrite("C", "O", 0.11), "known_gene", None),
    "other sites": (prototype("TiO2 rutile"), "new_gene", None),
    "the same ratio on other sites": (prototype("CsCl"), "new_gene", None),
}


def levels(structures, reference=KNOWN, workers=1):
    facts = description_table(structures)
    known = known_in(structures, reference.table["formula"], reference.structure)
    twins = [k for k, twin in enumerate(known.match) if twin is not None]
    templates = templates_in(structures, facts, reference, skip=twins, workers=workers)
    return novelty_levels(facts, known, templates, reference), templates


@pytest.mark.parametrize("workers", [1, 2])
def test_levels_of_crystals_that_are_known(workers):
    crystals, expected, rows = zip(*CASES.values(), strict=True)
    found, templates = levels(crystals, workers=workers)
    assert dict(zip(CASES, found, strict=True)) == dict(zip(CASES, expected, strict=True))
    assert templates.match == rows
    assert not templates.failures


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.6, 1.6))
def test_a_level_depends_on_nothing_but_the_crystal(seed, scale):
    """Not on origin, axes, order of atoms, number of cells or volume."""
    others = [disguised(crystal, seed) for crystal, _, _ in CASES.values()]
    for other in others:
        other.scale_lattice(other.volume * scale)
    assert levels(others)[0] == [level for _, level, _ in CASES.values()]


def test_displaced_atoms_are_a_substitution_still():
    """Where no symmetry is left to be found; and nothing of the kind when they are far off."""
    near, far = (prototype("TiO2 rutile").replace_species({"Ti": "Sn"}) for _ in range(2))
    near.perturb(0.3, seed=0)
    far.perturb(1.5, seed=1)
    facts = description_table([near, far])
    assert facts["space_group_loose"].tolist() == [1, 1]
    assert levels([near, far], Reference.from_structures(zoo()))[0] == ["substitution", "new_gene"]


def test_without_a_space_group_a_crystal_is_one_without_symmetry():
    """A sheet has no group that is searched for: as new as P1 with its atoms."""
    sheet = Structure(Lattice.tetragonal(3, 1e5), ["K", "Br"], [[0, 0, 0], [0.5, 0.5, 0]])
    assert description_table([sheet])["gene"].isna().all()
    assert levels([sheet])[0] == ["new_gene"]
    p1 = Structure(Lattice.from_parameters(3, 4, 5, 80, 95, 110), ["Li", "O"], [[0, 0, 0], [0.4, 0.3, 0.6]])
    assert levels([sheet], Reference.from_structures([p1]))[0] == ["known_gene"]


def test_needles_are_not_searched_for_ever():
    needles = _parameters(np.array([np.diag([1, 1, 400.0])]))
    with pytest.raises(ValueError, match="too flat or too thin"):
        _Near(np.diag([1, 1, 400.0]), needles, MatchSettings())


def test_what_cannot_be_compared_is_named():
    seven = Structure.from_spacegroup(
        1, Lattice.cubic(6), list("HBCNOFS"), np.random.default_rng(0).random((7, 3))
    )
    found, templates = levels([seven], Reference.from_structures([seven.copy().replace_species({"S": "P"})]))
    assert found == ["known_gene"]
    assert "exchanged in 5040 ways" in templates.failures[0]


def test_resampled_crystals_are_duplicates_and_exchanged_ions_substitutions():
    """What needs no generator is at the levels that need no generator."""
    reference = Reference.from_structures(zoo())
    resampled = draw_baseline("reference resampled", reference, 6).structures
    assert Counter(levels(resampled, reference)[0]) == {"duplicate": 6}
    exchanged = Counter(levels(draw_baseline("ion substitution", reference, 12).structures, reference)[0])
    assert exchanged["substitution"] > 6
    assert exchanged["substitution"] + exchanged["duplicate"] == 12


def test_names_are_given_by_amount():
    cell = anonymous_cell(perovskite())
    assert Counter(site.specie.symbol for site in cell) == {"H": 3, "Li": 1, "Be": 1}
    assert LEVELS == ("duplicate", "substitution", "known_gene", "new_gene")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.1, 0.3]), st.sampled_from([1.0, 3.0]))
def test_lattices_are_near_where_the_matcher_finds_cells(seed, strain, elongation):
    """The same answer as pymatgen's search of mappings, at equal volume."""
    rng = np.random.default_rng(seed)
    own = np.diag([1, 1, elongation]) + 0.2 * rng.normal(size=(3, 3))
    shear = np.array([[1, 0, 0], [int(rng.integers(-1, 2)), 1, 0], [0, int(rng.integers(-1, 2)), 1]])
    other = shear @ own @ (np.eye(3) + strain * rng.normal(size=(3, 3)))
    one, two = (Lattice(m).get_niggli_reduced_lattice() for m in (own, other))
    one, two = one.scale(1), two.scale(1)
    match = MatchSettings()
    mappings = one.find_all_mappings(two, match.ltol, match.angle_tol, skip_rotation_matrix=True)
    expected = any(np.isclose(abs(np.linalg.det(whole)), 1) for _, _, whole in mappings)
    given_parameters = _parameters(np.array([two.matrix]))
    assert _Near(np.array(one.matrix), given_parameters, match)(given_parameters[0]) == expected
