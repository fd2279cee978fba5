from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot

from autoperi.crystals.crystal import MAX_Z
from property_models.graph.electrons import Electrons, oxidation_states
from property_models.graph.site_graph import site_graph
from tests.autoperi.small import small_batch, without_symmetry

OXYGEN, SODIUM, CHLORINE, TITANIUM, IRON, GALLIUM, ARSENIC, STRONTIUM = 8, 11, 17, 22, 26, 31, 33, 38


@pytest.mark.parametrize(
    ("formula", "charges"),
    [
        ({SODIUM: 1, CHLORINE: 1}, (1, -1)),
        ({TITANIUM: 1, OXYGEN: 2}, (4, -2)),
        ({TITANIUM: 2, OXYGEN: 3}, (3, -2)),
        ({GALLIUM: 1, ARSENIC: 1}, (3, -3)),
        ({STRONTIUM: 1, TITANIUM: 1, OXYGEN: 3}, (2, 4, -2)),
    ],
)
def test_charges_of_salts_balance(formula, charges):
    found = oxidation_states(tuple(formula), tuple(formula.values()))
    assert found.charges == charges
    assert found.net == 0
    assert (found.usual_net == 0) == (formula != {TITANIUM: 2, OXYGEN: 3})  # Ti(III) is no common state


def test_what_does_not_balance_is_told():
    """Magnetite mixes two states, one of each element cannot balance it; an element by itself has none."""
    found = oxidation_states((OXYGEN, IRON), (4, 3))
    assert found.net == pytest.approx(1 / 7)
    assert oxidation_states((IRON,), (1,)).charges == (0.0,)
    assert oxidation_states((IRON,), (1,)).net == 1


def test_formulas_of_many_elements_are_counted_in_time():
    """The charges follow all combinations of states, whose number would be 10^15."""
    elements = tuple(range(3, 30))
    found = oxidation_states(elements, tuple(range(1, len(elements) + 1)))
    assert len(found.charges) == len(elements)
    assert found.net == 0


def test_electrons_of_a_graph():
    """Of a crystal as of it alone, of orbits as of their atoms, of soft species as of the likeliest."""
    batch = small_batch((62, 225, 166))
    graph = site_graph(batch, 4.0)
    counted = graph.electrons
    for crystal in range(3):
        alone = graph.select(torch.tensor([crystal])).electrons
        assert torch.equal(alone.crystals[0], counted.crystals[crystal])
        assert torch.equal(alone.sites, counted.sites[graph.crystal == crystal])
    electrons = (
        (graph.species * graph.multiplicity)
        .new_zeros(3)
        .index_add(0, graph.crystal, graph.species * graph.multiplicity)
    )
    assert counted.crystals[:, 0].tolist() == (electrons % 2).tolist()
    soft = 0.9 * one_hot(graph.species.long(), MAX_Z + 1).to(graph.vector) + 0.1 / MAX_Z
    assert torch.equal(replace(graph, species=soft).electrons.crystals, counted.crystals)
    plain = site_graph(without_symmetry(batch)[0], 4.0)
    assert torch.equal(plain.electrons.crystals, counted.crystals)
    assert isinstance(counted, Electrons)
