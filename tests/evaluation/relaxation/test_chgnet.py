"""CHGNet as computed here against CHGNet as computed by its own package."""

import contextlib
import io
import warnings
from functools import cache

import numpy as np
import pytest
from ase.units import GPa
from pymatgen.core import Lattice, Structure

from autoperi.data.element_references import ElementReferences
from evaluation.relaxation.chgnet import CHGNET, chgnet
from evaluation.relaxation.operations import Projection, symmetric_crystal
from tests.evaluation.crystals import disguised, rocksalt, rutile, wurtzite, zoo


@cache
def original():
    from chgnet.model.model import CHGNet

    with contextlib.redirect_stdout(io.StringIO()):
        return CHGNet.load(use_device="cpu", verbose=False)


def predicted(crystal):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return original().predict_structure(crystal)


def test_a_batch_gives_what_chgnet_gives_one_by_one():
    crystals = [crystal.perturb(0.1) for crystal in zoo()]
    crystals.append(Structure(Lattice.orthorhombic(3, 7, 8), ["Li", "H"], [[-0.6, 0, 0], [1.1, 0.4, 0.3]]))
    result = chgnet()(*zip(*map(chgnet().as_it_stands, crystals), strict=True))
    start = 0
    for crystal, energy, virial in zip(crystals, result.energies, result.virials, strict=True):
        expected = predicted(crystal)
        atoms = slice(start, start := start + len(crystal))
        assert energy / len(crystal) == pytest.approx(expected["e"], abs=1e-5)
        assert -result.gradients[atoms] == pytest.approx(expected["f"], abs=2e-4)
        stress = (expected["s"] + expected["s"].T) / 2
        assert virial / crystal.volume / GPa == pytest.approx(stress, abs=2e-3)


def test_a_crystal_without_short_bonds_has_no_angles():
    xenon = Structure(Lattice.cubic(4.5), ["Xe"], [[0, 0, 0]])
    graph, cart, cell = chgnet().as_it_stands(xenon)
    alone = chgnet()([graph], [cart], [cell])
    assert alone.energies[0] == pytest.approx(predicted(xenon)["e"], abs=1e-5)
    salt = chgnet().as_it_stands(rocksalt())
    beside = chgnet()([graph, salt[0]], [cart, salt[1]], [cell, salt[2]])
    assert beside.energies[0] == pytest.approx(alone.energies[0], abs=1e-5)


@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("seed", [None, 0])
def test_one_atom_of_each_orbit_is_enough(which, seed):
    """Energy of the quotient graph = energy of the full one; so are the projected derivatives."""
    crystal = zoo()[which] if seed is None else disguised(zoo()[which], seed)
    cell, numbers = np.array(crystal.lattice.matrix), np.array(crystal.atomic_numbers)
    exact = symmetric_crystal(cell, crystal.frac_coords, numbers, 0.01)
    cell, numbers, operations = 1.02 * exact.cell, exact.numbers, exact.operations
    cart = exact.frac @ cell
    graph = chgnet().graph(cell, cart, numbers, operations)
    full = chgnet().as_it_stands(Structure(cell, numbers, exact.frac))
    assert len(graph.numbers) == len(set(crystal.symbol_set))
    assert len(graph.center) < len(full[0].center) / 4
    few, all_ = chgnet()([graph], [cart], [cell]), chgnet()(*zip(full))
    projection = Projection(operations.images, operations.cartesian(cell))
    assert few.energies == pytest.approx(all_.energies, abs=1e-5 * len(numbers))
    assert projection.vectors(few.gradients) == pytest.approx(all_.gradients, abs=2e-4)
    assert projection.tensor(few.virials[0]) == pytest.approx(all_.virials[0], abs=2e-4 * len(numbers))


def test_an_old_graph_serves_within_its_skin():
    """Edges beyond the cut-offs change nothing, so a reused graph equals a fresh one."""
    crystal = rutile()
    graph, cart, cell = chgnet().as_it_stands(crystal)
    rng = np.random.default_rng(0)
    moved = cart + rng.uniform(-0.05, 0.05, cart.shape)
    stretched = cell * 0.99
    moved = moved @ np.linalg.inv(cell) @ stretched
    old = chgnet()([graph], [moved], [stretched])
    fresh = chgnet()(
        *zip(chgnet().as_it_stands(Structure(stretched, crystal.species, moved, coords_are_cartesian=True)))
    )
    assert old.energies == pytest.approx(fresh.energies, abs=2e-5)
    assert old.gradients == pytest.approx(fresh.gradients, abs=2e-4)


def test_gradients_are_those_of_the_energy():
    crystal = wurtzite().perturb(0.1)
    graph, cart, cell = chgnet().as_it_stands(crystal)
    rng = np.random.default_rng(1)
    way, strain = rng.normal(size=cart.shape), rng.normal(size=(3, 3))
    strain = strain + strain.T
    result = chgnet()([graph], [cart], [cell])
    h = 2e-3

    def energy(sign, positions, box):
        return sign * chgnet()([graph], [positions], [box], derivatives=False).energies[0]

    along = sum(energy(s, cart + s * h * way, cell) for s in (1, -1)) / (2 * h)
    assert (result.gradients * way).sum() == pytest.approx(along, rel=2e-2, abs=5e-3)
    stretch = {s: np.eye(3) + s * h * strain for s in (1, -1)}
    along = sum(energy(s, cart @ stretch[s], cell @ stretch[s]) for s in (1, -1)) / (2 * h)
    assert (result.virials[0] * strain).sum() == pytest.approx(along, rel=2e-2, abs=2e-2)


def test_static_energy_gives_the_known_formation_energy_of_salt():
    lonely = Structure(Lattice.cubic(30), ["Na"], [[0, 0, 0]])
    unknown = Structure(Lattice.cubic(4), ["Cm"], [[0, 0, 0]])
    energies = list(CHGNET.static_energies([rocksalt(), lonely, unknown, rocksalt()]))
    assert np.isnan(energies[1:3]).all()
    assert energies[0] == pytest.approx(energies[3], abs=1e-4)
    # Materials Project mp-22862: -2.10 eV/atom.
    formation = ElementReferences.load().formation_energy("NaCl", energies[0])
    assert formation == pytest.approx(-2.1, abs=0.1)


def test_impossible_crystals_are_named():
    with pytest.raises(ValueError, match="1 atoms without a neighbour"):
        chgnet().as_it_stands(Structure(Lattice.cubic(30), ["Na"], [[0, 0, 0]]))
    for side in (0.3, 0.01):
        with pytest.raises(ValueError, match="too dense"):
            chgnet().as_it_stands(Structure(Lattice.cubic(side), ["H"], [[0, 0, 0]]))
    with pytest.raises(ValueError, match="one place"):
        chgnet().as_it_stands(Structure(Lattice.cubic(4), ["H", "H"], [[0, 0, 0], [0, 0, 1]]))
