import pytest

import autoperi
from autoperi.discovery.candidates import TWINS, CellRequest, Proposals, reduced
from autoperi.discovery.ranker import load
from autoperi.discovery.templates import arranged, gene_with_species, reduced_amounts
from autoperi.generator import CrystalGenerator
from evaluation.metrics.reconstruction import CDVAE_MATCH

INDATE = {56: 1, 49: 1, 8: 3}
"""BaInO3, which is no training crystal."""
IODIDE = {13: 1, 53: 3}
"""AlI3; chlorides and iodides of one gene differ in geometry."""
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
    matcher = TWINS.matcher()
    assert not any(matcher.fit(a, b) for k, a in enumerate(structures) for b in structures[:k])
    assert all(reduced_amounts(one.crystal) == INDATE for one in found)
    assert any(one.crystal.gene == "221:abc" for one in found[:2])
    chances = [one.facts.chance for one in found if not one.facts.drawn]
    assert chances == sorted(chances, reverse=True)
    for one in found:
        assert one.facts.support >= one.facts.chance
        assert one.facts.atoms == one.crystal.n_atoms
        assert one.crystal.provenance["start"] in ("template", "relative", "rearranged", "noise")


def test_a_likely_gene_may_have_a_second_geometry(proposals):
    """From another template; it matches no other candidate even loosely, where first geometries may."""
    found = proposals.of(IODIDE, 12)
    names = [
        gene_with_species(c.space_group, c.wyckoff, c.species.tolist()) for c in (f.crystal for f in found)
    ]
    twice = {name for name in names if names.count(name) > 1}
    assert twice
    matcher = CDVAE_MATCH.matcher()
    for name in twice:
        first, second = (one for one, own in zip(found, names, strict=True) if own == name)
        assert second.facts.chance == pytest.approx(0.15 * first.facts.chance)
        assert second.crystal.provenance["relative"] != first.crystal.provenance["relative"]
        before = [one.crystal.to_structure() for one in found[: found.index(second)]]
        assert not any(matcher.fit(second.crystal.to_structure(), other) for other in before)


def test_crystals_alike_but_no_twins_are_both_kept(proposals):
    """The likelier one has the votes of both."""
    found = proposals.of(IODIDE, 20)
    matcher = CDVAE_MATCH.matcher()
    structures = [reduced(one.crystal.to_structure()) for one in found]
    pairs = [
        (a, b)
        for b, later in enumerate(structures)
        for a, other in enumerate(structures[:b])
        if len(later) == len(other) and matcher.fit(later, other, skip_structure_reduction=True)
    ]
    assert pairs
    for likelier, other in pairs:
        assert found[likelier].facts.support >= sum(found[k].facts.chance for k in (likelier, other)) * 0.999
    last = {b for _, b in pairs} - {a for a, _ in pairs}
    assert last
    assert any(found[k].facts.support == found[k].facts.chance for k in last)


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
