import numpy as np
import torch
from ase.data import covalent_radii

from autoperi.crystals.crystal import Crystal, CrystalBatch
from property_models.physics.contacts import CONTACT, barrier_loss, contact_ratio
from property_models.potentials.potential import element_weights
from tests.autoperi.small import largest, small_batch, without_symmetry


def cubic(edge: float, species: list[int], frac: list[list[float]]) -> CrystalBatch:
    crystal = Crystal.without_symmetry(np.eye(3) * edge, np.array(frac), np.array(species))
    return CrystalBatch.from_crystals([crystal])


def test_an_atom_meets_its_own_images():
    """One polonium atom in a small cube: 6 contacts of edge/(2 r), each counted once for two atoms."""
    radius = covalent_radii[84]
    batch = cubic(1.2 * radius, [84], [[0.0, 0.0, 0.0]])
    weights = element_weights(batch)
    assert largest(contact_ratio(batch, weights) - 0.6) < 1e-12
    assert largest(barrier_loss(batch, weights) - 3 * (CONTACT - 0.6) ** 2) < 1e-12


def test_a_pair_counts_once():
    """Two atoms at ratio 0.5, far from all images: ½ (0.25² + 0.25²) over two atoms; none at 0.8."""
    reach = covalent_radii[8] + covalent_radii[26]
    for ratio, expected in ((0.5, 0.5 * 0.25**2), (0.8, 0.0)):
        batch = cubic(12.0, [8, 26], [[0, 0, 0], [ratio * reach / 12, 0, 0]])
        assert largest(barrier_loss(batch, element_weights(batch)) - expected) < 1e-12
        assert largest(contact_ratio(batch, element_weights(batch)) - ratio) < 1e-12


def test_symmetry_changes_nothing():
    """On sites or on all atoms, the barrier and the closest contact of a crystal are the same."""
    batch = small_batch()
    full, _ = without_symmetry(batch)
    for function in (barrier_loss, contact_ratio):
        few, all_ = (function(b, element_weights(b)) for b in (batch, full))
        assert largest(few) > 0.01
        assert largest(few - all_) < 1e-9


def test_soft_species_have_the_mean_radius():
    batch = cubic(3.0, [11], [[0.0, 0.0, 0.0]])
    half = torch.zeros(1, 94, dtype=torch.float64)
    half[0, [10, 16]] = 0.5
    assert largest(contact_ratio(batch, half) - 3.0 / (covalent_radii[11] + covalent_radii[17])) < 1e-12


def test_nothing_near_is_infinite():
    batch = cubic(9.0, [18], [[0.0, 0.0, 0.0]])
    assert contact_ratio(batch, element_weights(batch)).tolist() == [float("inf")]
    assert largest(barrier_loss(batch, element_weights(batch))) == 0
