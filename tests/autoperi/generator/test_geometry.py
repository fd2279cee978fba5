"""Several tries of a gene: what they begin from, which is kept, and that the first is what one would be."""

from dataclasses import replace

import numpy as np
import pytest

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.symmetry import symmetrise
from autoperi.flow.relatives import Relatives
from autoperi.flow.settings import FlowSettings, Restart, Solver, StartSettings
from autoperi.generator.geometry import drawn_geometry, silent
from autoperi.generator.settings import SampleConfig
from tests.autoperi.small import tiny_model
from tests.prototypes import prototype

QUICK = FlowSettings(Solver(steps=2), Restart(rounds=0, steps=2), corrections=0)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def salts() -> list[Crystal]:
    """Of one pattern and nothing to choose but the cell."""
    salt = symmetrise(prototype("NaCl"))
    swaps = {"NaCl": (11, 17), "KCl": (19, 17), "RbI": (37, 53)}
    return [
        replace(salt, species=np.where(salt.species == 11, cation, anion), id=name)
        for name, (cation, anion) in swaps.items()
    ]


def draw(model, salts, config, descent=None, start_time=0.95):
    """The last of the salts, whose relatives are the others."""
    relatives, targets = Relatives.from_crystals(salts[:2]), model.velocity.conditions.targets([{}])
    genes, keys = salts[2:], [(0,)]
    (drawn,) = drawn_geometry(
        model, relatives, start_time, genes, keys, 0, targets, config, silent, None, descent
    )
    return drawn


def test_the_lowest_try_is_kept_and_says_which_it_was(model, salts):
    """Nearest relative, second one, then noise; here the later, the lower."""
    seen: list[Crystal] = []

    def descent(crystals):
        seen.extend(crystals)
        order = {"NaCl": -1.0, "KCl": -2.0}
        return [(c, order.get(str(c.provenance.get("relative")), -3.0)) for c in crystals]

    best = draw(model, salts, SampleConfig(flow=QUICK, tries=3), descent)
    assert [c.provenance.get("relative") for c in seen] in ([None, "KCl", "NaCl"], [None, "NaCl", "KCl"])
    assert best.provenance["start"] == "noise"
    assert (best.provenance["try"], best.provenance["tries"], best.provenance["energy"]) == (3, 3, -3.0)
    assert best.formula == "RbI"


def test_the_first_of_equals_is_what_a_single_try_would_be(model, salts):
    one = draw(model, salts, SampleConfig(flow=QUICK))
    equal = draw(model, salts, SampleConfig(flow=QUICK, tries=4), lambda cs: [(c, 0.0) for c in cs])
    assert equal.provenance["try"] == 1
    np.testing.assert_allclose(equal.lattice_coords, one.lattice_coords, atol=1e-5)


def test_a_gene_that_no_potential_knows_keeps_its_first_try(model, salts):
    config = SampleConfig(flow=QUICK, tries=2)
    kept = draw(model, salts, config, lambda crystals: [(c, float("inf")) for c in crystals])
    assert kept.provenance["try"] == 1
    assert "energy" not in kept.provenance


def test_tries_without_an_energy_are_refused(model, salts):
    with pytest.raises(ValueError, match=r"expected an energy by which one of 2 tries.*shipped_descent"):
        draw(model, salts, SampleConfig(tries=2))
    with pytest.raises(ValueError, match="expected 1 to 64 tries: got 0"):
        SampleConfig(tries=0)


def test_how_far_relatives_are_kept_is_the_checkpoints_choice_unless_said(model, salts):
    """What is asked for goes first."""
    usual = SampleConfig(flow=QUICK)
    said = replace(usual, flow=replace(QUICK, start=StartSettings(time=0.8)))
    assert draw(model, salts, usual, start_time=0.8) == draw(model, salts, said)
    assert draw(model, salts, usual, start_time=0.8) != draw(model, salts, usual)
