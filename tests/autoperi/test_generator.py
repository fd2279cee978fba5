import numpy as np
import pytest
import torch

from autoperi.crystals.crystal import CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from autoperi.flow.ode import Solver
from autoperi.flow.sampler import FlowSettings
from autoperi.flow.velocity import VelocityConfig
from autoperi.generator import CrystalGenerator, GeneratorConfig, SampleConfig, load, save
from autoperi.genes.network import GeneConfig
from autoperi.genes.prior import EmpiricalGenes
from autoperi.genes.request import GeneRequest
from autoperi.networks.autoencoder import AutoencoderConfig
from autoperi.networks.checkpoint import CheckpointError
from autoperi.networks.orbit_network import OrbitNetworkConfig

TRUNK = OrbitNetworkConfig(width=16, vectors=4, layers=2, cutoff=4.0, radial=6)
QUICK = FlowSettings(solver=Solver(steps=3), batch_size=4)


@pytest.fixture(scope="module")
def crystals(prototypes):
    return [symmetrise(s) for s in prototypes.values()]


@pytest.fixture(scope="module")
def generator(crystals):
    torch.manual_seed(0)
    small = GeneratorConfig(
        AutoencoderConfig(irreps="4x0e+2x1o+1x2e", decoder=TRUNK, cutoff=4.0),
        VelocityConfig(network=TRUNK),
        GeneConfig(width=16, depth=1, heads=2),
    )
    made = CrystalGenerator(small).eval()
    made.empirical.put(EmpiricalGenes.from_crystals(crystals).state_dict())
    scale = CrystalBatch.from_crystals(crystals).to(dtype=torch.float32)
    made.flow.velocity.scale.fit(scale)
    made.flow.autoencoder.decoder.scale.fit(scale)
    return made


@pytest.mark.parametrize("genes", ["learned", "empirical"])
@pytest.mark.parametrize("species", ["prior", "flow"])
def test_every_mode_gives_whole_crystals(generator, genes, species):
    """Each of the four combinations fills species, geometry, id and provenance."""
    drawn = generator.sample(5, 3, config=SampleConfig(genes=genes, species=species, flow=QUICK))
    assert len(drawn) == 5
    for i, crystal in enumerate(drawn):
        assert (crystal.species > 0).all()
        assert np.isfinite(crystal.lattice_coords).all()
        assert crystal.id == f"{i:06d}"
        assert {"seed", "index", "sha256"} <= crystal.provenance.keys()
        assert crystal.to_structure().is_valid(tol=0.0)


def test_workers_do_not_change_the_result(generator):
    """The same seed gives the same crystals with one thread and with two."""
    one = generator.sample(9, 1, config=SampleConfig(flow=QUICK))
    two = generator.sample(9, 1, config=SampleConfig(flow=QUICK, workers=2))
    for a, b in zip(one, two, strict=True):
        assert a.gene == b.gene
        np.testing.assert_array_equal(a.species, b.species)
        np.testing.assert_allclose(a.lattice_coords, b.lattice_coords, atol=1e-4)


def test_the_first_crystals_do_not_depend_on_how_many_follow(generator):
    """Crystal i is the same in a short and in a long draw."""
    short = generator.sample(3, 5, config=SampleConfig(flow=QUICK))
    long = generator.sample(8, 5, config=SampleConfig(flow=QUICK))
    for a, b in zip(short, long, strict=False):
        assert (a.gene, a.formula) == (b.gene, b.formula)
        np.testing.assert_allclose(a.free, b.free, atol=1e-4)


def test_requests_are_met_exactly(generator):
    """Formula and space group hold in every crystal."""
    request = GeneRequest(formula="BaTiO3", space_groups=[221])
    drawn = generator.sample(3, 0, request=request, config=SampleConfig(flow=QUICK))
    assert {(c.formula, c.space_group) for c in drawn} == {("BaTiO3", 221)}


def test_an_impossible_request_is_refused_with_the_reason(generator):
    """Three atoms of Fe2O cannot sit on the orbits of Ia-3d within 20 atoms."""
    with pytest.raises(ValueError, match="230"):
        generator.sample(1, 0, request=GeneRequest(formula="Fe2O", space_groups=[230], n_atoms=(1, 20)))


@pytest.mark.parametrize(("n", "text"), [(0, "at least one"), (-3, "n = -3")])
def test_no_crystals_is_an_error(generator, n, text):
    """A count below one is refused."""
    with pytest.raises(ValueError, match=text):
        generator.sample(n)


def test_checkpoint_round_trip(generator, tmp_path):
    """A saved generator draws the same crystals after loading, and so does what is saved from that."""
    save(generator, tmp_path / "once", {})
    rounded = load(tmp_path / "once")
    save(rounded, tmp_path / "mine", {"command": "test"})
    again = load(tmp_path / "mine")
    assert again.name == "mine"
    assert again.about == {"command": "test"}
    for name, weight in generator.state_dict().items():
        assert torch.allclose(again.state_dict()[name], weight, rtol=1e-3, atol=1e-6, equal_nan=True)
    for genes in ("learned", "empirical"):
        config = SampleConfig(genes=genes, flow=QUICK)
        for a, b in zip(rounded.sample(2, 0, config=config), again.sample(2, 0, config=config), strict=True):
            assert a.formula == b.formula
            np.testing.assert_array_equal(a.free, b.free)


def test_unknown_checkpoint_names_the_known_ones():
    """The error lists what is shipped."""
    with pytest.raises(CheckpointError, match="mp_20"):
        load("no_such_checkpoint")


def test_shipped_checkpoint_samples():
    """The weights in the package draw crystals with no data folder."""
    drawn = load("mp_20").sample(4, 0, config=SampleConfig(flow=QUICK))
    assert [c.id for c in drawn] == ["000000", "000001", "000002", "000003"]
