from dataclasses import replace

import numpy as np
import pytest

from autoperi.crystals.symmetry import symmetrise
from autoperi.discovery.templates import Templates, arranged, gene_with_species, reduced_amounts
from autoperi.flow.relatives import Relatives
from tests.autoperi.small import SOME_GROUPS, small_crystal

OXYGEN, NA, CL, K, TI, BR, SR = 8, 11, 17, 19, 22, 35, 38


@pytest.fixture(scope="module")
def templates(prototypes) -> Templates:
    """Prototypes as training crystals."""
    crystals = [replace(symmetrise(structure), id=name) for name, structure in prototypes.items()]
    return Templates(Relatives.from_crystals(crystals))


def test_elements_take_the_places_of_the_most_alike(templates):
    """The nearest of the same anonymous formula comes first; amounts are kept, distances ascend."""
    found = templates.exchanges({SR: 1, TI: 1, OXYGEN: 3})
    assert len(found)
    assert (np.diff(found.distance) >= 0).all()
    ratio, _ = arranged({SR: 1, TI: 1, OXYGEN: 3})
    for k, row in enumerate(found.row.tolist()):
        crystal = templates.relatives.renamed(row, found.elements(k))
        assert reduced_amounts(crystal) == {SR: 1, TI: 1, OXYGEN: 3}
        assert (crystal.n_atoms, crystal.space_group) == (templates.facts[row, 0], templates.space_group[row])
    assert found.share.tolist() == [n / sum(ratio) for n in ratio]


def test_nothing_is_exchanged_for_a_known_formula(templates):
    """It lies at distance 0, is marked as known, and does not count where it is left out."""
    row = templates.relatives.ids.index("NaCl")
    found = templates.exchanges({NA: 1, CL: 1})
    (first, *_) = np.flatnonzero(found.row == row)
    assert found.known[first]
    assert found.distance[first] == 0
    assert row not in templates.exchanges({NA: 1, CL: 1}, skip=row).row
    other = templates.exchanges({K: 1, BR: 1})
    assert row in other.row
    assert not other.known.any()


def test_number_of_atoms_and_group_choose_templates(templates):
    """Only those in the primitive cell and group that are asked for."""
    every = templates.exchanges({K: 1, BR: 1})
    groups = {int(g) for g in templates.space_group[every.row]}
    assert len(groups) > 1
    for group in groups:
        some = templates.exchanges({K: 1, BR: 1}, space_group=group)
        assert set(templates.space_group[some.row].tolist()) == {group}
    assert set(templates.facts[templates.exchanges({K: 1, BR: 1}, atoms=2).row, 0].tolist()) == {2}
    assert len(templates.exchanges({K: 1, BR: 1}, atoms=200)) == 0
    assert len(templates.exchanges({K: 17, BR: 13})) == 0


@pytest.mark.parametrize("group", SOME_GROUPS)
def test_one_gene_has_one_name(group):
    """Whatever the order of its sites; other species have another."""
    crystal = small_crystal(group, 3)
    species = crystal.species.tolist()
    name = gene_with_species(group, crystal.wyckoff, species)
    order = np.random.default_rng(0).permutation(crystal.n_sites)
    assert gene_with_species(group, crystal.wyckoff[order], crystal.species[order].tolist()) == name
    assert gene_with_species(group, crystal.wyckoff, [z + 1 for z in species]) != name


def test_exchanges_of_one_gene_have_one_number(templates):
    """Numbers follow the names of genes with species, counted from the nearest."""
    found = templates.exchanges({K: 1, BR: 1})
    names = [templates.gene(found, k) for k in range(len(found))]
    assert found.gene.tolist() == [list(dict.fromkeys(names)).index(name) for name in names]


def test_farther_genes_have_one_exchange_each(templates, monkeypatch):
    """Beyond the nearest, which all vote; numbers of genes stay as they are."""
    every = templates.exchanges({K: 1, BR: 1})
    monkeypatch.setattr("autoperi.discovery.templates._MOST", 3)
    some = templates.exchanges({K: 1, BR: 1})
    firsts = np.unique(every.gene, return_index=True)[1]
    kept = sorted({0, 1, 2, *firsts.tolist()})
    assert 3 < len(kept) < len(every)
    assert some.row.tolist() == every.row[kept].tolist()
    assert some.gene.tolist() == every.gene[kept].tolist()
