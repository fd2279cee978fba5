"""Every way that takes a device works there: on a pretended device always, on CUDA where there is one."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.device import usable_device
from autoperi.crystals.labels import DEFAULT_CONDITIONS
from autoperi.data.dataset import CrystalDataset
from autoperi.data.files import write_crystals
from autoperi.flow.settings import FlowSettings, Restart, Solver
from autoperi.flow.velocity import VelocityNetwork
from autoperi.generator import CrystalGenerator, GeneratorConfig, SampleConfig, load
from autoperi.genes.batch import GeneBatch
from autoperi.genes.critics.kin import KIN
from autoperi.genes.critics.real import GeneCritic, RealVsDrawn
from autoperi.genes.empirical import EmpiricalGenes
from autoperi.genes.network import GeneConfig, GeneNetwork
from autoperi.networks.autoencoder import Autoencoder
from autoperi.training import pipeline
from autoperi.training.fit import FitConfig
from autoperi.training.recipe import Recipe
from autoperi.training.stages import (
    AutoencoderTraining,
    CriticTraining,
    FlowTraining,
    GeneTraining,
    TrainingSet,
)
from evaluation.metrics.curve import training_figures
from evaluation.relaxation import relaxation
from evaluation.relaxation.chgnet import CHGNET, CHGNetPotential
from evaluation.relaxation.potential import BatchRelaxer
from property_models import model as property_models
from property_models.networks.crystal_gnn import CrystalGNN
from property_models.physics.guidance import energy_guidance
from property_models.training.fit_ensemble import LabelledGraphs, PropertyRecipe, PropertyTraining
from tests.autoperi.shell import command
from tests.autoperi.small import TINY_AUTOENCODER, TINY_VELOCITY, fit_scale, small_crystal
from tests.pretended_device import pretended_device
from tests.property_models.small import TINY, labelled_crystals, write_table

QUICK = FlowSettings(Solver(steps=2), Restart(1, steps=1), corrections=1)
SHORT = FitConfig(epochs=1, batch_size=8, warmup=2, cooldown=1)


def _crystals() -> list[Crystal]:
    crystals = [small_crystal(g, g, sites=2, max_atoms=8) for g in (2, 15, 62, 166, 194, 221)]
    return [replace(c, properties={"band_gap": i / 3}) for i, c in enumerate(crystals)]


@pytest.fixture
def generator():
    torch.manual_seed(0)
    sizes = GeneratorConfig(TINY_AUTOENCODER, TINY_VELOCITY, GeneConfig(width=16, depth=1, heads=2))
    made = CrystalGenerator(sizes).eval()
    made.empirical.put(EmpiricalGenes.from_crystals(_crystals()).state_dict())
    fit_scale(made.flow)
    return made


def _assert_same(one: list[Crystal], other: list[Crystal]) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a.gene, a.formula) == (b.gene, b.formula)
        np.testing.assert_allclose(a.free, b.free, atol=1e-5)
        np.testing.assert_allclose(a.lattice_coords, b.lattice_coords, atol=1e-5)


def test_the_pretended_device_refuses_what_a_gpu_refuses():
    """Two devices in one operation, numpy, a foreign generator; numbers and indices may lie on the CPU."""
    with pretended_device() as device:
        there = torch.arange(3.0, device=device)
        assert (there + torch.tensor(1.0))[torch.tensor([0, 2])].tolist() == [1, 3]
        for mixed in (
            lambda: there + torch.ones(3),
            lambda: torch.cat([there, torch.ones(1)]),
            lambda: torch.ones(3)[there.long()],
            lambda: there.numpy(),
            lambda: torch.rand(3, generator=torch.Generator(), device=device),
        ):
            with pytest.raises(RuntimeError, match=r"one device|not supported|generator"):
                mixed()


@pytest.mark.parametrize("genes", ["learned", "empirical"])
@pytest.mark.parametrize("species", ["prior", "flow"])
def test_sampling_on_a_device_gives_the_crystals_of_the_cpu(generator, genes, species):
    """Both priors, both ways of species, conditions and guidance; two workers."""
    config = SampleConfig(genes=genes, species=species, guidance=2.0, flow=QUICK, workers=2)
    expected = generator.sample(4, 0, conditions={"band_gap": 1.0}, config=config)
    with pretended_device() as device:
        drawn = generator.to(device).sample(4, 0, conditions={"band_gap": 1.0}, config=config)
    _assert_same(expected, drawn)


def test_latents_and_likelihoods_on_a_device_are_those_of_the_cpu(generator):
    """Encoding, decoding, trajectory, log-densities of geometry, gene and species."""

    def found() -> list[np.ndarray]:
        flow, crystals = generator.flow, _crystals()
        latents, solver = flow.encode(crystals), Solver(steps=2)
        parts = [*(c.free for c in flow.decode(latents, crystals))]
        parts += [c.free for c in flow.trajectory(crystals, 0, QUICK)[-1].to_crystals()]
        for probes in (0, 2):
            density = flow.log_prob(crystals[3:], solver, probes=probes)
            parts += [np.asarray(density.value), np.asarray(density.error)]
        return [*parts, np.asarray(generator.learned_genes().log_prob(crystals))]

    expected = found()
    with pretended_device() as device:
        generator.to(device)
        for a, b in zip(expected, found(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_energy_steers_on_a_device(generator):
    """The potential lies where the flow lies."""
    genes, late = _crystals()[2:5], replace(QUICK, settling=1)

    def drawn() -> list[Crystal]:
        return generator.flow.draw(genes, 0, settings=late, guide=energy_guidance(generator.flow, 0.01))

    expected = drawn()
    with pretended_device() as device:
        generator.to(device)
        _assert_same(expected, drawn())


@pytest.mark.parametrize("name", ["formation_energy", "band_gap"])
def test_prediction_on_a_device_is_that_of_the_cpu(name):
    """Ensembles with and without a gate."""
    crystals = _crystals()
    model = property_models.load(name)
    expected = model.predict(crystals)
    with pretended_device() as device:
        model.ensemble.to(device)
        pd.testing.assert_frame_equal(expected, model.predict(crystals))


def test_relaxation_on_a_device_is_that_of_the_cpu():
    """CHGNet there, geometry here."""
    crystal = small_crystal(221, 1).to_structure()
    steps = relaxation.RelaxationSettings(max_steps=2)
    expected = relaxation.relax(crystal, steps)
    with pretended_device() as device:
        fresh = BatchRelaxer("CHGNet there", "chgnet", CHGNetPotential, CHGNET.references)
        found = relaxation.relax(crystal, steps, str(device), fresh)
    assert found.energy_per_atom == pytest.approx(expected.energy_per_atom, abs=1e-5)


def test_every_training_learns_on_a_device():
    """Each loss of the five trainings has a gradient there, with validation's noise and with a batch's."""
    crystals = _crystals()
    batch = TrainingSet(CrystalBatch.from_crystals(crystals).to(dtype=torch.float32), torch.rand(6, 3))
    autoencoder, velocity = Autoencoder(TINY_AUTOENCODER), VelocityNetwork(TINY_VELOCITY)
    autoencoder.decoder.scale.fit(batch.crystals)
    velocity.scale.fit(batch.crystals)
    genes = GeneBatch.from_crystals(crystals, DEFAULT_CONDITIONS)
    targets = PropertyRecipe(targets=("formation_energy", "band_gap"), network=TINY).filled()
    labelled = CrystalDataset.from_crystals(labelled_crystals(6))
    graphs = LabelledGraphs.from_dataset(labelled, targets.network)
    network = CrystalGNN(targets.network)
    network.standardise(graphs.labels)
    kin = torch.ones(3, KIN)
    trainings = [
        (AutoencoderTraining(autoencoder, SHORT), batch),
        (FlowTraining(velocity, SHORT), batch.encoded(autoencoder.encoder)),
        (GeneTraining(GeneNetwork(GeneConfig(width=16, depth=1, heads=2)), SHORT), genes),
        (
            CriticTraining(GeneCritic(), SHORT),
            RealVsDrawn.of(crystals[:3], crystals[3:], (kin, kin)),
        ),
        (PropertyTraining(network, SHORT, strain=0.02), graphs),
    ]
    with pretended_device() as device:
        for training, data in trainings:
            training.to(device)
            for noise in (torch.default_generator, torch.Generator().manual_seed(0)):
                training.loss(data.to(device), noise)["total"].backward()
            slopes = [p.grad for p in training.parameters() if p.grad is not None]
            assert slopes
            assert all(slope.device == device for slope in slopes)


@pytest.fixture
def table(prototypes, tmp_path, monkeypatch):
    """A user's data in two CSV files."""
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "cache"))
    rows = [{"material_id": n, "cif": s.to(fmt="cif"), "band_gap": 1.0} for n, s in prototypes.items()]
    for split, part in (("train", rows[:12]), ("val", rows[12:16])):
        pd.DataFrame(part).to_csv(tmp_path / f"{split}.csv", index=False)
    return tmp_path


