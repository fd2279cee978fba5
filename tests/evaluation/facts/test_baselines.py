import numpy as np
import pytest
from pymatgen.core import Composition

from evaluation.facts.baselines import BASELINES, draw_baseline
from evaluation.facts.reference import Reference
from evaluation.facts.symmetry import space_group
from evaluation.metrics.validity import smact_valid, structural_validity
from tests.evaluation.crystals import zoo


@pytest.fixture(scope="module")
def reference():
    return Reference.from_structures(zoo())


@pytest.mark.parametrize("name", list(BASELINES))
def test_the_same_seed_gives_the_same_crystals_whatever_the_number(name, reference):
    some, more = (draw_baseline(name, reference, n, seed=3).structures for n in (2, 4))
    assert len(more) == 4
    assert list(some) == list(more[:2])
    assert list(draw_baseline(name, reference, 2, seed=4).structures) != list(some)


def test_resampling_repeats_nothing_before_everything_was_drawn(reference):
    drawn = draw_baseline("reference resampled", reference, 6).structures
    assert {s.composition.reduced_formula for s in drawn} == {s.composition.reduced_formula for s in zoo()}


def test_random_crystals_keep_formula_volume_and_space_group(reference):
    known = {
        s.composition.reduced_formula: (s.volume / len(s), space_group(s))
        for s in (reference.structure(i) for i in range(len(reference)))
    }
    drawn = draw_baseline("random (PyXtal)", reference, 6, seed=1).structures
    for structure in drawn:
        volume, group = known[structure.composition.reduced_formula]
        assert structure.volume / len(structure) == pytest.approx(volume)
        found = space_group(structure, 0.01)
        assert found is not None
        assert group is not None
        assert found >= group  # chance positions may have a higher symmetry, never a lower one
        assert structural_validity(structure)


def test_substituted_crystals_are_new_neutral_and_keep_the_prototype(reference):
    drawn = draw_baseline("ion substitution", reference, 8, seed=2)
    known = {(s.composition.reduced_formula, space_group(s)) for s in zoo()}
    prototypes = {(s.composition.anonymized_formula, space_group(s)) for s in zoo()}
    new = [(s.composition.reduced_formula, space_group(s)) not in known for s in drawn.structures]
    assert sum(new) >= 6  # one prototype may become another
    for structure in drawn.structures:
        assert (structure.composition.anonymized_formula, space_group(structure)) in prototypes
        assert Composition(structure.composition).oxi_state_guesses(max_sites=-1)
    assert drawn.rejected["no neutral charges for the prototype"] > 0  # Si is no prototype
    assert np.mean([smact_valid(s.composition, "icsd24") for s in drawn.structures]) > 0.7


def test_a_kept_baseline_is_read_back(reference, tmp_path):
    first = draw_baseline("ion substitution", reference, 3, cache_dir=tmp_path)
    (file,) = tmp_path.glob("*.json")
    written = file.stat().st_mtime_ns
    again = draw_baseline("ion substitution", reference, 3, cache_dir=tmp_path)
    assert list(again.structures) == list(first.structures)
    assert again.rejected == first.rejected
    assert file.stat().st_mtime_ns == written
    for damaged in ("", file.read_text()[:-9], "{}"):
        file.write_text(damaged)
        with pytest.warns(UserWarning, match="is damaged"):
            healed = draw_baseline("ion substitution", reference, 3, cache_dir=tmp_path)
        assert list(healed.structures) == list(first.structures)


def test_wrong_names_and_empty_references_are_refused(reference):
    with pytest.raises(ValueError, match="ion substitution"):
        draw_baseline("nothing", reference, 1)
    with pytest.raises(ValueError, match="no crystals"):
        draw_baseline("ion substitution", Reference.from_structures([]), 1)
