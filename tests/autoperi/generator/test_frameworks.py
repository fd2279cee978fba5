"""A generator of frameworks: nets are drawn, SiO2 is delivered, in its words."""

import numpy as np
import pytest
import torch

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.symmetry import symmetrise
from autoperi.data.dataset import CrystalDataset
from autoperi.flow.relatives import Relatives
from autoperi.flow.settings import FlowSettings, Restart, Solver
from autoperi.flow.velocity import VelocityConfig
from autoperi.frameworks.net import tetrahedral_net
from autoperi.generator import CrystalGenerator, GeneratorConfig, SampleConfig
from autoperi.generator.delivery import NothingDrawnError
from autoperi.generator.frameworks import net_request, refuse_nets
from autoperi.genes.empirical import EmpiricalGenes
from autoperi.genes.network import GeneConfig
from autoperi.genes.request import GeneRequest
from autoperi.networks.autoencoder import AutoencoderConfig
from autoperi.networks.orbit_network import OrbitNetworkConfig
from evaluation.classes.zeolite import judge
from tests.evaluation.classes.test_zeolite import cristobalite, sodalite
from tests.evaluation.crystals import rocksalt

TRUNK = OrbitNetworkConfig(width=8, vectors=4, layers=1, cutoff=4.0, radial=6)
QUICK = SampleConfig(genes="empirical", flow=FlowSettings(solver=Solver(steps=2), restart=Restart(rounds=0)))


@pytest.fixture(scope="module")
def generator():
    """It has learned nothing, and knows the nets of sodalite and cristobalite, which have nothing free."""
    torch.manual_seed(0)
    small = GeneratorConfig(
        AutoencoderConfig(irreps="4x0e+2x1o+1x2e", decoder=TRUNK, cutoff=4.0),
        VelocityConfig(network=TRUNK),
        GeneConfig(width=16, depth=1, heads=2, n_max=20),
        conditions={},
        sites="tetrahedral",
    )
    made = CrystalGenerator(small).eval()
    known = [tetrahedral_net(symmetrise(structure)) for structure in (sodalite(), cristobalite(8.0))]
    made.empirical.put(EmpiricalGenes.from_crystals(known, {}).state_dict())
    made.geometry.put(Relatives.from_crystals(known).state_dict())
    scale = CrystalBatch.from_crystals(known).to(dtype=torch.float32)
    made.flow.velocity.scale.fit(scale)
    made.flow.autoencoder.decoder.scale.fit(scale)
    return made


def test_whole_frameworks_are_delivered(generator):
    crystals = generator.sample(8, seed=1, config=QUICK)
    assert {crystal.formula for crystal in crystals} == {"SiO2"}
    assert {crystal.provenance["net"] for crystal in crystals} == {"229:d", "227:a"}
    assert all(judge(c.to_structure()).valid for c in crystals if c.provenance["net"] == "229:d")
    assert crystals == generator.sample(8, seed=1, config=QUICK)


def test_atoms_asked_for_are_those_of_the_framework(generator):
    crystals = generator.sample(4, seed=2, request=GeneRequest(n_atoms=(16, 18)), config=QUICK)
    assert {(c.n_atoms, c.space_group) for c in crystals} == {(18, 229)}
    assert net_request(GeneRequest(n_atoms=(16, 20)), None, None).n_atoms == (6, 6)


def test_what_is_refused_after_completion_is_named(generator):
    def keep(crystals):
        assert all(crystal.formula == "SiO2" for crystal in crystals)
        return ["too blue" for _ in crystals]

    with pytest.raises(NothingDrawnError, match="too blue"):
        generator.sample(2, seed=0, config=QUICK, keep=keep)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"request": GeneRequest(formula="SiO2")}, "no elements and no formula"),
        ({"request": GeneRequest(denied_elements=["O"])}, "no elements and no formula"),
        ({"request": GeneRequest(n_atoms=(4, 5))}, "that three divides"),
        ({"guide": lambda *_: None}, "neither physics nor several tries"),
        ({"descent": list}, "neither physics nor several tries"),
    ],
)
def test_what_cannot_be_asked_of_frameworks(generator, asked, told):
    with pytest.raises(ValueError, match=told):
        generator.sample(1, config=QUICK, **asked)


def test_its_networks_see_nets(generator):
    dataset = CrystalDataset.from_crystals([symmetrise(sodalite()), symmetrise(rocksalt())], "two")
    seen = generator.seen(dataset)
    assert [crystal.gene for crystal in seen] == ["229:d"]
    assert len(seen.failures) == 1
    assert CrystalGenerator(GeneratorConfig()).seen(dataset) is dataset


def test_a_framework_that_is_too_large_is_named(generator):
    """2,304 atoms in one cell without symmetry: a message, no work."""
    structure = sodalite() * [4, 4, 4]
    moved = np.random.default_rng(0).normal(0, 0.08, (len(structure), 3)) @ structure.lattice.inv_matrix
    atoms = structure.lattice.matrix, structure.frac_coords + moved, np.array(structure.atomic_numbers)
    large = Crystal.without_symmetry(*atoms)
    assert large.n_atoms == 2304
    with pytest.raises(ValueError, match="expected 20 tetrahedral sites or fewer: got 768"):
        generator.seen(CrystalDataset.from_crystals([large], "large"))


def test_rooms_that_need_every_atom_refuse_nets(generator):
    with pytest.raises(ValueError, match="expected a checkpoint that draws every atom"):
        refuse_nets(generator.config)
    refuse_nets(GeneratorConfig())