def test_the_curves_of_a_training_draw_where_its_network_lies(table, monkeypatch):
    """Lightning hands the network in training, on its device, to the curve of drawn crystals."""
    trained = {}
    monkeypatch.setattr(
        pipeline, "fit", lambda module, *_, callbacks=(): trained.update({module: callbacks}) or Path()
    )
    sizes = GeneratorConfig(TINY_AUTOENCODER, TINY_VELOCITY, GeneConfig(width=16, depth=1, heads=2))
    recipe = Recipe(str(table), 4, 2, 1, generator=sizes, genes=SHORT, flow=SHORT)
    weights = Autoencoder(TINY_AUTOENCODER).state_dict()
    monkeypatch.setattr(pipeline._Stages, "_weights", lambda *_: weights)
    for stage in ("genes", "flow"):
        pipeline.run_stage(recipe, table / "run", stage, None, training_figures)
    with pretended_device() as device:
        for module, (curve,) in trained.items():
            figures = curve.judge(module.network.to(device), 0)
            assert 0 <= figures["valid_and_new"] <= 1


@pytest.mark.parametrize(
    ("name", "text"),
    [("mps", "float64"), ("meta", "not supported"), ("typo", "cpu, cuda"), ("cuda:99", "finds"), ("", "cpu")],
)
def test_a_device_that_cannot_be_used_is_refused_in_words(name, text):
    """By everything that loads networks."""
    for refused in (
        usable_device,
        lambda n: load(device=n),
        lambda n: property_models.load("band_gap", "guide", n),
    ):
        with pytest.raises(ValueError, match=text):
            refused(name)


