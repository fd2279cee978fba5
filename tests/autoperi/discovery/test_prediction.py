from dataclasses import replace

import pytest

import autoperi
from autoperi.discovery import prediction
from autoperi.discovery.candidates import Candidate
from autoperi.discovery.prediction import candidate_table, predict, ranked
from autoperi.discovery.ranker import Facts, load
from tests.autoperi.small import small_crystal

FACTS = Facts(0.5, 0.7, 0.1, known=False, drawn=False, atoms=5, nearest=0.1)


@pytest.fixture(scope="module")
def generator():
    """The shipped one."""
    return autoperi.load()


def test_ranked_relaxed_and_told(generator):
    """Probabilities descend, energies are above the lowest, names and ranks follow; the table has it all."""
    told = []
    (found,) = predict(generator, ["BaInO3"], 3, progress=lambda *what: told.append(what))
    assert found.formula == "BaInO3"
    assert not found.problem
    assert told[0] == ("candidates", 1, 1)
    assert told[1:] == [("relaxed", 1, 3)] * 3
    rows = [crystal.properties for crystal in found.crystals]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    chances = [row["probability"] for row in rows]
    assert chances == sorted(chances, reverse=True)
    assert min(row["energy_above_best"] for row in rows) == 0
    assert 221 in {crystal.space_group for crystal in found.crystals}
    assert not any("known" in crystal.provenance for crystal in found.crystals)
    assert found.crystals[0].id == "BaInO3_01"
    table = candidate_table([found])
    assert table["formula"].tolist() == ["BaInO3"] * len(rows)
    assert table["energy"].notna().all()
    assert table["problem"].isna().all()


def test_known_crystals_of_a_formula_come_first(generator):
    """By their names in training, without a probability; in a benchmark they have no precedence."""
    (found,) = predict(generator, ["TiO2"], 10, relax=False)
    table = candidate_table([found])
    known = table["known"].notna()
    assert 3 <= known.sum() < 10
    assert known.tolist() == sorted(known, reverse=True)
    assert (table["known"] == table["relative"])[known].all()
    assert table["probability"].isna().tolist() == known.tolist()
    assert {136, 60, 87} <= set(table["space_group"][known])
    (other,) = predict(generator, ["TiO2"], 10, relax=False, known_first=False)
    chances = [crystal.properties["probability"] for crystal in other.crystals]
    assert chances == sorted(chances, reverse=True)
    assert "known" not in other.crystals[0].provenance


def test_known_crystals_are_ordered_by_energy():
    """The lowest first; what could not be relaxed comes last of them."""
    crystals = [small_crystal(group, 0) for group in (62, 141, 225, 194)]
    known = replace(FACTS, known=True)
    facts = [replace(known, above=0.1), replace(known, above=0.0), known, replace(FACTS, above=0.05)]
    candidates = [Candidate(c, f) for c, f in zip(crystals, facts, strict=True)]
    assert [c.space_group for c in ranked("X", candidates, load())] == [141, 62, 225, 194]


def test_what_was_reduced_is_said(generator):
    """A formula says proportions: C60 is carbon."""
    carbon, salt = predict(generator, ["C60", "ClNa"], 1, relax=False)
    assert (carbon.formula, carbon.asked, carbon.reduced) == ("C", "C60", True)
    assert (salt.formula, salt.asked, salt.reduced) == ("NaCl", "ClNa", False)


def test_what_cannot_be_relaxed_stays_without_energy(generator, monkeypatch):
    """And says why."""

    def relax_all(samples, *_):
        return ({"number": k, "error": "out of time"} for k in range(len(samples)))

    monkeypatch.setattr(prediction, "relax_all", relax_all)
    (found,) = predict(generator, ["BaInO3"], 2)
    assert [crystal.provenance["problem"] for crystal in found.crystals] == ["out of time"] * 2
    assert all("energy" not in crystal.properties for crystal in found.crystals)


def test_a_formula_without_candidates_has_a_problem(generator):
    """The others are predicted."""
    cell = prediction.CellRequest(space_group=225)
    salt, other = predict(generator, ["NaCl", "Gd3Li2Br7"], 2, cell=cell, relax=False)
    assert salt.crystals
    assert not other.crystals
    assert other.problem


def test_one_crystal_is_told_once():
    """Two candidates that have relaxed into one crystal: the likelier stays."""
    crystal = small_crystal(62, 0)
    twin = replace(crystal, free=crystal.free + 1e-4 * (crystal.free > 0))
    other = small_crystal(141, 0)
    likely = replace(FACTS, chance=0.9, support=0.9, above=0.0)
    facts = [replace(FACTS, above=0.0005), likely, replace(FACTS, above=0.2)]
    candidates = [Candidate(c, f) for c, f in zip((twin, crystal, other), facts, strict=True)]
    names = [c.space_group for c in ranked("X", candidates, load())]
    assert sorted(names) == [62, 141]


def test_damaged_parts_are_named(generator, tmp_path):
    """They can be deleted."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "000000.json").write_text("{")
    with pytest.raises(ValueError, match=r"000000\.json is damaged: delete it"):
        predict(generator, ["BaInO3"], 2, relax=False, folder=tmp_path)
    with pytest.raises(ValueError, match="at least one candidate"):
        predict(generator, ["BaInO3"], 0)
