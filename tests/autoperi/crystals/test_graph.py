import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from autoperi.crystals import graph as graph_module
from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.graph import orbit_graph
from tests.autoperi.small import SOME_GROUPS, largest, small_batch, small_crystal

few = settings(max_examples=12, deadline=None)
groups = st.sampled_from(SOME_GROUPS)
seeds = st.integers(0, 10_000)


def _rows(graph) -> np.ndarray:
    parts = [100.0 * graph.site[:, None], 100.0 * graph.atom[:, None], graph.vector]
    return torch.cat([p.double() for p in parts], -1).numpy()


def _assert_same_edges(rows: np.ndarray, others: np.ndarray, tolerance: float) -> None:
    assert len(rows) == len(others)
    if len(rows):
        assert cKDTree(rows).query(others)[0].max() < tolerance
        assert cKDTree(others).query(rows)[0].max() < tolerance


def _brute_force(batch: CrystalBatch, cutoff: float) -> np.ndarray:
    """Every image in a box that surely holds the sphere, one crystal and one site at a time."""
    atoms, lattice = batch.atoms(), batch.lattice().numpy()
    frac = atoms.positions(batch.site_positions()).numpy() % 1.0
    rows = []
    for site, first in enumerate(atoms.first.tolist()):
        crystal = int(batch.crystal[site])
        cell = lattice[crystal]
        reach = np.ceil(cutoff * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int) + 1
        axes = [np.arange(-r, r + 1) for r in reach]
        shifts = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        for atom in (atoms.crystal == crystal).nonzero().squeeze(-1).tolist():
            vectors = (frac[atom] - frac[first] + shifts) @ cell
            lengths = np.linalg.norm(vectors, axis=-1)
            near = (lengths < cutoff) & (lengths > 1e-6)
            rows += [(100.0 * site, 100.0 * atom, *v) for v in vectors[near]]
    return np.array(rows).reshape(-1, 5)


@few
@given(st.integers(1, 5), st.floats(0.0, 0.7), st.floats(2.0, 7.0), seeds)
def test_edges_equal_brute_force_in_skewed_cells(n_atoms, skew, cutoff, seed):
    """orbit_graph finds exactly the atoms in the sphere, whatever the shape of the cell."""
    rng = np.random.default_rng(seed)
    lattice = (np.eye(3) + rng.normal(0, skew, (3, 3))) * (15 * n_atoms) ** (1 / 3)
    assume(
        1 / np.linalg.norm(np.linalg.inv(lattice), axis=0).max() > 0.5
    )  # flat cells are refused, see below
    crystal = Crystal.without_symmetry(lattice, rng.random((n_atoms, 3)), np.full(n_atoms, 14))
    batch = CrystalBatch.from_crystals([crystal])
    _assert_same_edges(_rows(orbit_graph(batch, cutoff)), _brute_force(batch, cutoff), 1e-9)


@few
@given(st.lists(groups, min_size=1, max_size=3), seeds)
def test_edges_equal_brute_force_for_orbits(numbers, seed):
    """The receiving sites of a symmetric crystal see every atom of every orbit, once per image."""
    batch = small_batch(numbers, seed)
    _assert_same_edges(_rows(orbit_graph(batch, 4.5)), _brute_force(batch, 4.5), 1e-9)


