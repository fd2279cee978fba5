import pytest

import autoperi
from autoperi.discovery.candidates import CellRequest, Proposals
from autoperi.discovery.ranker import load
from autoperi.discovery.templates import arranged, reduced_amounts
from autoperi.generator import CrystalGenerator
from evaluation.metrics.reconstruction import CDVAE_MATCH

INDATE = {56: 1, 49: 1, 8: 3}
"""BaInO3, which is no training crystal."""
STRANGE = {64: 7, 3: 2, 35: 11}
"""No training crystal is of its kind."""


@pytest.fixture(scope="module")
def proposals() -> Proposals:
    """Of the shipped weights."""
    return Proposals(autoperi.load(), load())


def test_candidates_are_distinct_crystals_of_the_formula(proposals):
    """As many as asked for, no two of which match; the perovskite is among the first."""
    found = proposals.of(INDATE, 6)
    assert len(found) == 6
    structures = [one.crystal.to_structure() for one in found]
    matcher = CDVAE_MATCH.matcher()
    assert not any(matcher.fit(a, b) for k, a in enumerate(structures) for b in structures[:k])
    assert all(reduced_amounts(one.crystal) == INDATE for one in found)
    assert any(one.crystal.gene == "221:abc" for one in found[:2])
    chances = [one.facts.chance for one in found if not one.facts.drawn]
    assert chances == sorted(chances, reverse=True)
    for one in found:
        assert one.facts.support >= one.facts.chance
        assert one.facts.atoms == one.crystal.n_atoms
        assert one.crystal.provenance["start"] in ("template", "relative", "rearranged", "noise")


def test_atoms_and_group_are_kept(proposals):
    """Templates and draws of the prior alike."""
    found = proposals.of(INDATE, 4, cell=CellRequest(atoms=10, space_group=194))
    assert found
    assert {(one.crystal.n_atoms, one.crystal.space_group) for one in found} == {(10, 194)}


def test_what_has_no_template_is_drawn_by_the_prior(proposals):
    """The same from one seed; impossible cells are refused with the reason."""
    assert arranged(STRANGE)[0] not in proposals.templates.ratios()
    found = proposals.of(STRANGE, 3, seed=1)
    assert found
    assert all(one.facts.drawn for one in found)
    assert all(reduced_amounts(one.crystal) == STRANGE for one in found)
    again = proposals.of(STRANGE, 3, seed=1)
    assert [one.crystal for one in again] == [one.crystal for one in found]
    with pytest.raises(ValueError, match="no combination of orbits of space group 230"):
        proposals.of(STRANGE, 3, cell=CellRequest(space_group=230))


def test_a_checkpoint_without_training_crystals_is_refused():
    """It has nothing to take templates from."""
    generator = autoperi.load()
    bare = CrystalGenerator(generator.config)
    with pytest.raises(ValueError, match="carries no geometry of training crystals"):
        Proposals(bare, load())
