import sqlite3
import time
from contextlib import closing

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import evaluation.metrics.fingerprints as module
from autoperi.data.reading import Failure, ReadResult, as_read_result
from evaluation.facts.reference import Reference
from evaluation.metric import BootstrapSettings
from evaluation.metrics.coverage import CoverageSettings, Cutoffs, coverage_report, nearest_distances
from evaluation.metrics.fingerprints import CompositionScale, Fingerprints, FingerprintSettings, fingerprints
from tests.evaluation.crystals import disguised, perovskite, rocksalt, wurtzite, zoo

QUICK = BootstrapSettings(resamples=20, resamples_distance=5)


@pytest.fixture
def without_matminer(monkeypatch):
    """Fingerprints of known mathematics, so that what is around them is tested without matminer."""

    class Sites:
        def featurize(self, structure, index):
            if structure.symbol_set == ("Xe",):
                raise RuntimeError("no neighbours")
            return np.full(module.SITE_FEATURES, float(structure[index].specie.Z))

    class Magpie:
        def featurize(self, composition):
            return np.full(module.COMPOSITION_FEATURES, composition.average_electroneg)

    monkeypatch.setattr(module, "_featurizers", lambda: (Sites(), Magpie()))


@pytest.mark.usefixtures("without_matminer")
def test_mean_over_sites_counts_equivalent_ones(tmp_path):
    found = fingerprints([perovskite(), rocksalt()], FingerprintSettings(tmp_path))
    assert found.structure[:, 0] == pytest.approx([(38 + 22 + 3 * 8) / 5, (11 + 17) / 2])
    assert found.index.tolist() == [0, 1]


@pytest.mark.usefixtures("without_matminer")
def test_a_bad_crystal_is_named_and_the_rest_is_done_once(tmp_path, monkeypatch):
    xenon = Structure(Lattice.cubic(6), ["Xe"], [[0, 0, 0]])
    crystals = [rocksalt(), xenon, perovskite(), rocksalt()]
    first = fingerprints(crystals, FingerprintSettings(tmp_path))
    assert first.index.tolist() == [0, 2, 3]
    assert "no neighbours" in first.failures[1]
    monkeypatch.setattr(module, "_featurizers", lambda: pytest.fail("computed again"))
    again = fingerprints([perovskite(), rocksalt()], FingerprintSettings(tmp_path))
    assert np.array_equal(again.structure, first.structure[[1, 0]])


@pytest.mark.usefixtures("without_matminer")
def test_a_damaged_cache_heals(tmp_path):
    first = fingerprints([rocksalt(), perovskite()], FingerprintSettings(tmp_path))
    (file,) = tmp_path.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as cache:
        cache.execute("UPDATE fingerprint SET vector = x'00'")
        cache.commit()
    again = fingerprints([rocksalt(), perovskite()], FingerprintSettings(tmp_path))
    assert np.array_equal(again.structure, first.structure)
    for damaged in (b"not a database" * 100, file.read_bytes()[:5000]):
        file.write_bytes(damaged)
        with pytest.warns(UserWarning, match="is damaged"):
            again = fingerprints([rocksalt(), perovskite()], FingerprintSettings(tmp_path))
        assert np.array_equal(again.structure, first.structure)


@pytest.mark.usefixtures("without_matminer")
def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path):
    (tmp_path / "blocked").write_text("")
    with pytest.warns(UserWarning, match="set AUTOPERI_CACHE"):
        found = fingerprints([rocksalt()], FingerprintSettings(tmp_path / "blocked"))
    assert found.index.tolist() == [0]


@pytest.mark.usefixtures("without_matminer")
def test_a_crystal_that_takes_too_long_is_named(tmp_path, monkeypatch):
    def forever(_):
        while True:
            pass

    monkeypatch.setattr(module, "_site_average", forever)
    found = fingerprints([rocksalt()], FingerprintSettings(tmp_path, seconds=0.1))
    assert "TimeoutError" in found.failures[0]
    assert found.structure.shape == (0, module.SITE_FEATURES)


@pytest.mark.usefixtures("without_matminer")
def test_waiting_for_the_processor_costs_no_crystal(tmp_path, monkeypatch):
    """The limit is of processor time: a stopped process or a busy machine loses nothing."""
    usual = module._site_average

    def interrupted(structure):
        time.sleep(0.6)
        return usual(structure)

    monkeypatch.setattr(module, "_site_average", interrupted)
    assert not fingerprints([rocksalt()], FingerprintSettings(tmp_path, seconds=0.5)).failures


def test_missing_features_become_the_mean():
    features = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, 5.0]])
    scale = CompositionScale.fit(features, "test")
    assert np.allclose(scale.apply(features), [[-1, 0], [1, 0], [0, 0]])


def test_shipped_scale_has_every_feature():
    scale = CompositionScale.load()
    assert scale.mean.shape == scale.std.shape == (module.COMPOSITION_FEATURES,)
    assert (scale.std > 0).all()
    assert "MP-20 train" in scale.source


def points(structure, composition=None):
    structure = np.array(structure, dtype=float)[:, None]
    composition = np.zeros_like(structure) if composition is None else np.array(composition)[:, None]
    return Fingerprints(np.arange(len(structure)), structure, composition, {})


def test_nearest_distances_on_a_line():
    nearest = nearest_distances(points([0, 10]), points([1, 2, 3]))
    assert nearest.sample_structure.tolist() == [1, 7]
    assert nearest.reference_structure.tolist() == [1, 2, 3]
    empty = nearest_distances(points([]), points([1.0]))
    assert empty.reference_structure.tolist() == [np.inf]


@pytest.mark.usefixtures("without_matminer")
def test_a_set_covers_itself_and_the_unreadable_count(tmp_path):
    reference = Reference.from_structures(zoo())
    read = as_read_result(zoo())
    read = ReadResult(read.samples, (Failure("torn", "torn"), Failure("gone", "gone")), "zoo")
    settings = CoverageSettings(samples=None, cache_dir=tmp_path)
    table, metrics = coverage_report(read, reference, settings, QUICK)
    value = {metric.name: metric for metric in metrics}
    assert value["cov_recall"].value == 1
    assert value["cov_precision"].value == pytest.approx(6 / 8)
    assert value["cov_precision"].n == 8
    assert value["amsd_precision"].value == pytest.approx(0, abs=1e-6)
    assert value["frechet_structure"].value == pytest.approx(0, abs=1e-4)
    assert table["covered"].all()
    assert "6 of 8 samples" in value["cov_recall"].note


def test_cutoffs_are_those_of_the_data_set():
    assert Cutoffs.of("perov_5 test") == Cutoffs(0.2, 4.0)
    assert Cutoffs.of("mp_20 test") == Cutoffs(0.4, 10.0)


def test_matminer_gives_the_same_fingerprint_in_every_cell(tmp_path):
    pytest.importorskip("matminer", reason="matminer is not installed")
    crystals = [wurtzite(), disguised(wurtzite(), 4), rocksalt()]
    found = fingerprints(crystals, FingerprintSettings(tmp_path))
    assert not found.failures
    assert np.allclose(found.structure[0], found.structure[1], atol=1e-3)
    assert np.allclose(found.composition[0], found.composition[1])
    # Four neighbours in wurtzite, six in rock salt: the weights "wt CN_4" and "wt CN_6" say so.
    assert np.linalg.norm(found.structure[0] - found.structure[2]) > 0.4
