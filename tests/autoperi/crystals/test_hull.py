"""The convex hull against pymatgen's phase diagram, and its two ways against each other."""

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from autoperi.crystals import hull as hulls
from autoperi.crystals.hull import Hull


def test_hull_is_pymatgen_s():
    """Random ternary systems against the phase diagram of pymatgen."""
    rng = np.random.default_rng(0)
    compositions = [
        {z: int(n) for z, n in zip((3, 8, 26), row, strict=True) if n} for row in rng.integers(0, 4, (40, 3))
    ]
    compositions = [c for c in compositions if c]
    energies = np.where([len(c) > 1 for c in compositions], rng.normal(-0.6, 0.6, len(compositions)), 0.02)
    hull = Hull(compositions, energies)
    symbols = {3: "Li", 8: "O", 26: "Fe"}
    entries = [
        PDEntry(Composition({symbols[z]: n for z, n in c.items()}), e * sum(c.values()))
        for c, e in zip(compositions, energies, strict=True)
    ]
    diagram = PhaseDiagram([*entries, *(PDEntry(Composition(s), 0.0) for s in symbols.values())])
    for composition, energy, entry in zip(compositions, energies, entries, strict=True):
        expected = diagram.get_e_above_hull(entry)
        assert hull.above(composition, energy) == pytest.approx(expected, abs=1e-8)


def test_hull_of_nothing_is_zero():
    hull = Hull([{11: 1, 17: 1}], np.array([np.nan]))
    assert hull.n_phases == 0
    assert hull.above({11: 1, 17: 1}, 0.3) == 0.3
    assert hull.above({11: 1}, 0.1) == pytest.approx(0.1)


def _phases(elements: int, seed: int) -> tuple[list[dict[int, float]], np.ndarray]:
    """Random phases of some elements, one of which lies below zero itself."""
    rng = np.random.default_rng(seed)
    amounts = rng.integers(0, 3, (60, elements))
    amounts = amounts[(amounts > 0).any(1)]
    numbers = range(3, 3 + elements)
    compositions = [{z: int(n) for z, n in zip(numbers, row, strict=True) if n} for row in amounts]
    energies = rng.normal(-0.5, 0.5, len(compositions))
    return [*compositions, {3: 2}], np.array([*energies, -0.1])


@pytest.mark.parametrize("elements", [1, 2, 3, 5])
def test_facets_and_linear_programme_agree(elements, monkeypatch):
    compositions, energies = _phases(elements, elements)
    facets = Hull(compositions, energies)
    first = [facets.energy(c) for c in compositions]
    monkeypatch.setattr(hulls, "_FACETS_UP_TO", 0)
    assert first == pytest.approx([facets.energy(c) for c in compositions], abs=1e-7)
    assert facets.energy({3: 1}) <= -0.1


@pytest.mark.parametrize("elements", [2, 4, 8])
def test_potentials_are_the_slope(elements):
    """Inside a facet a small change of the mixture costs its chemical potentials; below no phase lies."""
    compositions, energies = _phases(elements, 10 + elements)
    hull = Hull(compositions, energies)
    rng = np.random.default_rng(0)
    numbers = tuple(range(3, 3 + elements))
    for _ in range(5):
        x = rng.dirichlet(np.full(elements, 3.0))
        step = 1e-6 * (rng.dirichlet(np.full(elements, 3.0)) - x)
        potentials = hull.potentials(numbers, x)
        expected = hull.energy(dict(zip(numbers, x + step, strict=True))) - potentials @ x
        assert potentials @ step == pytest.approx(expected, abs=3e-9)
        for composition, energy in zip(compositions, energies, strict=True):
            row = np.array([composition.get(z, 0) for z in numbers]) / sum(composition.values())
            assert potentials @ row <= energy + 1e-8


def test_the_order_of_elements_does_not_matter():
    compositions, energies = _phases(3, 0)
    hull = Hull(compositions, energies)
    for composition in compositions:
        turned = dict(reversed(composition.items()))
        assert hull.energy(turned) == hull.energy(composition)


def test_lengths_are_checked():
    with pytest.raises(ValueError, match="2 energies for 1 compositions"):
        Hull([{11: 1}], np.array([1.0, 2.0]))
