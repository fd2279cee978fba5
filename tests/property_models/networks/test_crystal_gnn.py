import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from autoperi.crystals.crystal import MAX_Z, Crystal, CrystalBatch
from autoperi.networks.config import ConfigError
from property_models.convolutions import CONVOLUTIONS, convolution_class
from property_models.graph.electrons import Electrons
from property_models.graph.site_graph import SiteGraph, site_graph
from property_models.networks.crystal_gnn import CrystalGNN, CrystalGNNConfig
from tests.autoperi.small import largest, small_batch, without_symmetry

SMOOTH = [name for name in CONVOLUTIONS if convolution_class(name).is_smooth]
LAYERS = [name for name in CONVOLUTIONS if convolution_class(name).is_layer]
ATOM_READOUTS = ("mean", "attention", "set2set")


def _network(convolution: str = "orbit", **changes) -> CrystalGNN:
    return copy.deepcopy(_built(convolution, tuple(changes.items())))


@cache
def _built(convolution: str, changes: tuple) -> CrystalGNN:
    torch.manual_seed(0)
    settings = {"width": 16, "layers": 2, "radial": 6, "cutoff": 3.6, "dropout": 0.0, **dict(changes)}
    config = CrystalGNNConfig(convolution=convolution, **settings)  # pyright: ignore[reportArgumentType]
    return CrystalGNN(config).double().eval()


def _answer(network: CrystalGNN, batch: CrystalBatch) -> torch.Tensor:
    return network(site_graph(batch, network.config.cutoff, network.config.nearest)).features


@pytest.fixture(scope="module")
def cell() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four atoms in a skewed cell, without symmetry."""
    rng = np.random.default_rng(3)
    lattice = np.array([[3.6, 0, 0], [0.8, 4.1, 0], [-0.6, 0.5, 4.6]])
    frac = np.array([[0.05, 0.1, 0.0], [0.5, 0.55, 0.1], [0.1, 0.6, 0.55], [0.6, 0.1, 0.5]])
    return lattice, frac + rng.normal(0, 0.02, (4, 3)), np.array([11, 17, 8, 22])


def _batch(lattice, frac, species) -> CrystalBatch:
    return CrystalBatch.from_crystals([Crystal.without_symmetry(lattice, frac, species)])


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_reduced_equals_full(convolution):
    """On the symmetry-distinct sites alone every network says what it says of the whole cell."""
    batch = small_batch((2, 15, 31, 62, 136, 146, 166, 194, 205, 225))
    full, _ = without_symmetry(batch)
    network = _network(convolution)
    reduced, whole = _answer(network, batch), _answer(network, full)
    assert largest(reduced - reduced.mean(0)) > 1e-3
    assert largest(reduced - whole) < 1e-8 * largest(whole)


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_rotation(convolution):
    """Turning or reflecting all bonds of a crystal changes nothing."""
    network = _network(convolution)
    graph = site_graph(small_batch((2, 62, 194, 205)), 3.6)
    turn = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    )[0]
    for q in (turn, -turn):
        turned = replace(graph, vector=graph.vector @ q.T, rotation=q @ graph.rotation @ q.T)
        assert largest(network(turned).features - network(graph).features) < 1e-10


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_origin_permutation_cell_and_supercell(convolution, cell):
    """The same crystal, written in another way, is worth the same: no bond is lost or counted twice."""
    lattice, frac, species = cell
    network = _network(convolution)
    expected = _answer(network, _batch(*cell))
    order = [2, 0, 3, 1]
    change = np.array([[1, 1, 0], [0, 1, -1], [0, 0, 1]])
    doubled = np.concatenate([frac, frac + np.eye(3)[1]]) / [1, 2, 1]
    ways = {
        "origin": _batch(lattice, frac + np.array([0.37, 0.81, -0.22]), species),
        "permutation": _batch(lattice, frac[order], species[order]),
        "cell": _batch(change @ lattice, frac @ np.linalg.inv(change), species),
        "supercell": _batch(np.diag([1, 2, 1]) @ lattice, doubled, np.tile(species, 2)),
    }
    for name, batch in ways.items():
        assert largest(_answer(network, batch) - expected) < 1e-9 * largest(expected), name
    moved = _batch(lattice, frac + np.array([[0.03, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]), species)
    assert largest(_answer(network, moved) - expected) > 1e-5, "insensitive to a displacement"


PARTS = [{"readout": r} for r in ATOM_READOUTS]
PARTS += [
    {"edges": e, "convolution": "cgcnn"}
    for e in ("gaussian", "weighted_gaussian", "pair_gaussian", "periodic_gaussian")
]
PARTS += [{"convolution": name, "learn_edges": True} for name in LAYERS]
PARTS += [{"convolution": "cgcnn", "nearest": 6}]
PARTS += [{"nodes": n} for n in ("one_hot", "five", "extended", "bits")]


@pytest.mark.parametrize("changes", PARTS, ids=str)
def test_parts_are_invariant(changes, cell):
    """Every read-out, bond basis, choice of neighbours and table of elements gives a crystal one value."""
    network = _network(**changes)
    batch = small_batch((15, 62, 166, 225))
    full, _ = without_symmetry(batch)
    whole = _answer(network, full)
    assert largest(_answer(network, batch) - whole) < 1e-8 * largest(whole)
    lattice, frac, species = cell
    doubled = _batch(
        np.diag([1, 1, 2]) @ lattice,
        np.concatenate([frac, frac + np.eye(3)[2]]) / [1, 1, 2],
        np.tile(species, 2),
    )
    expected = _answer(network, _batch(*cell))
    assert largest(_answer(network, doubled) - expected) < 1e-9 * largest(expected)


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_batch_equals_single_and_crystals_do_not_touch(convolution):
    """A crystal's value and gradients do not depend on the crystals beside it, in training mode either."""
    batch = small_batch((1, 15, 62, 166, 225))
    network = _network(convolution).train()
    graph = site_graph(batch, 3.6)
    together = network(graph).features
    for i in range(len(graph)):
        alone = network(graph.select(torch.tensor([i]))).features
        assert largest(alone - together[i]) < 1e-10
    batch.free.requires_grad_()
    network(site_graph(batch, 3.6)).features[2].square().sum().backward()
    gradient = batch.free.grad
    assert gradient is not None
    assert largest(gradient[batch.crystal != 2]) == 0
    assert largest(gradient[batch.crystal == 2]) > 0


