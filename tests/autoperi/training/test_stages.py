import csv
import multiprocessing
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import lightning
import pytest
import torch

from autoperi.crystals.crystal import CrystalBatch
from autoperi.flow.velocity import VelocityNetwork
from autoperi.networks.autoencoder import Autoencoder
from autoperi.training.fit import BatchData, FitConfig, fit, warming_average
from autoperi.training.stages import AutoencoderTraining, FlowTraining, TrainingSet
from tests.autoperi.small import TINY_AUTOENCODER, TINY_VELOCITY, largest, small_crystal

ROOT = Path(__file__).parents[2]
SHORT = FitConfig(epochs=1, batch_size=8, warmup=2, cooldown=1, ema=0.5)


@pytest.fixture(autouse=True)
def _no_advice():
    """Lightning's advice on worker processes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _set(n: int = 16) -> TrainingSet:
    groups = (2, 15, 36, 62, 166, 194, 216, 221)
    crystals = [small_crystal(groups[i % 8], i, sites=2, max_atoms=8) for i in range(n)]
    labels = torch.linspace(0, 2, n)[:, None].repeat(1, 3)
    return TrainingSet(CrystalBatch.from_crystals(crystals).to(dtype=torch.float32), labels)


def _module(data: TrainingSet, config: FitConfig = SHORT) -> AutoencoderTraining:
    torch.manual_seed(0)
    network = Autoencoder(TINY_AUTOENCODER)
    network.decoder.scale.fit(data.crystals)
    return AutoencoderTraining(network, config)


def _rows(out: Path) -> list[dict[str, str]]:
    rows = []
    for path in (out / "csv").rglob("metrics.csv"):
        with path.open() as file:
            rows += list(csv.DictReader(file))
    return rows


def _weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_fit_writes_logs_and_resumes(tmp_path):
    """One epoch leaves logs, the last and the best checkpoint; asked for two, it goes on at step 2."""
    data = _set()
    first = _module(data)
    start = _weights(first)
    best = fit(first, BatchData(data, data, 8), SHORT, tmp_path)
    assert best.is_file()
    assert (tmp_path / "last.ckpt").is_file()
    assert any((tmp_path / "tensorboard").iterdir())
    assert largest(_weights(first) - start) > 0
    names = {name for row in _rows(tmp_path) for name, value in row.items() if value}
    assert {"train/total", "val/total", "val/species", "epoch", "step"} <= names
    config = FitConfig(epochs=2, batch_size=8, warmup=2, cooldown=1, ema=0.5)
    second = _module(data, config)
    steps = []
    watch = lightning.pytorch.callbacks.LambdaCallback(
        on_train_batch_start=lambda trainer, *_: steps.append(trainer.global_step)
    )
    fit(second, BatchData(data, data, 8), config, tmp_path, callbacks=[watch])
    assert steps == [2, 3]
    saved = _last(tmp_path)
    assert saved["global_step"] == 4
    assert all(k.startswith("network.") for k in saved["state_dict"])


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    """Stopping after the first of two epochs and resuming ends at the same weights, shuffling included."""
    data = _set()
    config = FitConfig(epochs=2, batch_size=8, warmup=2, cooldown=1, ema=0.5)
    fit(_module(data, config), BatchData(data, data, 8), config, tmp_path / "whole")

    def stop(trainer, *_):
        trainer.should_stop = True

    halt = lightning.pytorch.callbacks.LambdaCallback(on_train_epoch_end=stop)
    fit(_module(data, config), BatchData(data, data, 8), config, tmp_path / "parts", callbacks=[halt])
    assert _last(tmp_path / "parts")["global_step"] == 2
    fit(_module(data, config), BatchData(data, data, 8), config, tmp_path / "parts")
    whole, parts = _last(tmp_path / "whole"), _last(tmp_path / "parts")
    assert whole["global_step"] == parts["global_step"] == 4
    for state in ("state_dict", "current_model_state"):
        for name, value in whole[state].items():
            assert torch.allclose(value, parts[state][name], atol=1e-6), name


def _last(folder: Path) -> dict:
    return torch.load(folder / "last.ckpt", weights_only=False)


def test_validation_is_reproducible():
    """Evaluation draws the same noise every time; training does not."""
    data = _set(8)
    module = _module(data).eval()
    with torch.no_grad():
        first, second = (module.loss(data, torch.Generator().manual_seed(0)) for _ in range(2))
        other = module.loss(data, torch.Generator().manual_seed(1))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert largest(first["total"] - other["total"]) > 0


def test_a_set_keeps_its_parts_together():
    """Selecting crystals selects their labels and latents; encoding in chunks is encoding at once."""
    data = _set(6)
    encoder = Autoencoder(TINY_AUTOENCODER).encoder
    whole, parts = data.encoded(encoder), data.encoded(encoder, chunk=2)
    assert largest(whole.latents.mean - parts.latents.mean) < 1e-5
    some = whole.select(torch.tensor([4, 1]))
    assert len(some) == 2
    assert torch.equal(some.conditions, data.conditions[[4, 1]])
    expected = torch.cat([whole.latents.mean[data.crystals.crystal == i] for i in (4, 1)])
    assert torch.equal(some.latents.mean, expected)


def test_the_flow_needs_latents():
    """Flow training on a set that was not encoded says what to call."""
    data = _set(2)
    module = FlowTraining(VelocityNetwork(TINY_VELOCITY), SHORT)
    with pytest.raises(ValueError, match=r"call TrainingSet\.encoded"):
        module.loss(data, None)
    encoded = data.encoded(Autoencoder(TINY_AUTOENCODER).encoder)
    assert bool(module.loss(encoded, torch.Generator().manual_seed(0))["total"].isfinite())


def test_bfloat16_only_blurs_the_gradient():
    """Mixed precision gives nearly the same direction, and evaluation is untouched by it."""
    data = _set().encoded(Autoencoder(TINY_AUTOENCODER).encoder)
    network = VelocityNetwork(TINY_VELOCITY)
    gradients = []
    for mixed in (False, True):
        module = FlowTraining(network, replace(SHORT, mixed=mixed)).train()
        network.zero_grad()
        module.loss(data, torch.Generator().manual_seed(0))["total"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert 0.99 < float(torch.cosine_similarity(*gradients, dim=0)) < 1 - 1e-7
    losses = [
        FlowTraining(network, replace(SHORT, mixed=mixed)).eval().loss(data, torch.Generator().manual_seed(0))
        for mixed in (False, True)
    ]
    assert losses[0]["total"] == losses[1]["total"]


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(7, 3, [3, 3]), (2, 8, [2])])
def test_every_training_set_has_a_batch(n, batch_size, sizes):
    """Incomplete batches are dropped, but a set smaller than a batch is still trained on."""
    data = BatchData(_set(n), _set(n), batch_size)
    assert [len(b) for b in data.train_dataloader()] == sizes
    assert sum(len(b) for b in data.val_dataloader()) == n


def _one_of_two(rank: int, folder: Path) -> None:
    """One DDP process: the gradient of its half of the batch, averaged by gloo."""
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    module = _module(_set())
    module.forward = module.loss
    torch.manual_seed(rank)
    if rank:  # must not matter: the first process's weights are broadcast
        torch.nn.init.zeros_(module.network.decoder.lattice[-1].bias)
    parallel = DistributedDataParallel(module)
    half = _set().select(torch.arange(8) + 8 * rank)
    loss = parallel(half, torch.Generator().manual_seed(rank))["total"]
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters()])
    torch.save({"loss": loss.detach(), "gradient": gradient}, folder / f"{rank}.pt")
    # nothing is left to do, and gloo's destructor can wait for ever for a thread that wants the GIL
    os._exit(0)


def test_two_processes_are_one_on_the_whole_batch(tmp_path):
    """Two gloo processes with half a batch each get the gradient of the mean of both halves' losses.

    Both hold the same gradient, and the weights of the first process are those of all.
    """
    context = multiprocessing.get_context("spawn")  # a forked copy can hang in the parent's OpenMP threads
    processes = [context.Process(target=_one_of_two, args=(rank, tmp_path)) for rank in range(2)]
    for p in processes:
        p.start()
    for p in processes:
        p.join(timeout=300)
    for p in processes:
        p.kill()
        p.join()
    assert [p.exitcode for p in processes] == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    module = _module(_set())
    halves = [_set().select(torch.arange(8) + 8 * rank) for rank in range(2)]
    losses = [module.loss(h, torch.Generator().manual_seed(i))["total"] for i, h in enumerate(halves)]
    (sum(losses) / 2).backward()
    expected = torch.cat([p.grad.flatten() for p in module.parameters()])
    assert torch.equal(found[0]["gradient"], found[1]["gradient"])
    assert largest(found[0]["gradient"] - expected) < 1e-5 * largest(expected)
    for mine, theirs in zip(losses, found, strict=True):
        assert largest(mine - theirs["loss"]) < 1e-5


@pytest.mark.slow
def test_fit_in_two_processes(tmp_path):
    """``fit`` with two devices trains to the end on the CPU and writes one checkpoint."""
    command = [sys.executable, "-m", "tests.autoperi.test_train", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    assert _last(tmp_path)["global_step"] == 2


def test_the_average_forgets_its_beginning_and_then_remembers_as_asked():
    """After a hundred updates nothing is left of the first weights; in the long run the decay is as given."""
    average = warming_average(0.99)
    weights = torch.zeros(3)
    for n in range(1, 101):
        weights = average(weights, torch.ones(3), n)
    assert largest(weights - 1) < 1e-6
    assert largest(average(torch.zeros(3), torch.ones(3), 10_000) - 0.01) < 1e-6
    assert int(average(torch.tensor(3), torch.tensor(7), 50)) == 7


def _fit_in_two(folder: Path) -> None:
    config = FitConfig(epochs=1, batch_size=4, warmup=2, cooldown=1, ema=0.5, devices=2)
    data = _set()
    fit(_module(data, config), BatchData(data, data, 4), config, folder)


if __name__ == "__main__":
    _fit_in_two(Path(sys.argv[1]))
