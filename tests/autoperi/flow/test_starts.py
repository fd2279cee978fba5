from dataclasses import replace
from inspect import unwrap
from math import nan

import numpy as np
import pytest
import torch

from autoperi.crystals.symmetry import symmetrise
from autoperi.flow.relatives import Relatives
from autoperi.flow.settings import StartSettings
from autoperi.flow.starts import NOISE, starts
from tests.prototypes import prototype


@pytest.fixture(scope="module")
def rock_salt():
    return replace(symmetrise(prototype("NaCl")), id="NaCl")


@pytest.fixture(scope="module")
def relatives(rock_salt):
    return Relatives.from_crystals([rock_salt])


def test_auto_takes_a_relative_where_there_is_one(rock_salt, relatives):
    """And says in the provenance which; the others begin from noise."""
    fluorite = symmetrise(prototype("CaF2 fluorite"))
    begun = starts([fluorite, rock_salt], relatives, "auto", 0.95)
    assert [begin.time for begin in begun.begins] == [0.0, 0.95]
    assert begun.genes[0].provenance["start"] == "noise"
    told = begun.genes[1].provenance
    assert (told["start"], told["relative"], told["distance"]) == ("relative", "NaCl", 0.0)
    np.testing.assert_array_equal(begun.genes[0].lattice_coords, fluorite.lattice_coords)


def test_auto_takes_elements_ordered_otherwise_where_there_is_no_relative():
    """Noised farther; who asks for relatives gets no such thing."""
    known = replace(symmetrise(prototype("SrTiO3 perovskite")), id="SrTiO3")
    asked = replace(known, species=np.where(known.species == 22, 38, known.species))  # Sr on both sites
    relatives = Relatives.from_crystals([known])
    begun = starts([asked], relatives, "auto", 0.8)
    assert [begin.time for begin in begun.begins] == [pytest.approx(0.4096)]
    told = begun.genes[0].provenance
    assert (told["start"], told["relative"]) == ("rearranged", "SrTiO3")
    assert begun.genes[0].species.tolist() == asked.species.tolist()
    np.testing.assert_allclose(begun.genes[0].free, known.free, atol=1e-4)
    with pytest.raises(ValueError, match="is a relative of Sr2O3 with gene 221:abc"):
        starts([asked], relatives, "relative", 0.8)


@pytest.mark.parametrize(("kind", "known"), [("noise", True), ("auto", False)])
def test_noise_where_asked_or_nothing_else_is_there(rock_salt, relatives, kind, known):
    """A checkpoint without relatives, or one that is told to leave them."""
    begun = starts([rock_salt], relatives if known else None, kind, 0.95)
    assert begun.begins == [NOISE]


def test_unknown_species_begin_from_noise(rock_salt, relatives):
    """Who has no elements has no relatives."""
    open_gene = replace(rock_salt, species=np.array([0, 11]))
    assert starts([open_gene], relatives, "auto", 0.95).begins == [NOISE]


def test_relatives_that_are_not_there_are_refused(rock_salt, relatives):
    """Asked for one, nothing else is delivered."""
    with pytest.raises(ValueError, match="carries no relatives"):
        starts([rock_salt], None, "relative", 0.95)
    genes = [symmetrise(prototype("CaF2 fluorite")), rock_salt, symmetrise(prototype("CsCl"))]
    both = "no training crystal is a relative of CaF2 with gene 225:ac, CsCl with gene 221:ab: use"
    with pytest.raises(ValueError, match=both):
        starts(genes, relatives, "relative", 0.95)


@pytest.mark.parametrize("wrong", [{"kind": "elsewhere"}, {"time": 0.0}, {"time": 1.0}, {"time": nan}])
def test_settings_are_refused(wrong):
    """With what was expected."""
    begin = unwrap(StartSettings.__init__)  # without the checker of annotations
    with pytest.raises(ValueError, match="expected a start"):
        begin(object.__new__(StartSettings), **wrong)


def test_a_relative_is_nearly_kept(rock_salt, relatives):
    """Symmetry exactly; geometry as far as the flow lets it."""
    from tests.autoperi.small import tiny_model

    model = tiny_model(torch.float64)
    begun = starts([rock_salt], relatives, "auto", 0.999)
    drawn = model.draw(begun.genes, 0, begins=begun.begins)[0]
    assert drawn.space_group == rock_salt.space_group
    assert drawn.wyckoff.tolist() == rock_salt.wyckoff.tolist()
    again = model.draw(begun.genes, 0, begins=begun.begins)[0]
    assert np.array_equal(drawn.lattice_coords, again.lattice_coords)
    far = model.draw(begun.genes, 0)[0]
    assert not np.array_equal(far.lattice_coords, drawn.lattice_coords)
