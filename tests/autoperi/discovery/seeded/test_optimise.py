from dataclasses import replace
from functools import partial
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from autoperi.crystals.symmetry import symmetrise
from autoperi.discovery.seeded import (
    Goal,
    Means,
    foretold_by,
    likeliest,
    optimised,
    walk_picture,
    walk_table,
)
from autoperi.generator import load
from tests.prototypes import prototype

RUTILE = replace(symmetrise(prototype("TiO2 rutile")), id="rutile")
GOAL = Goal.of("number", 30.0)
"""Of the property below, for which rutile has 30: 22 + 8."""


def predicted(crystals, goal=GOAL):
    """The sum of the atomic numbers of the sites, known to 1; nothing is known of fluorides."""
    told = []
    for c in crystals:
        number = float(c.species.sum())
        chance = NormalDist(number, 1.0)
        values = {
            "": number,
            "_uncertainty": 1.0,
            "_chance": chance.cdf(goal.window().high) - chance.cdf(goal.window().low),
            "_out_of_domain": float(9 in c.species),
        }
        told.append(replace(c, properties={f"predicted_number{k}": v for k, v in values.items()}))
    return told


def as_is(crystals):
    """Nothing is relaxed or led."""
    return [(crystal, 0.0) for crystal in crystals]


def exchanged(crystal, elements):
    """Elements by others in the same cell."""
    return replace(crystal, species=np.array([elements.get(z, z) for z in crystal.species.tolist()]))


def led(goal, exchange=exchanged, lead=as_is):
    """From rutile, by the sum of atomic numbers."""
    return optimised(RUTILE, goal, Means(partial(predicted, goal=goal), as_is, lead, exchange))


def test_a_goal_has_a_tenth_as_its_tolerance_and_the_chances_of_its_window():
    """Out of the domain there is none."""
    assert GOAL.tolerance == 3
    assert (GOAL.window().low, GOAL.window().high) == (27, 33)
    assert Goal.of("number", 0, 0.5).tolerance == 0.5
    (one,) = predicted([RUTILE])
    assert GOAL.chance(one) == pytest.approx(0.9973, abs=1e-4)
    (one,) = predicted([replace(RUTILE, species=np.array([21, 9]))])
    assert GOAL.miss(one) == 0
    assert not GOAL.reached(one)
    assert GOAL.chance(one) == 0


@pytest.mark.parametrize(("value", "tolerance"), [(0, None), (np.nan, 1), (1, 0), (1, -1), (1, np.inf)])
def test_a_goal_without_a_tolerance_is_refused(value, tolerance):
    """With what was given."""
    with pytest.raises(ValueError, match="a tolerance above 0"):
        Goal.of("number", value, tolerance)


def test_what_is_there_already_is_not_exchanged():
    """One crystal, its elements kept."""
    (only,) = led(GOAL)
    assert (only.formula, only.provenance["exchanged"], only.properties["reached"]) == ("TiO2", "", 1)
    assert only.provenance["led"] == "rutile"


def test_without_substitutions_the_crystal_alone_is_led():
    """By its geometry, from where it is."""
    wide = replace(RUTILE, lattice_coords=RUTILE.lattice_coords + np.eye(6)[5] * 0.01)
    (only,) = led(Goal.of("number", 60), None, lambda _: [(wide, 0.0)])
    assert only.properties["reached"] == 0
    assert np.array_equal(only.lattice_coords, wide.lattice_coords)


def test_exchange_leads_to_the_goal_and_keeps_gene_and_pattern():
    """The likeliest first; each once; elements of the crystal do not meet."""
    goal = Goal.of("number", 60, 2.0)
    found = led(goal)
    assert found[0].properties["reached"] == 1
    assert goal.miss(found[0]) == 0
    ranks = [goal.rank(c) for c in found]
    assert ranks == sorted(ranks)
    assert {c.gene for c in found} == {RUTILE.gene}
    names = [tuple(c.species.tolist()) for c in found]
    assert len(set(names)) == len(names)
    assert all(len(set(name)) == 2 for name in names)
    assert [c.id for c in found] == [f"{k:03d}" for k in range(len(found))]
    table = walk_table(found)
    assert table["round"].max() == 1
    assert table["exchanged"].iloc[0] != ""


def test_what_the_critic_thinks_unlikely_comes_later():
    """Here it knows of nothing but oxides."""
    goal = Goal.of("number", 60, 2.0)

    def foretell(crystals):
        return [0.9 if 8 in c.species else 0.01 for c in crystals]

    means = Means(partial(predicted, goal=goal), as_is, as_is, exchanged, foretell)
    first = optimised(RUTILE, goal, means)[0]
    assert first.properties["foretold"] == 0.9
    assert 8 in first.species
    assert 8 not in led(goal)[0].species


def test_the_critic_of_the_generator_foretells_gaps():
    """Rock salt has a wide one, copper none; of moduli it knows nothing."""
    generator = load("mp_20")
    salt, metal = (symmetrise(prototype(name)) for name in ("NaCl", "Cu fcc"))
    foretell = foretold_by(generator, Goal.of("band_gap", 5.0, 1.0))
    wide, none = foretell([salt, metal])
    assert wide > 0.5
    assert none < 0.01
    assert foretold_by(generator, Goal.of("bulk_modulus", 100.0)) is None


def test_a_second_round_goes_on_from_the_first():
    """A goal that no single exchange of this kind reaches: two steps are told."""
    goal = Goal.of("number", 150.0, 2.0)
    found = led(goal)
    assert found[0].properties["reached"] == 1
    assert found[0].provenance["round"] == 2
    assert ";" in found[0].provenance["exchanged"]


def test_what_has_another_gene_is_not_delivered():
    """Here nothing has the gene of the crystal any more."""
    cubic = symmetrise(prototype("CaF2 fluorite"))
    with pytest.raises(ValueError, match="nothing on the way from TiO2 has its gene, 136:af"):
        led(Goal.of("number", 60), None, lambda crystals: [(cubic, 0.0) for _ in crystals])


def test_of_a_scan_the_likeliest_row_at_the_goal():
    """Not one that is out of the domain, nor one beside the goal."""
    scan = pd.DataFrame(
        {
            "substitution": list("abcd"),
            "number": [30.0, 31.0, 30.5, 50.0],
            "number_uncertainty": [2.0, 1.0, 0.1, 0.1],
            "number_chance": [0.8, 0.9, 1.0, 0.0],
            "number_out_of_domain": pd.array([False, False, True, None], dtype="boolean"),
        }
    )
    assert likeliest(scan, GOAL) == (1, 0.9)
    assert likeliest(scan, Goal.of("number", 100)) is None
    figure = walk_picture(walk_table(led(GOAL)), scan, GOAL)
    assert len(figure.axes) == 1
