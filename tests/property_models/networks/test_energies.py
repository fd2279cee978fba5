from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from autoperi.crystals.crystal import MAX_Z, CrystalBatch
from autoperi.crystals.hull import Hull
from autoperi.data.dataset import CrystalDataset
from autoperi.networks.checkpoint import CheckpointError
from autoperi.networks.config import ConfigError
from property_models.graph.site_graph import SiteGraph, site_graph
from property_models.model import load, save
from property_models.networks.crystal_gnn import CrystalGNN
from property_models.networks.energies import CUTOFF, Phases, PotentialEnergy, fractions
from property_models.networks.ensemble import Ensemble, EnsembleConfig
from property_models.potentials import distilled
from property_models.potentials.potential import element_weights
from property_models.potentials.references import composition, element_references
from tests.autoperi.small import small_crystal
from tests.property_models.small import TINY

WIDE = replace(TINY, cutoff=6.0)
CRYSTALS = [small_crystal(group, 3) for group in (2, 62, 194, 225)]


@pytest.fixture(scope="module")
def batch() -> CrystalBatch:
    return CrystalBatch.from_crystals(CRYSTALS)


@pytest.fixture(scope="module")
def graph(batch) -> SiteGraph:
    return site_graph(batch.to(dtype=torch.float32), WIDE.cutoff)


@pytest.fixture(scope="module")
def phases() -> CrystalDataset:
    energies = (-0.4, -0.1, 0.3, -0.2)
    pairs = zip(CRYSTALS, energies, strict=True)
    labelled = [replace(c, properties={"formation_energy": e}) for c, e in pairs]
    return CrystalDataset.from_crystals(labelled, "phases")


@pytest.fixture(scope="module")
def ensemble(phases) -> Ensemble:
    torch.manual_seed(0)
    made = Ensemble.of([CrystalGNN(WIDE), CrystalGNN(WIDE)], "guide", PotentialEnergy().sha256, hull=True)
    made.phases.learn(phases)
    return made


def test_baseline_is_the_formation_energy_of_the_potential(batch, graph):
    """On graphs that reach farther than the potential too; from 1 eV/atom on it grows as a logarithm."""
    weights = element_weights(batch)
    x = composition(batch, weights)
    expected = distilled.load().energy(batch).double() - x @ element_references()
    expected = torch.where(expected > 1, 1 + expected.clamp_min(1).log(), expected)
    torch.testing.assert_close(PotentialEnergy()(graph).double(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fractions(graph).double(), x, atol=1e-6, rtol=0)


def test_networks_add_to_the_baseline_and_the_hull_is_subtracted(ensemble, graph, phases):
    """Two columns, one error: formation energy, and its height above the hull of the phases."""
    found = ensemble(graph)
    assert ensemble.targets == ("formation_energy", "e_above_hull")
    networks = torch.stack([m(graph).mean for m in ensemble.networks()]).mean(0)[:, 0]
    torch.testing.assert_close(found.value[:, 0], networks + PotentialEnergy()(graph))
    hull = Hull(phases.compositions(), phases.labels["formation_energy"])
    floor = torch.tensor([hull.energy(c) for c in phases.compositions()], dtype=torch.float32)
    torch.testing.assert_close(found.value[:, 1], found.value[:, 0] - floor, atol=1e-5, rtol=0)
    assert found.uncertainty[:, 0].tolist() == found.uncertainty[:, 1].tolist()


def test_phases_off_the_hull_are_not_kept(phases):
    kept = Phases()
    assert not kept.known
    kept.learn(phases)
    assert kept.known
    assert len(kept.get_buffer("energies")) == 3  # one lies above the elements


def test_energies_are_differentiable_in_geometry_and_soft_species(ensemble, batch):
    strained = site_graph(batch.to(dtype=torch.float32), WIDE.cutoff)
    vector = strained.vector.clone().requires_grad_()
    species = one_hot(strained.species, MAX_Z + 1).float().requires_grad_()
    ensemble(replace(strained, vector=vector, species=species)).value[:, 1].sum().backward()
    for leaf in (vector, species):
        assert leaf.grad is not None
        assert float(leaf.grad.abs().max()) > 0


def test_a_checkpoint_keeps_phases_and_names_its_potential(ensemble, tmp_path):
    """What is loaded tells the same; weights of another potential are refused."""
    save(ensemble, tmp_path, {"figures": {}})
    model = load(tmp_path)
    assert model.targets == ("formation_energy", "e_above_hull")
    table, again = model.predict(CRYSTALS), model.only(["e_above_hull"]).predict(CRYSTALS)
    np.testing.assert_allclose(table["e_above_hull"], again["value"])
    assert model.fast().predict(CRYSTALS)["e_above_hull"].notna().all()
    with pytest.raises(
        CheckpointError, match="expected the potential abc, which this model has learned with"
    ):
        Ensemble(replace(ensemble.config, potential="abc")).refuse_other_potential()


def test_settings_that_cannot_be_are_refused():
    sha = PotentialEnergy().sha256
    with pytest.raises(ConfigError, match="expected formation_energy alone"):
        EnsembleConfig(replace(WIDE, targets=("band_gap",)), 1, potential=sha)
    for network in (replace(WIDE, nearest=12), TINY):
        with pytest.raises(ConfigError, match=r"expected all neighbours within the 5\.0 Å of the potential"):
            EnsembleConfig(network, 1, potential=sha)


def test_the_cutoff_is_that_of_the_shipped_potential():
    assert PotentialEnergy().potential.config.cutoff == CUTOFF
