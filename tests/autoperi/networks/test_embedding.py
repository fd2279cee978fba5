import pytest
import torch

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.lattice import VOLUME
from autoperi.networks.embedding import (
    CrystalEmbedding,
    LatticeScale,
    SiteEmbedding,
    known_sites,
    time_features,
)
from tests.autoperi.small import SOME_GROUPS, largest, small_crystal


@pytest.fixture(scope="module")
def batch():
    numbers = [g for g in SOME_GROUPS for _ in range(2)] + [225] * 25
    return CrystalBatch.from_crystals([small_crystal(g, i, sites=2) for i, g in enumerate(numbers)])


@pytest.fixture(scope="module")
def scale(batch):
    scale = LatticeScale().double()
    scale.fit(batch)
    return scale


def test_lattice_scale_inverts(batch, scale):
    """to_coords(from_coords(ℓ)) = ℓ, and z is zero wherever the family fixes the coordinate."""
    z = scale.from_coords(batch.lattice_coords, batch)
    assert largest(scale.to_coords(z, batch) - batch.lattice_coords) < 1e-7
    assert largest(z * (1 - batch.lattice_mask())) == 0


def test_any_z_has_the_metric_of_its_family(batch, scale):
    """Whatever z is, the lattice keeps the coordinates that the family fixes."""
    z = torch.randn(batch.n_crystals, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coords = scale.to_coords(z, batch)
    fixed = batch.lattice_mask() == 0
    assert largest((coords - batch.lattice_coords)[fixed]) < 1e-7


def test_fitted_scale_is_standard(batch, scale):
    """In a family with enough members, z of the training set has mean 0 and variance 1."""
    z = scale.from_coords(batch.lattice_coords, batch)[batch.family() == 5, VOLUME]
    assert float(z.mean()) == pytest.approx(0, abs=1e-9)
    if float(scale.spread[5, VOLUME]) > 0.02:
        assert float(z.std()) == pytest.approx(1, abs=1e-9)


def test_mean_volume_follows_the_number_of_atoms(scale):
    """At z = 0 the volume per atom is the same for cells of any size and centring of a family."""
    crystals = [small_crystal(g, i, sites=3) for i, g in enumerate([225, 225, 221, 229, 216, 205])]
    batch = CrystalBatch.from_crystals(crystals)
    coords = scale.to_coords(torch.zeros(len(crystals), 6, dtype=torch.float64), batch)
    still = batch.with_geometry(batch.free, coords)
    per_atom = torch.linalg.det(still.lattice()).abs() / batch.n_atoms()
    assert largest(per_atom / per_atom[0] - 1) < 1e-9


def test_log_volume_change_is_the_jacobian(batch, scale):
    """log |dz/dℓ| over the free coordinates equals the determinant by automatic differentiation."""
    for i in (0, 4, 20, 40, 60):
        one = batch.select(torch.tensor([i]))
        jacobian = torch.autograd.functional.jacobian(
            lambda coords, one=one: scale.from_coords(coords, one), one.lattice_coords
        )[0, :, 0]
        free = one.lattice_mask()[0] > 0
        expected = torch.linalg.slogdet(jacobian[free][:, free])[1]
        assert largest(scale.log_volume_change(one) - expected) < 1e-9


def test_embeddings_read_the_gene(batch):
    """The number of features is as announced; unknown and known species differ; z enters as it is."""
    torch.manual_seed(0)
    sites, crystals = SiteEmbedding(4).double(), CrystalEmbedding(4).double()
    known = sites(batch)
    unknown = sites(batch.with_species(torch.zeros_like(batch.species)))
    assert known.shape == (batch.n_sites, sites.outputs)
    assert float((known - unknown).detach().abs().amax(1).min()) > 0
    z = torch.randn(batch.n_crystals, 6, dtype=torch.float64)
    said = crystals(batch, z)
    assert said.shape == (batch.n_crystals, crystals.outputs)
    assert torch.equal(said[:, -6:], z)


def test_time_features_tell_times_apart():
    """17 bounded numbers, different at any two of a thousand times in [0, 1]."""
    features = time_features(torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert features.shape == (1001, 17)
    assert float(features.abs().max()) <= 1
    assert float(torch.pdist(features).min()) > 1e-3


def test_known_sites_hides_as_it_says():
    """All species known on 60% of the crystals, none on 20%, a uniform share on the rest.

    Known species are never changed.
    """
    n, k = 4000, 10
    crystal = torch.arange(n).repeat_interleave(k)
    species = torch.randint(1, 101, (n * k,), generator=torch.Generator().manual_seed(0))
    known = known_sites(species, crystal, torch.Generator().manual_seed(1))
    assert bool(((known == species) | (known == 0)).all())
    share = (known > 0).reshape(n, k).double().mean(1)
    assert float((share == 1).double().mean()) == pytest.approx(0.6 + 0.2 / 11, abs=0.03)
    assert float((share == 0).double().mean()) == pytest.approx(0.2 + 0.2 / 11, abs=0.03)
    assert torch.equal(known, known_sites(species, crystal, torch.Generator().manual_seed(1)))
