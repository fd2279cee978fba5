"""Relaxations inside a benchmark: what the table and the page say of them, and what a kill costs."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

import evaluation.report.benchmark as module
from evaluation import EvaluationSettings, Reference
from evaluation.metric import BootstrapSettings
from evaluation.options import Options
from evaluation.relaxation import batch
from evaluation.relaxation.journal import read_journal
from evaluation.relaxation.relaxation import RelaxationSettings
from evaluation.report.benchmark import BenchmarkSettings, benchmark
from evaluation.stability.hull_choice import HullChoice
from evaluation.stability.stability import StabilitySettings
from tests.evaluation.crystals import diamond, rocksalt, wurtzite, zoo


def salts():
    return [rocksalt(a=a).get_primitive_structure() for a in (5.6, 5.64, 5.7)]


def others():
    lonely = Structure(Lattice.cubic(40), ["Na"], [[0, 0, 0]])
    return [diamond().get_primitive_structure(), lonely, wurtzite(), rocksalt("Mg", "O", 4.21)]


@pytest.fixture(scope="module")
def reference():
    return Reference.from_structures(zoo())


@pytest.fixture(scope="module")
def hull(tmp_path_factory):
    path = tmp_path_factory.mktemp("hull") / "phases.csv"
    table = pd.DataFrame({"composition": ["NaCl", "MgO", "ZnO"]})
    table.assign(formation_energy_per_atom=[-2.1, -3.0, -1.8]).to_csv(path, index=False)
    return path


@pytest.fixture
def settings(hull):
    relaxation = StabilitySettings(
        RelaxationSettings(max_steps=2), batch_sites=1, hull=HullChoice.of(str(hull))
    )
    return BenchmarkSettings(EvaluationSettings(bootstrap=BootstrapSettings(20, 5), stability=relaxation))


@pytest.fixture
def relaxed(monkeypatch):
    """Formulas of the crystals whose relaxation was finished, and a bomb to go off after so many."""
    names, state = [], {"bomb": None}
    real = batch.relax_together

    def watched(crystals, *rest):
        formula = {}

        def seen():
            for number, structure in crystals:
                formula[number] = structure.composition.reduced_formula
                yield number, structure

        for number, outcome in real(seen(), *rest):
            if len(names) == state["bomb"]:
                state["bomb"] = None
                raise KeyboardInterrupt
            names.append(formula[number])
            yield number, outcome

    monkeypatch.setattr(batch, "relax_together", watched)
    return names, state


@pytest.fixture
def judged(monkeypatch):
    """How many crystals each set had that was really judged."""
    sizes = []
    real = module.evaluate

    def evaluate(read, *arguments, **more):
        sizes.append(len(read.samples))
        return real(read, *arguments, **more)

    monkeypatch.setattr(module, "evaluate", evaluate)
    return sizes


def test_a_run_killed_among_the_relaxations_of_the_second_model_repeats_none(
    reference, settings, relaxed, judged, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "all_figures", lambda *_: {})
    names, state = relaxed
    models = {"salts": salts(), "others": others()}
    state["bomb"] = 5
    with pytest.raises(KeyboardInterrupt):
        benchmark(models, tmp_path, reference, settings=settings)
    assert names == ["NaCl"] * 3 + ["Si", "Na"]
    assert judged == [3, 4]
    resumed = benchmark(models, tmp_path, reference, settings=settings)
    assert names == ["NaCl"] * 3 + ["Si", "Na", "ZnO", "MgO"]
    assert judged == [3, 4, 4]
    again = benchmark(models, tmp_path, reference, settings=settings)
    assert len(names) == 7
    assert judged == [3, 4, 4]
    assert again.markdown() == resumed.markdown()
    other = replace(settings.evaluation.stability, hull=HullChoice.of(str(tmp_path / "comparison.csv")))
    hulls = replace(settings, evaluation=replace(settings.evaluation, stability=other))
    with pytest.raises(ValueError, match="no column"):  # another hull is another figure
        benchmark({"salts": salts()}, tmp_path, reference, settings=hulls)
    assert len(names) == 7


def test_table_and_page_name_relaxer_hull_threshold_and_reference(reference, settings, hull, tmp_path):
    models = {"salts": salts(), "others": others()}
    comparison = benchmark(models, tmp_path, reference, settings=settings)
    headings = [column.heading for column in comparison.columns()]
    for heading in ("stable ≤ 0.08", "S.U.N. ≤ 0.08", "S.S.U.N. ≤ 0.08", "M.S.U.N. ≤ 0.08"):
        assert heading in headings
    assert headings[-4:] == ["S.U.N. ≤ 0.1", "S.U.N. < 0", "median e_hull", "relaxed = raw"]
    row = next(row for row in comparison.rows if row.name == "others")
    assert row.metrics["stable_wyformer"].n == 4  # the lonely atom stays in the denominator
    assert row.metrics["median_e_above_hull"].n == 3
    text = comparison.markdown()
    line = next(line for line in text.splitlines() if line.startswith("- **S.U.N. ≤ 0.08**"))
    sha = HullChoice.of(str(hull)).sha256
    for part in ("CHGNet 0.3.0", "FIRE", f"phases.csv (SHA-256 {sha})", "<= 0.08 eV/atom", str(reference)):
        assert part in line
    page = (tmp_path / "report.html").read_text()
    assert "e_above_hull" in page
    assert (tmp_path / "e_above_hull.png").stat().st_size > 1000
    assert "://" not in page


def test_every_model_has_its_row_in_the_histogram_of_energies(reference):
    table = pd.DataFrame({"e_above_hull": [0.0, 0.1, None]})
    table = table.assign(density=3.0, volume_per_atom=15.0, n_elements=2, formula="Na1Cl1")
    table["space_group_loose"] = pd.array([225] * 3, dtype="Int16")
    tables = {"one": table, "two": table.assign(e_above_hull=None), "three": table}
    figure, _ = module.all_figures(tables, reference.table, {})["e_above_hull"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["one", "two", "three"]
    assert [text.get_text().strip() for text in figure.axes[1].get_legend().get_texts()] == [
        "one (n = 2)",
        "three (n = 2)",
    ]


def test_a_process_that_is_shot_loses_only_the_batch_it_held(hull, relaxed, tmp_path):
    """SIGKILL, as the memory watchdog sends it, in a run from the command line."""
    crystals = [rocksalt("Mg", "O", 4.21)] + [rocksalt("Mg", "O", 4.21) for _ in range(4)]
    for seed, crystal in enumerate(crystals[1:]):
        crystal.perturb(0.35, seed=seed)
    (tmp_path / "samples.json").write_text(json.dumps([c.as_dict() for c in crystals]))
    (tmp_path / "known.json").write_text(json.dumps([c.as_dict() for c in zoo()]))
    arguments = ["benchmark", f"ours={tmp_path / 'samples.json'}", "--out", str(tmp_path / "out")]
    arguments += ["--reference", str(tmp_path / "known.json"), "--stability", "--hull", str(hull)]
    arguments += ["--fmax", "0.5", "--keep-symmetry"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "autoperi.cli", *arguments], env=environment, stdout=log, stderr=log
        )
        journal = tmp_path / "out/models/ours/relaxations.jsonl"
        end = time.monotonic() + 300
        while not read_journal(journal) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.kill()
        process.wait()
    finished = len(read_journal(journal))
    assert finished, (tmp_path / "log").read_text()
    assert finished < 5
    names, _ = relaxed
    options = EvaluationSettings.of(Options(stability=True, hull=str(hull), fmax=0.5, keep_symmetry=True))
    models = {"ours": tmp_path / "samples.json"}
    comparison = benchmark(
        models, tmp_path / "out", tmp_path / "known.json", settings=BenchmarkSettings(options)
    )
    assert len(names) == 5 - finished
    assert comparison.rows[0].metrics["median_e_above_hull"].n == 5
