"""Two potentials judge the same crystals: energies of each, and where they do not agree."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from autoperi.data.element_references import ElementReferences
from autoperi.data.reading import Sample
from evaluation import EvaluationSettings, evaluate
from evaluation.facts.reference import Reference
from evaluation.relaxation.chgnet import chgnet
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.relaxation.settings import RelaxationSettings
from evaluation.report.stability import disagreements
from evaluation.stability.hull_choice import HullChoice
from evaluation.stability.stability import StabilitySettings, judged
from tests.evaluation.crystals import rocksalt

SHIFT = 0.2


def strict_references():
    """CHGNet's, by which all compounds of sodium and chlorine lie higher."""
    known = ElementReferences.load()
    return replace(known, energies={element: energy - SHIFT for element, energy in known.energies.items()})


STRICT = BatchRelaxer("Strict CHGNet", "chgnet", chgnet, strict_references)


@pytest.fixture
def settings(tmp_path):
    table = pd.DataFrame({"composition": ["NaCl"], "formation_energy_per_atom": [-2.1]})
    table.to_csv(tmp_path / "hull.csv", index=False)
    relaxation = RelaxationSettings(fmax=0.05, max_steps=60)
    return StabilitySettings(relaxation, hull=HullChoice.of(str(tmp_path / "hull.csv")), others=(STRICT,))


def salts():
    far = rocksalt(a=40.0)
    return [Sample("small", rocksalt(a=5.4)), Sample("far", far), Sample("large", rocksalt(a=5.9))]


def test_the_second_goes_on_where_the_first_ended(settings, tmp_path):
    table = judged(salts(), settings, journal=tmp_path / "journal.jsonl")
    assert list(table.index) == ["small", "far", "large"]
    first, second = table["e_above_hull"], table["e_above_hull_strict_chgnet"]
    assert (second - first)[["small", "large"]].to_numpy() == pytest.approx(SHIFT, abs=2e-3)
    assert table.loc["small", "steps"] > 0
    assert table.loc["small", "steps_strict_chgnet"] == 0  # the same potential finds itself at rest
    assert "without a neighbour" in table.loc["far", "error_strict_chgnet"]
    assert np.isnan(second["far"])
    lines = (tmp_path / "journal.jsonl").read_text().count("\n")
    pd.testing.assert_frame_equal(judged(salts(), settings, journal=tmp_path / "journal.jsonl"), table)
    assert (tmp_path / "journal.jsonl").read_text().count("\n") == lines


def test_a_report_has_both_and_their_agreement(settings, tmp_path):
    reference = Reference.from_structures([rocksalt("Mg", "O", 4.2)], "magnesia")
    report = evaluate(
        [sample.structure for sample in salts()],
        reference,
        settings=EvaluationSettings(stability=settings),
    )
    metrics = report.metrics
    assert metrics["stable_wyformer"].value == pytest.approx(2 / 3)
    assert metrics["stable_wyformer_strict_chgnet"].value == 0
    assert "Strict CHGNet from where CHGNet 0.3.0 ended" in metrics["sun_strict_strict_chgnet"].protocol
    assert metrics["potentials_agree_strict_chgnet"].value == 0
    assert metrics["potentials_agree_strict_chgnet"].n == 2
    difference = metrics["median_e_above_hull_strict_chgnet"].value - metrics["median_e_above_hull"].value
    assert difference == pytest.approx(SHIFT, abs=2e-3)
    report.save_tables(tmp_path / "report")
    told = json.loads((tmp_path / "report" / "metrics.json").read_text())["settings"]["stability"]
    assert [told["relaxer"], *told["others"]] == ["CHGNet 0.3.0", "Strict CHGNet"]
    apart = pd.read_csv(tmp_path / "report" / "disagreements.csv")
    assert list(apart["e_above_hull_strict_chgnet"] > 0.08) == [True, True]


def test_disagreements_are_those_that_one_calls_stable_and_another_does_not():
    table = pd.DataFrame(
        {
            "id": list("abcde"),
            "formula": "X",
            "e_above_hull": [0.0, 0.02, 0.2, 0.07, np.nan],
            "e_above_hull_other": [0.01, 0.3, 0.3, 0.09, 0.0],
        }
    )
    assert list(disagreements(table, "wyformer")["id"]) == ["b", "d"]
    assert disagreements(table.drop(columns="e_above_hull_other"), "wyformer").empty