@pytest.mark.parametrize("convolution", SMOOTH)
def test_smooth_at_the_cutoff(convolution, cell):
    """Networks that serve as potentials do not jump when an atom enters the cutoff."""
    network = _network(convolution)
    graph = site_graph(_batch(*cell), 3.6)
    farthest = float(graph.distance.max())
    inside = graph.vector * (3.6 - 1e-4) / farthest
    outside = graph.distance < farthest - 1e-6
    kept = replace(graph, vector=inside)
    cut = replace(
        kept,
        site=graph.site[outside],
        atom=graph.atom[outside],
        vector=inside[outside],
        edge_start=torch.tensor([0, int(outside.sum())]),
    )
    assert int((~outside).sum()) > 0
    assert largest(network(kept).features - network(cut).features) < 1e-5


def test_soft_species_equal_hard_ones_at_the_corners():
    """A weight of one on an element is that element, and the answer is differentiable in the weights."""
    batch = small_batch((15, 62))
    for nodes in ("learned", "extended"):
        network = _network(nodes=nodes)
        graph = site_graph(batch, 3.6)
        soft = torch.nn.functional.one_hot(graph.species, MAX_Z + 1).double().requires_grad_()
        answer = network(replace(graph, species=soft)).features
        assert largest(answer - network(graph).features) < 1e-12
        (gradient,) = torch.autograd.grad(answer.sum(), soft)
        assert bool(gradient.isfinite().all())
        assert largest(gradient) > 0


def test_geometry_gradient():
    """The fast network's values have the true derivatives in free and lattice coordinates."""
    batch = small_batch((15,), sites=2, max_atoms=6)
    network = _network("orbit")
    inputs = (batch.free.requires_grad_(), batch.lattice_coords.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda s, lattice: _answer(network, batch.with_geometry(s, lattice)), inputs, atol=1e-6
    )


def test_crystal_features_and_bottleneck():
    """Lattice and group reach the answer; the bottleneck samples in training only and says what it costs."""
    batch = small_batch((62, 225))
    network = _network(crystal_features=("lattice", "symmetry"), kl=0.1)
    graph = site_graph(batch, 3.6)
    other = replace(graph, space_group=torch.tensor([62, 227]))
    difference = network(other).features - network(graph).features
    assert largest(difference[0]) == 0
    assert largest(difference[1]) > 0
    assert float(network(graph).kl.detach().min()) > 0
    network.train()
    assert largest(network(graph).features - network(graph).features) > 0


