"""Adsorption: energies against slab and gas, what becomes of molecules, strange ones refused."""

import ase.io
import numpy as np
import pytest

from autoperi.discovery.surfaces.adsorbates import Adsorbate
from autoperi.discovery.surfaces.adsorption import Adsorbed, adsorb, prepared, save
from autoperi.discovery.surfaces.placement import Placement, by_sites
from autoperi.discovery.surfaces.slabs import slab_for_molecules
from evaluation.relaxation.chgnet import CHGNET
from tests.autoperi.discovery.surfaces.test_slabs import MAGNESIA
from tests.prototypes import prototype


@pytest.fixture(scope="module")
def copper():
    return prepared(slab_for_molecules(prototype("Cu fcc"), (1, 1, 1)), CHGNET)


@pytest.fixture(scope="module")
def oxide():
    return Adsorbate.of("CO", CHGNET)


def test_the_gas_is_relaxed_and_an_atom_is_half_of_its_molecule(oxide):
    assert np.linalg.norm(oxide.positions[0] - oxide.positions[1]) == pytest.approx(1.14, abs=0.04)
    atom, molecule = (Adsorbate.of(name, CHGNET) for name in ("H", "H2"))
    assert atom.gas == molecule.gas / 2
    assert atom.positions.tolist() == [[0, 0, 0]]
    for strange in ("H3O", "Li", "Cu"):
        with pytest.raises(ValueError, match=f"g2 set .* or one of H, N, O, F, Cl: got {strange}"):
            Adsorbate.of(strange, CHGNET)


def test_half_of_the_slab_is_held_and_energies_are_told_against_slab_and_gas(copper, oxide, tmp_path):
    assert copper.held.any()
    assert not copper.held.all()
    start = by_sites(copper.structure, oxide, 2, 0)[1]
    far = Placement(start.centre + np.array([0, 0, 7.0]), start.rotation)
    near, gone = adsorb(copper, oxide, [start, far], CHGNET)
    assert (near.state, gone.state) == ("intact", "gone")
    assert near.energy < -0.5
    assert gone.energy == pytest.approx(0.0, abs=0.06)  # molecules feel each other across 5 Å
    n = len(copper.structure)
    moved = np.linalg.norm(near.structure.cart_coords[:n] - copper.structure.cart_coords, axis=1)
    assert moved[copper.held].max() < 1e-9
    assert near.structure.lattice == copper.structure.lattice
    broken = Adsorbed(start, float("nan"), "no energy")
    assert save([broken, gone, near], tmp_path).state.tolist() == ["intact", "gone", "no energy"]
    frames = ase.io.read(tmp_path / "placed.extxyz", ":")
    assert [len(frame) for frame in frames] == [n + 2, n + 2]


def test_a_molecule_that_has_lost_a_bond_is_not_intact(oxide):
    apart = oxide.positions * [[1], [2]]
    assert oxide.intact(oxide.positions + 3.0)
    assert not oxide.intact(apart)


def test_a_bulk_is_no_surface():
    with pytest.raises(ValueError, match="expected a slab with a vacuum"):
        prepared(MAGNESIA, CHGNET)
