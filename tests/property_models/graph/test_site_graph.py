import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.data.dataset import CrystalDataset
from property_models.graph.site_graph import SiteGraph, concatenate, dataset_graph, site_graph
from tests.autoperi.small import largest, small_batch, small_crystal

GROUPS = (1, 15, 62, 166, 194, 225)


def _assert_equal(a: SiteGraph, b: SiteGraph, tolerance: float = 0.0) -> None:
    assert len(a) == len(b)
    for name in ("site_start", "atom_start", "edge_start", "species", "atom_site", "site", "atom"):
        assert bool((getattr(a, name).long() == getattr(b, name).long()).all()), name
    for name in ("vector", "rotation", "lattice_coords", "multiplicity"):
        assert largest(getattr(a, name).double() - getattr(b, name).double()) <= tolerance, name


def test_select_is_the_graph_of_the_selected():
    """Taking crystals out of a set, in any order, gives the graph that those crystals have."""
    batch = small_batch(GROUPS)
    chosen = torch.tensor([4, 0, 4, 2])
    _assert_equal(site_graph(batch, 4.0).select(chosen), site_graph(batch.select(chosen), 4.0), 1e-12)


def test_concatenate_undoes_select():
    """Crystals taken one by one and put together again are the set."""
    graph = site_graph(small_batch(GROUPS), 4.0)
    _assert_equal(concatenate([graph.select(torch.tensor([i])) for i in range(len(graph))]), graph)


def test_an_atom_alone_has_no_bonds():
    """A crystal whose atoms are all out of range stays in the set, with no rows of its own."""
    lone = Crystal.without_symmetry(np.eye(3) * 12, np.zeros((1, 3)), np.array([18]))
    other = small_crystal(225, 0)
    graph = site_graph(CrystalBatch.from_crystals([lone, other, lone]), 4.0)
    counts = graph.edge_start.diff().tolist()
    assert counts[0] == counts[2] == 0 < counts[1]
    _assert_equal(graph.nearest(1000), graph)
    assert len(graph.select(torch.tensor([2])).nearest(4).site) == 0


def test_nearest_keeps_whole_shells():
    """Of 6 + 12 + 8 neighbours in a simple cubic cell, asking for 4 gives 6 and asking for 7 gives 18."""
    crystal = Crystal.without_symmetry(np.eye(3) * 3.0, np.zeros((1, 3)), np.array([84]))
    batch = CrystalBatch.from_crystals([crystal, crystal])
    for count, expected in ((4, 6), (6, 6), (7, 18), (18, 18), (19, 26), (99, 26)):
        assert site_graph(batch, 5.5, count).edge_start.tolist() == [0, expected, 2 * expected]


def test_shares_sum_to_one():
    """Sites weigh as many atoms as they stand for."""
    graph = site_graph(small_batch(GROUPS), 1.0)
    total = torch.zeros(len(graph), dtype=torch.float64).index_add(0, graph.crystal, graph.share)
    assert largest(total - 1) < 1e-12


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path))
    return tmp_path


def test_dataset_graph_is_cached_and_compact(own_cache):
    """A data set's graph is that of its crystals in float32, read back from the cache."""
    dataset = CrystalDataset.from_crystals([small_crystal(g, 1) for g in GROUPS])
    built = dataset_graph(dataset, 4.0, progress=False)
    _assert_equal(built, site_graph(dataset.batch(range(len(dataset))), 4.0), 1e-5)
    files = list(own_cache.rglob("*.safetensors"))
    assert len(files) == 1
    read = dataset_graph(dataset, 4.0, progress=False)
    _assert_equal(read, built)
    whole = files[0].read_bytes()
    tensors = load_file(files[0])
    cut = save({**tensors, "vector": tensors["vector"][1:]})
    without = save({name: t for name, t in tensors.items() if name != "vector"})
    for damaged in (b"", whole[:100], cut, without):
        files[0].write_bytes(damaged)
        with pytest.warns(UserWarning, match="is damaged"):
            _assert_equal(dataset_graph(dataset, 4.0, progress=False), built)
    assert read.vector.dtype == torch.float32
    assert read.site.dtype == torch.int32
    dataset_graph(dataset, 4.5, progress=False)
    assert len(list(own_cache.rglob("*.safetensors"))) == 2
