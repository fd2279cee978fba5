"""Element tables, bond bases and read-outs on their own; their invariances are in test_crystal_gnn.py."""

import math
from dataclasses import replace

import pytest
import torch
from pymatgen.core import Element

from property_models.graph.edge_basis import (
    BesselBasis,
    GaussianBasis,
    PairGaussianBasis,
    WeightedGaussianBasis,
)
from property_models.graph.node_features import BitFeatures, ExtendedFeatures, FiveFeatures, Learned, OneHot
from property_models.graph.readout import AttentionReadout, MeanReadout, Set2SetReadout, SumReadout
from property_models.graph.site_graph import site_graph
from tests.autoperi.small import largest, small_batch, without_symmetry

TABLES = (OneHot, FiveFeatures, ExtendedFeatures, BitFeatures)


@pytest.mark.parametrize("kind", TABLES)
def test_tables_tell_elements_apart(kind):
    """Every element has finite numbers of its own, and the unknown species has none."""
    table = kind().table
    assert table.shape == (101, kind().outputs)
    assert bool(table.isfinite().all())
    assert largest(table[0]) == 0
    apart = 90 if kind is BitFeatures else 100
    assert len(torch.unique(table[1:], dim=0)) >= apart


def test_extended_values_are_those_of_the_elements():
    """Standardised columns keep the order of the elements: fluorine has the largest electronegativity."""
    column = 6
    falling = (9, 8, 6, 5, 11, 55)
    known = torch.tensor([Element.from_Z(z).X for z in falling])
    table = ExtendedFeatures().table
    assert bool((known.diff() < 0).all())
    assert bool((table[list(falling), column].diff() < 0).all())
    assert largest(table[1:, :10].mean(0)) < 0.3


def test_bits_of_iron():
    """Iron: group 8, period 4, d block, eight valence electrons and five binned properties: nine bits."""
    assert float(BitFeatures().table[26].sum()) == 9
    assert float(BitFeatures().table[2].sum()) == 8  # helium has no electronegativity


def test_learned_table_is_learned():
    """The table of vectors gets gradients, the others have no parameters."""
    learned = Learned(4)
    learned(torch.tensor([8, 8, 11])).sum().backward()
    assert learned.table.grad is not None
    assert float(learned.table.grad[8, 0]) == 2
    assert not list(FiveFeatures().parameters())


def test_bases_at_known_distances():
    """A Gaussian is one at its centre; Bessel and cut Gaussians vanish at the cutoff."""
    graph = site_graph(small_batch((225, 62)), 4.0)
    nearest = graph.distance.argmin()
    gaussian = GaussianBasis(41, 4.0)
    at = int((graph.distance[nearest] / 0.1).round())
    offset = float(graph.distance[nearest]) / 0.1 - at
    assert float(gaussian(graph)[nearest, at]) == pytest.approx(math.exp(-0.5 * offset**2), rel=1e-5)
    last = graph.distance > 3.99
    for basis in (BesselBasis(8, 4.0), WeightedGaussianBasis(8, 4.0)):
        assert largest(basis(graph)[last]) < 1e-3 if bool(last.any()) else True
    just_inside = torch.tensor([4.0 - 1e-5], dtype=torch.float64)
    assert largest(WeightedGaussianBasis(8, 4.0).of(just_inside)) < 1e-9


def test_pair_gaussian_depends_on_the_pair():
    """Two bonds of one length between other species look different."""
    torch.manual_seed(0)
    graph = site_graph(small_batch((225,)), 4.0)
    basis = PairGaussianBasis(8, 4.0).double()
    other = replace(graph, species=graph.species + 1)
    assert largest(basis(graph) - basis(other)) > 1e-4


@pytest.mark.parametrize("kind", [MeanReadout, SumReadout, AttentionReadout, Set2SetReadout])
def test_readouts_weigh_orbits_by_their_atoms(kind):
    """Reading the sites gives what reading every atom gives."""
    torch.manual_seed(0)
    batch = small_batch((62, 166, 205, 225))
    full, _ = without_symmetry(batch)
    readout = kind(6).double()
    sites = torch.randn(batch.n_sites, 6, dtype=torch.float64)
    reduced = readout(sites, site_graph(batch, 1.0))
    whole = readout(sites[batch.atoms().site], site_graph(full, 1.0))
    assert reduced.shape == (4, readout.outputs)
    assert largest(reduced - whole) < 1e-10 * largest(whole)
    if kind is SumReadout:
        mean = MeanReadout(6)(sites, site_graph(batch, 1.0))
        assert largest(reduced - mean * batch.n_atoms()[:, None]) < 1e-10