@few
@given(groups, seeds)
def test_cell_list_equals_all_pairs(number, seed):
    """The path through the neighbour library gives the same edges as the path over all pairs."""
    batch = small_batch([number, 2, 62], seed)
    tried = _rows(orbit_graph(batch, 4.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_module, "_LARGE_CELL", 0)
        listed = _rows(orbit_graph(batch, 4.0))
        patch.setattr(graph_module, "_LARGE_CELL", int(batch.n_atoms().min()))
        mixed = _rows(orbit_graph(batch, 4.0))
    _assert_same_edges(tried, listed, 1e-9)
    _assert_same_edges(tried, mixed, 1e-9)


def test_vector_convention():
    """Edge vectors are x_j + n @ lattice - x_i with an integer n, and distances are their lengths."""
    batch = small_batch()
    graph = orbit_graph(batch, 4.0)
    frac = graph.atoms.positions(batch.site_positions())
    lattice = batch.lattice()[batch.crystal[graph.site]]
    offset = torch.linalg.solve(lattice.transpose(-1, -2), graph.vector[:, :, None]).squeeze(-1)
    shift = offset - frac[graph.atom] + frac[graph.atoms.first[graph.site]]
    assert largest(shift - shift.round()) < 1e-10
    assert largest(graph.vector.norm(dim=-1) - graph.distance) < 1e-12
    assert (graph.atoms.crystal[graph.atom] == batch.crystal[graph.site]).all()


def test_vectors_are_differentiable():
    """Edge vectors have the true derivatives in free and lattice coordinates."""
    batch = CrystalBatch.from_crystals([small_crystal(15, 0, sites=2, max_atoms=6)])
    inputs = (batch.free.requires_grad_(), batch.lattice_coords.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda s, lattice: orbit_graph(batch.with_geometry(s, lattice), 3.5).vector, inputs
    )


def test_rotations_are_orthogonal():
    """The Cartesian form of every operation is a rotation or rotoinversion: the lattice has the symmetry."""
    rotation = orbit_graph(small_batch(range(1, 231), max_atoms=8), 1.0).rotation
    gram = rotation @ rotation.transpose(-1, -2)
    assert largest(gram - torch.eye(3, dtype=gram.dtype)) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_equals_single(dtype):
    """The edges of a crystal do not depend on the crystals beside it."""
    batch = small_batch((1, 15, 62, 166, 194, 225)).to(dtype=dtype)
    together = _rows(orbit_graph(batch, 4.0))
    atoms = torch.cat([torch.zeros(1, dtype=torch.long), batch.n_atoms().cumsum(0)])
    alone, site = [], 0
    for crystal in range(batch.n_crystals):
        single = batch.select(torch.tensor([crystal]))
        rows = _rows(orbit_graph(single, 4.0))
        alone.append(rows + np.array([100.0 * site, 100.0 * int(atoms[crystal]), 0, 0, 0]))
        site += single.n_sites
    _assert_same_edges(together, np.concatenate(alone), 1e-9 if dtype == torch.float64 else 1e-4)


def test_simple_cubic_shells():
    """A cell three times smaller than the cutoff: 92 non-zero integer triples have a square below 8.41."""
    crystal = Crystal.without_symmetry(np.eye(3), np.zeros((1, 3)), np.array([84]))
    graph = orbit_graph(CrystalBatch.from_crystals([crystal]), 2.9)
    squares, counts = torch.unique(graph.distance.square().round(), return_counts=True)
    assert squares.tolist() == [1, 2, 3, 4, 5, 6, 8]
    assert counts.tolist() == [6, 12, 8, 6, 24, 24, 12]


def test_pairs_group_images():
    """Every edge belongs to the pair of its site and atom, and pairs do not repeat."""
    graph = orbit_graph(small_batch((1, 225, 62)), 6.0)
    edge, site, atom = graph.pairs()
    assert (site[edge] == graph.site).all()
    assert (atom[edge] == graph.atom).all()
    assert len(torch.unique(torch.stack([site, atom]), dim=1).T) == len(site) < len(graph.site)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan")])
def test_cutoff_must_be_positive(cutoff):
    """A cutoff that is no length is refused."""
    with pytest.raises(ValueError, match="positive cutoff"):
        orbit_graph(small_batch([1]), cutoff)


def test_countless_images_are_refused():
    """A cell so flat that the sphere holds over 100,000 images is refused, with its heights named."""
    crystal = Crystal.without_symmetry(np.diag([60.0, 60.0, 1e-3]), np.zeros((1, 3)), np.array([14]))
    batch = CrystalBatch.from_crystals([small_crystal(1, 0), crystal])
    with pytest.raises(ValueError, match=r"crystal 1 of the batch.*images within 100.0 Å"):
        orbit_graph(batch, 100.0)