@pytest.mark.parametrize("arguments", [("sample",), ("predict", "PATH"), ("relax", "PATH")])
@pytest.mark.parametrize("name", ["mps", "typo", "cuda:99"])
def test_commands_refuse_a_device_in_one_line(arguments, name, tmp_path, capsys):
    """Status 2, before anything is written."""
    small_crystal(221, 1).to_structure().to(filename=str(tmp_path / "a.cif"))
    given = [str(tmp_path / "a.cif") if a == "PATH" else a for a in arguments]
    assert command(*given, "--device", name, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "device" in said[0]
    assert not (tmp_path / "out").exists()


def _command(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "autoperi.cli", *map(str, arguments)], check=True, timeout=600)


@pytest.mark.gpu
def test_sample_on_a_gpu(tmp_path):
    """Steered by conditions and energy, with likelihood and predictions; the genes are those of the CPU."""
    usual = ("sample", "--n", 8, "--band-gap", 1, "--guidance", 2, "--out")
    extra = ("--physics", 0.01, "--log-likelihood", "--predict", "formation_energy")
    _command(*usual, tmp_path / "gpu", *extra, "--device", "cuda")
    _command(*usual, tmp_path / "cpu")
    gpu, cpu = (pd.read_csv(tmp_path / name / "crystals.csv") for name in ("gpu", "cpu"))
    assert (gpu["gene"] == cpu["gene"]).mean() > 0.8
    assert gpu["log_likelihood"].notna().all()


@pytest.mark.gpu
def test_predict_on_a_gpu(tmp_path):
    """The figures of the CPU, to single precision."""
    write_crystals(_crystals(), tmp_path / "crystals", {})
    for device in ("cpu", "cuda"):
        _command("predict", tmp_path / "crystals", "--device", device, "--out", tmp_path / device)
    cpu, gpu = (pd.read_csv(tmp_path / name / "predictions.csv") for name in ("cpu", "cuda"))
    numbers = cpu.select_dtypes("float").columns
    np.testing.assert_allclose(gpu[numbers], cpu[numbers], rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_relax_on_a_gpu(tmp_path):
    """The energies of the CPU."""
    small_crystal(221, 1).to_structure().to(filename=str(tmp_path / "a.cif"))
    for device in ("cpu", "cuda"):
        _command("relax", tmp_path / "a.cif", "--device", device, "--out", tmp_path / device)
    cpu, gpu = (pd.read_csv(tmp_path / name / "relax.csv") for name in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu["energy_after"], cpu["energy_after"], atol=1e-3)


@pytest.mark.gpu
def test_train_on_a_gpu(table):
    """One epoch of every stage, on one GPU, and crystals from what came of it."""
    sizes = """
    [generator.autoencoder]
    irreps = "4x0e+2x1o+1x2e"
    """
    one = "".join(
        f"[{part}]\nepochs = 1\ncooldown = 1\nbatch_size = 8\nwarmup = 2\ndevices = 1\n"
        for part in ("autoencoder", "genes", "critic", "flow")
    )
    text = f'data = "{table}"\nvalidation = 4\nsampled = 2\nsample_every = 1\n{sizes}\n{one}'
    (table / "short.toml").write_text(text)
    _command("train", "--config", table / "short.toml", "--out", table / "run")
    assert len(load(table / "run" / "checkpoint", device="cuda").sample(2)) == 2


@pytest.mark.gpu
def test_train_property_on_a_gpu(tmp_path):
    """Two epochs of one small network."""
    columns = {"toughness": lambda _, c: c.properties["formation_energy"]}
    write_table(tmp_path / "table.csv", labelled_crystals(80), columns)
    (tmp_path / "tiny.toml").write_text(
        "members = 1\nnetwork = { width = 16, layers = 2, radial = 6, cutoff = 4.0 }\n"
        "fit = { epochs = 2, cooldown = 1, batch_size = 16, warmup = 2, ema = 0.5 }\n"
    )
    arguments = ("--targets", "toughness", "--config", tmp_path / "tiny.toml", "--out", tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "autoperi.cli", "train-property", tmp_path / "table.csv", *arguments],
        env={**os.environ, "AUTOPERI_CACHE": str(tmp_path / "cache")},
        timeout=600,
    )
    assert done.returncode == 1  # the first row of the table is no crystal
    assert (tmp_path / "run" / "checkpoint").is_dir()
