"""From nets of tetrahedral sites to frameworks, judged by the rules of the judge."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.frameworks.net import FrameworkError, bridges, framework, nets, tetrahedral_net
from evaluation.classes.zeolite import judge
from tests.evaluation.classes.test_zeolite import cristobalite, sodalite
from tests.evaluation.crystals import diamond, disguised, rocksalt


@pytest.fixture
def net():
    return tetrahedral_net(symmetrise(sodalite()))


def displaced(net, far, seed=0):
    """The net with its sites moved within their Wyckoff sets, Å, and its cell strained."""
    batch, rng = CrystalBatch.from_crystals([net]), np.random.default_rng(seed)
    arrows = torch.from_numpy(rng.normal(0, far, (net.n_sites, 3)))
    strain = 0.1 * far * rng.normal(0, 1, 6) * batch.lattice_mask()[0].numpy()
    free = np.where(batch.free_mask().numpy() > 0, (net.free + batch.tangent(arrows).numpy()) % 1.0, 0.0)
    return replace(net, free=free, lattice_coords=net.lattice_coords + strain)


def test_net_of_a_framework(net):
    assert net.gene == "229:d"
    assert net.formula == "Si"
    assert tetrahedral_net(symmetrise(disguised(sodalite(), 2))).gene == net.gene


def test_oxygen_is_in_the_middle_of_every_bond(net):
    bridged = bridges(net)
    assert bridged.formula == "SiO2"
    assert bridged.space_group == net.space_group
    assert bridged.n_atoms == 3 * net.n_atoms
    structure = bridged.to_structure()
    oxygen = next(site for site in structure if site.specie.symbol == "O")
    near = sorted(n.nn_distance for n in structure.get_neighbors(oxygen, 2.0))
    assert len(near) == 2
    assert near[0] == pytest.approx(near[1])


def test_framework_is_the_one_that_the_net_came_from(net):
    made = framework(replace(net, id="mine", properties={"a": 1.0}, provenance={"seed": 3}))
    assert judge(made.to_structure()).identity == judge(sodalite()).identity
    assert made.space_group == net.space_group
    assert StructureMatcher().fit(made.to_structure(), sodalite())
    assert (made.id, made.properties, made.provenance["seed"]) == ("mine", {"a": 1.0}, 3)
    assert made.provenance["net"] == net.gene
    assert made.provenance["misfit"] < 0.02


def test_a_straight_bridge_is_bent_where_symmetry_lets_it():
    """Cristobalite of the highest symmetry has straight bridges, and none may bend under it."""
    straight = framework(tetrahedral_net(symmetrise(cristobalite())))
    assert straight.space_group == 227
    bent = framework(tetrahedral_net(symmetrise(sodalite())))
    structure = bent.to_structure()
    oxygen = next(site for site in structure if site.specie.symbol == "O")
    a, b = (n.coords - oxygen.coords for n in structure.get_neighbors(oxygen, 2.0))
    angle = np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    assert 140 < angle < 170


def test_nothing_is_left_to_chance(net):
    first, again = framework(displaced(net, 0.1)), framework(displaced(net, 0.1))
    assert first == again


@pytest.mark.parametrize(
    ("space_group", "letters", "free", "cell"),
    [
        (166, "i", [[0.626, 0.407, 0.84]], (0.003, 2.566)),
        (187, "lo", [[0.59, 0.92, 0], [0.746, 0.746, 0.316]], (0.111, 2.32)),
    ],
)
def test_rounding_of_a_draw_does_not_show(space_group, letters, free, cell):
    """Single precision rounds a draw by the size of its batch: axes, sites and cell stay what they are."""
    positions = np.array([wyckoff_table().index(space_group, letter) for letter in letters])
    shape = np.array([-0.275, 0, 0, 0, *cell])  # hexagonal
    drawn = Crystal(space_group, positions, np.full(len(letters), 14), np.array(free, float), shape)
    whole, rng = framework(drawn), np.random.default_rng(0)
    for _ in range(3):
        moved = np.where(drawn.free > 0, drawn.free + rng.normal(0, 1e-6, drawn.free.shape), 0.0)
        stretched = shape + np.array([0, 0, 0, 0, *rng.normal(0, 1e-6, 2)])
        again = framework(replace(drawn, free=moved, lattice_coords=stretched))
        assert again.wyckoff.tolist() == whole.wyckoff.tolist()
        assert again.free == pytest.approx(whole.free, abs=1e-8)
        assert again.lattice_coords == pytest.approx(whole.lattice_coords, abs=1e-8)


@pytest.mark.data
def test_frameworks_of_the_iza_come_back_from_displaced_nets(data_folder):
    known = nets(load_dataset("zeolites", "val", data_folder, progress=False), 60)
    assert len(known) >= 8
    whole = {crystal.id: crystal for crystal in load_dataset("zeolites", "val", data_folder, progress=False)}
    back = 0
    for number, net in enumerate(known):
        try:
            made = framework(displaced(net, 0.15, number))
        except FrameworkError:
            continue
        back += judge(made.to_structure()).identity == judge(whole[net.id].to_structure()).identity
    assert back >= 0.7 * len(known)


@pytest.mark.parametrize(
    ("structure", "told"),
    [(rocksalt(), "one cation and oxygen"), (diamond(), "one cation and oxygen")],
)
def test_what_has_no_tetrahedral_net(structure, told):
    with pytest.raises(FrameworkError, match=told):
        tetrahedral_net(symmetrise(structure))


def test_what_makes_no_framework():
    crowded = symmetrise(rocksalt("Si", "Si", 4.4))  # a simple cubic net has six neighbours
    with pytest.raises(FrameworkError, match="expected four neighbours of every site"):
        framework(crowded)


def test_a_sheet_is_no_framework():
    sheet = Structure(Lattice.orthorhombic(3.07, 3.07, 9), ["Si"], [[0, 0, 0]])
    with pytest.raises(FrameworkError, match="connected in three directions"):
        bridges(symmetrise(sheet))


def test_nets_of_a_data_set_name_what_is_left_out():
    crystals = [
        replace(symmetrise(structure), id=name)
        for name, structure in (("SOD", sodalite()), ("CRI", cristobalite()), ("salt", rocksalt()))
    ]
    dataset = CrystalDataset.from_crystals(crystals, "three")
    found = nets(dataset, 4)
    assert found.ids.tolist() == ["CRI"]
    reasons = {name: reason for name, _, reason in found.failures}
    assert reasons["SOD"] == "expected 4 tetrahedral sites or fewer: got 6"
    assert "one cation" in reasons["salt"]
    with pytest.raises(ValueError, match=r"expected SiO2 frameworks in three: got none, first SOD"):
        nets(dataset, 1)


def test_a_cell_that_collapses_is_no_framework(net):
    flat = replace(net, lattice_coords=net.lattice_coords - np.array([0, 0, 0, 0, 0, 5.0]))
    with pytest.raises(FrameworkError, match="a cell has collapsed"):
        framework(flat)
