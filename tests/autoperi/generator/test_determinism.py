"""Same seed, same crystals, wherever and beside whatever they are drawn; and objects that travel."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from inspect import unwrap

import numpy as np
import pytest
import torch

import autoperi
from autoperi.crystals.crystal import Crystal
from autoperi.flow.settings import FlowSettings, Restart, Solver
from autoperi.generator import CrystalGenerator, SampleConfig
from evaluation.relaxation.relaxation import RelaxationSettings, relax

QUICK = SampleConfig(flow=FlowSettings(Solver(steps=2), Restart(1, steps=1), corrections=1))


@pytest.fixture(scope="module")
def generator() -> CrystalGenerator:
    return autoperi.load()


@pytest.fixture(scope="module")
def drawn(generator) -> list[Crystal]:
    return generator.sample(6, 0, config=QUICK)


@pytest.fixture
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _sample(generator: CrystalGenerator) -> list[Crystal]:
    """At the top of a module, for spawned processes."""
    return generator.sample(6, 0, config=QUICK)


@pytest.mark.usefixtures("_float64")
def test_float64_as_default_changes_nothing(generator, drawn):
    """Neither what is loaded nor what is drawn, and the default is still there afterwards."""
    assert _sample(generator) == drawn
    assert _sample(autoperi.load()) == drawn
    assert torch.get_default_dtype() == torch.float64


def test_autocast_changes_nothing(generator, drawn):
    """Nor does half precision asked for by the program around."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _sample(generator) == drawn
        assert torch.is_autocast_enabled("cpu")


def test_frameworks_are_the_same_beside_any_others():
    """Distances are fitted to the last digit, so that what the size of a batch rounds does not show."""
    zeolites = autoperi.load("zeolite")
    assert zeolites.sample(1, 0, first=2) == zeolites.sample(3, 0)[2:]


@pytest.mark.parametrize("beside", ["float64", "autocast"])
def test_relaxation_is_the_same_beside_other_precisions(drawn, beside):
    """Energies of CHGNet to the last bit."""
    structure, steps = drawn[0].to_structure(), RelaxationSettings(max_steps=2)
    expected = relax(structure, steps).energy_per_atom
    if beside == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert relax(structure, steps).energy_per_atom == expected
        return
    torch.set_default_dtype(torch.float64)
    try:
        assert relax(structure, steps).energy_per_atom == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_copies_and_pickles_draw_the_same(generator, drawn):
    """A generator is a value."""
    for made in (copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
        assert _sample(made) == drawn


def test_threads_and_spawned_processes_draw_the_same(generator, drawn):
    """One generator in two threads at once, and sent to two processes at once."""
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(_sample, [generator, generator])) == [drawn, drawn]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawned, torch.set_num_threads, (1,)) as processes:  # as here
        assert list(processes.map(_sample, [generator, generator])) == [drawn, drawn]


@pytest.mark.parametrize("change", [{"workers": 3}, {"flow": replace(QUICK.flow, batch_size=2)}])
def test_workers_and_batches_move_coordinates_by_rounding_alone(generator, drawn, change):
    """Gene, species and id are the same, coordinates to 1e-4: matrices round by the size of the batch."""
    _assert_close(generator.sample(6, 0, config=replace(QUICK, **change)), drawn)


def test_the_first_crystals_and_any_others_do_not_depend_on_how_many_are_drawn(generator, drawn):
    """The first k of n, and k from the middle."""
    _assert_close(generator.sample(3, 0, config=QUICK), drawn[:3])
    _assert_close(generator.sample(2, 0, config=QUICK, first=3), drawn[3:5])


def _assert_close(found: list[Crystal], expected: list[Crystal]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a.id, a.gene, a.provenance) == (b.id, b.gene, b.provenance)
        np.testing.assert_array_equal(a.species, b.species)
        turn = a.free - b.free
        np.testing.assert_allclose(turn - np.round(turn), 0, atol=1e-4)
        np.testing.assert_allclose(a.lattice_coords, b.lattice_coords, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"n": "ten"}, "an integer as n: got 'ten'"),
        ({"n": 2.0}, "an integer as n"),
        ({"n": True}, "an integer as n"),
        ({"n": 2, "seed": "x"}, "an integer as seed"),
        ({"n": 2, "request": {"formula": "NaCl"}}, "a GeneRequest as request"),
        ({"n": 2, "conditions": [1.0]}, "a Mapping as conditions"),
        ({"n": 2, "config": {"workers": 1}}, "a SampleConfig as config"),
    ],
)
def test_wrong_types_are_refused_in_words(generator, given, text):
    """What was expected, and an example of it."""
    with pytest.raises(TypeError, match=text):
        unwrap(CrystalGenerator.sample)(generator, **given)  # without the checker of annotations