def test_sites_are_told_of_electrons_and_surroundings():
    """Both reach the answer, differentiably where species are soft; a start without them is kept as it is."""
    batch = small_batch((62, 225))
    graph = site_graph(batch, 6.0)
    plain = _network(cutoff=6.0)
    told = _network(cutoff=6.0, crystal_features=("symmetry", "electrons"), surroundings=True)
    told.start_from(plain)
    assert torch.equal(told(graph).features, plain(graph).features)
    for part in (told.tell[-1], told.features):
        torch.nn.init.normal_(part.weight, std=0.1)
    features = told(graph).features
    other = replace(graph)
    vars(other)["electrons"] = Electrons(graph.electrons.crystals, graph.electrons.sites + 1)
    assert largest(told(other).features - features) > 0
    other = replace(graph)
    vars(other)["electrons"] = Electrons(graph.electrons.crystals + 1, graph.electrons.sites)
    assert largest(told(other).features - features) > 0
    assert largest(told(graph, around=torch.zeros(graph.n_sites, 128)).features - features) > 0
    soft = torch.nn.functional.one_hot(graph.species.long(), MAX_Z + 1).to(graph.vector).requires_grad_()
    answer = told(replace(graph, species=soft)).features
    assert largest(answer - features) < 1e-9
    assert largest(torch.autograd.grad(answer.sum(), soft)[0]) > 0
    assert not [name for name, _ in told.named_parameters() if "potential" in name]
    with pytest.raises(ConfigError, match=r"expected all neighbours within the 5.0 Å of the potential"):
        _network(surroundings=True, nearest=12)


def test_wrong_choices_are_named():
    """Parts that do not fit each other are refused with what would fit."""
    with pytest.raises(ValueError, match="expected edges = 'bessel' for 'painn'"):
        CrystalGNNConfig(convolution="painn", edges="gaussian")
    with pytest.raises(ValueError, match="expected learn_edges"):
        CrystalGNNConfig(convolution="megnet", learn_edges=True)
    with pytest.raises(ValueError, match=r"a convolution among .*: got 'cgcn'; did you mean 'cgcnn'"):
        CrystalGNNConfig(convolution="cgcn")
    with pytest.raises(ValueError, match=r"got \['hardness'\]"):
        CrystalGNNConfig(log=("hardness",))


def test_large_crystal():
    """A crystal of 1,000 atoms without symmetry goes through beside a small one."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(10)] * 3, indexing="ij"), -1).reshape(-1, 3)
    frac = (grid + rng.normal(0, 0.05, grid.shape)) / 10
    large = Crystal.without_symmetry(np.eye(3) * 28.0, frac, rng.choice([11, 17], 1000))
    small = small_batch((225,)).to_crystals()[0]
    graph = site_graph(CrystalBatch.from_crystals([small, large, small]), 3.6)
    assert isinstance(graph, SiteGraph)
    features = _network()(graph).features
    assert bool(features.isfinite().all())
    assert largest(features[0] - features[2]) < 1e-12


@pytest.mark.parametrize("convolution", ["orbit", "painn"])
def test_dropout_acts_in_training_alone(convolution):
    network = _network(convolution, dropout=0.5)
    graph = site_graph(small_batch((62, 225)), 3.6)
    assert largest(network.train()(graph).features - network(graph).features) > 0
    assert largest(network.eval()(graph).features - network(graph).features) == 0


def test_strain_turns_bonds_as_a_deformed_cell_does():
    batch = small_batch((1, 15, 225))
    graph = site_graph(batch, 3.6)
    longer = graph.strained(0.01 * torch.eye(3, dtype=graph.vector.dtype).expand(3, 3, 3))
    assert torch.allclose(longer.distance, 1.01 * graph.distance)
    shear = torch.zeros(3, 3, 3, dtype=graph.vector.dtype)
    shear[1, 0, 1] = 0.1
    turned = graph.strained(shear)
    turn = torch.tensor([0.1, 1.0, 0.0], dtype=graph.vector.dtype)
    mine = graph.crystal[graph.site] == 1
    assert torch.allclose(turned.vector[mine][:, 1], graph.vector[mine] @ turn)
    assert torch.equal(turned.vector[~mine], graph.vector[~mine])
