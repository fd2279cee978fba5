"""Crystals that no one should make, and files of the real world, through the whole evaluation."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from autoperi.data.reading import ReadResult, as_read_result
from evaluation import EvaluationSettings, Reference, evaluate, read_structures
from evaluation.metric import BootstrapSettings
from evaluation.relaxation.relaxation import RelaxationSettings, relax_together
from evaluation.stability.hull_choice import HullChoice
from evaluation.stability.stability import StabilitySettings
from tests.evaluation.crystals import zoo

QUICK = EvaluationSettings(bootstrap=BootstrapSettings(resamples=5, resamples_distance=2))
NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)
ENTRIES = st.one_of(st.sampled_from([0.0, 1e-6, 0.3, 1.0, 3.0, 5.6, 60.0]), st.floats(-20, 20), NUMBERS)
COORDINATES = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 1 / 3, 1e-9, -7.0]), st.floats(-2, 2), NUMBERS)
UNSHRUNK = [Phase.explicit, Phase.generate]
CUBE = st.sampled_from([3.0, 5.6, 12.0]).map(lambda a: (np.eye(3) * a).tolist())
CELLS = st.one_of(CUBE, st.lists(st.lists(ENTRIES, min_size=3, max_size=3), min_size=3, max_size=3))
SITES = st.lists(
    st.tuples(st.integers(1, 118), st.tuples(COORDINATES, COORDINATES, COORDINATES)), min_size=1, max_size=5
)


@pytest.fixture(scope="module")
def reference():
    return Reference.from_structures(zoo())


def built(cell, sites):
    with np.errstate(all="ignore"):
        return Structure(Lattice(cell), [z for z, _ in sites], [list(x) for _, x in sites])


@settings(max_examples=20, deadline=None, phases=UNSHRUNK)
@given(st.lists(st.tuples(CELLS, SITES), min_size=1, max_size=3))
@pytest.mark.filterwarnings("ignore")
def test_any_structure_is_a_row_or_a_named_failure(reference, crystals):
    """Every share is of all items, the report is standard JSON, and NaCl beside them is judged as ever."""
    read = as_read_result([*(built(*crystal) for crystal in crystals), zoo()[0]])
    assert len(read.samples) + len(read.failures) == len(crystals) + 1
    assert all(failure.reason for failure in read.failures)
    report = evaluate(read, reference, settings=QUICK)
    assert len(report.per_structure) == len(read.samples)
    assert report.metrics["structural_validity"].n == len(crystals) + 1
    salt = report.per_structure.iloc[-1]
    assert salt["structural_valid"]
    assert salt["space_group_loose"] == 225
    json.dumps(report.as_dict(), default=str, allow_nan=False)


@settings(max_examples=8, deadline=None, phases=UNSHRUNK)
@given(CELLS, SITES)
@pytest.mark.filterwarnings("ignore")
def test_any_readable_structure_is_relaxed_or_says_why_not(cell, sites):
    read = as_read_result([built(cell, sites), zoo()[0].get_primitive_structure()])
    outcomes = dict(relax_together(enumerate(read.structures), RelaxationSettings(max_steps=1)))
    assert len(outcomes) == len(read.structures)
    assert all(outcome for outcome in outcomes.values())
    assert outcomes[len(outcomes) - 1].energy_per_atom == pytest.approx(-3.667, abs=0.05)


def test_a_corrupt_structure_in_the_middle_of_a_thousand_costs_one_row(reference, tmp_path):
    texts = [crystal.to(fmt="cif") for crystal in zoo()] * 167
    texts = texts[:1000]
    texts[500] = texts[500][: len(texts[500]) // 2]
    pd.DataFrame({"material_id": range(1000), "cif": texts}).to_csv(tmp_path / "samples.csv", index=False)
    read = read_structures(tmp_path / "samples.csv")
    assert [failure.id for failure in read.failures] == ["500"]
    assert [sample.id for sample in read.samples] == [str(k) for k in range(1000) if k != 500]
    some = ReadResult(read.samples[480:519], read.failures, "around the corrupt one")
    report = evaluate(some, reference, settings=QUICK)
    assert report.metrics["structural_validity"].n == 40
    assert report.metrics["structural_validity"].value == pytest.approx(39 / 40)


@pytest.mark.filterwarnings("ignore")
def test_a_crystal_that_cannot_be_relaxed_costs_one_row(reference, tmp_path):
    table = pd.DataFrame({"composition": ["NaCl"], "formation_energy_per_atom": [-2.1]})
    table.to_csv(tmp_path / "hull.csv", index=False)
    salt = zoo()[0].get_primitive_structure()
    bad = [Structure(Lattice.cubic(a), ["Na"], [[0, 0, 0]]) for a in (0.01, 40)]
    unknown = Structure(Lattice.cubic(4), ["Og"], [[0, 0, 0]])
    relaxation = RelaxationSettings(max_steps=1)
    stability = StabilitySettings(relaxation, hull=HullChoice.of(str(tmp_path / "hull.csv")))
    report = evaluate([salt, *bad, unknown, salt], reference, settings=replace(QUICK, stability=stability))
    table = report.per_structure
    assert [bool(text) for text in table["error"]] == [False, True, True, True, False]
    assert np.isfinite(table["e_above_hull"]).tolist() == [True, False, False, False, True]
    assert report.metrics["stable_wyformer"].value == pytest.approx(2 / 5)
    assert report.metrics["stable_wyformer"].n == 5


@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("file", "n"), [("obelix/all_cifs.tar.gz", 60), ("odac_mofs", 8), ("zeolites_iza", 8)]
)
def test_awkward_real_files_are_judged_to_the_end(file, n, reference, data_folder, tmp_path):
    path = data_folder / file
    if path.is_dir():
        path = min(path.glob("*.csv.gz"))
    read = read_structures(path, limit=n)
    report = evaluate(read, reference, settings=QUICK)
    assert len(report.per_structure) + len(report.failures) == n
    assert report.metrics["structural_validity"].n == n
    assert report.metrics["structural_validity"].value > 0.25
    assert report.per_structure["space_group_loose"].notna().all()
    assert (report.save(tmp_path / "out") / "report.html").stat().st_size > 10_000
