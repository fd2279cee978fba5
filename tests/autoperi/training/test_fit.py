import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightning
import pytest
import torch

from autoperi.data.run_folder import FolderError
from autoperi.training.fit import BatchData, FitConfig, fit, warming_average
from tests.autoperi.small import largest
from tests.autoperi.training.tiny import SHORT, last, logged, training, training_set

ROOT = Path(__file__).parents[3]


def _weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_fit_writes_logs_and_resumes(tmp_path):
    """One epoch leaves logs, the last and the best checkpoint; asked for two, it goes on at step 2."""
    data = training_set()
    first = training(data)
    start = _weights(first)
    best = fit(first, BatchData(data, data, 8, 0), SHORT, tmp_path)
    assert best.is_file()
    assert (tmp_path / "last.ckpt").is_file()
    assert any((tmp_path / "tensorboard").iterdir())
    assert largest(_weights(first) - start) > 0
    names = {name for row in logged(tmp_path) for name, value in row.items() if value}
    assert {"train/total", "val/total", "val/species", "epoch", "step"} <= names
    config = FitConfig(epochs=2, batch_size=8, warmup=2, cooldown=1, ema=0.5)
    second = training(data, config)
    steps = []
    watch = lightning.pytorch.callbacks.LambdaCallback(
        on_train_batch_start=lambda trainer, *_: steps.append(trainer.global_step)
    )
    fit(second, BatchData(data, data, 8, 0), config, tmp_path, callbacks=[watch])
    assert steps == [2, 3]
    saved = last(tmp_path)
    assert saved["global_step"] == 4
    assert all(k.startswith("network.") for k in saved["state_dict"])


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    """Stopping after the first of two epochs and resuming ends at the same weights, shuffling included."""
    data = training_set()
    config = FitConfig(epochs=2, batch_size=8, warmup=2, cooldown=1, ema=0.5)
    fit(training(data, config), BatchData(data, data, 8, 0), config, tmp_path / "whole")

    def stop(trainer, *_):
        trainer.should_stop = True

    halt = lightning.pytorch.callbacks.LambdaCallback(on_train_epoch_end=stop)
    fit(training(data, config), BatchData(data, data, 8, 0), config, tmp_path / "parts", callbacks=[halt])
    assert last(tmp_path / "parts")["global_step"] == 2
    fit(training(data, config), BatchData(data, data, 8, 0), config, tmp_path / "parts")
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts")
    assert whole["global_step"] == parts["global_step"] == 4
    for state in ("state_dict", "current_model_state"):
        for name, value in whole[state].items():
            assert torch.allclose(value, parts[state][name], atol=1e-6), name


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(7, 3, [3, 3]), (2, 8, [2])])
def test_every_training_set_has_a_batch(n, batch_size, sizes):
    """Incomplete batches are dropped, but a set smaller than a batch is still trained on."""
    data = BatchData(training_set(n), training_set(n), batch_size, 0)
    assert [len(b) for b in data.train_dataloader()] == sizes
    assert sum(len(b) for b in data.val_dataloader()) == n


def _one_of_two(rank: int, folder: Path) -> None:
    """One DDP process: the gradient of its half of the batch, averaged by gloo."""
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    module = training(training_set())
    module.forward = module.loss
    torch.manual_seed(rank)
    if rank:  # must not matter: the first process's weights are broadcast
        torch.nn.init.zeros_(module.network.decoder.lattice[-1].bias)
    parallel = DistributedDataParallel(module)
    half = training_set().select(torch.arange(8) + 8 * rank)
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
    module = training(training_set())
    halves = [training_set().select(torch.arange(8) + 8 * rank) for rank in range(2)]
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
    command = [sys.executable, "-m", "tests.autoperi.training.test_fit", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    assert last(tmp_path)["global_step"] == 2


@pytest.mark.slow
def test_fit_on_two_machines(tmp_path):
    """Two launches of torchrun meet as two machines and train together, in the steps of two processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    launch = [
        "-m",
        "torch.distributed.run",
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        "--rdzv-backend",
        "c10d",
    ]
    meet = ["--rdzv-endpoint", f"localhost:{port}", "-m", "tests.autoperi.training.test_fit", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    machines = [
        subprocess.Popen([sys.executable, *launch, *meet], cwd=ROOT, env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [machine.communicate(timeout=300)[1].decode() for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], told
    assert last(tmp_path)["global_step"] == 2


def test_the_average_forgets_its_beginning_and_then_remembers_as_asked():
    """After a hundred updates nothing is left of the first weights; in the long run the decay is as given."""
    average = warming_average(0.99)
    weights = torch.zeros(3)
    for n in range(1, 101):
        weights = average(weights, torch.ones(3), n)
    assert largest(weights - 1) < 1e-6
    assert largest(average(torch.zeros(3), torch.ones(3), 10_000) - 0.01) < 1e-6
    assert int(average(torch.tensor(3), torch.tensor(7), 50)) == 7


class _Code:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_a_resumed_training_executes_nothing(tmp_path):
    """A last.ckpt that carries code is refused by name; the code does not run."""
    data = training_set(8)
    fit(training(data), BatchData(data, data, 8, 0), SHORT, tmp_path)
    state = last(tmp_path)
    torch.save({**state, "more": _Code(tmp_path / "ran")}, tmp_path / "last.ckpt")
    config = replace(SHORT, epochs=2)
    with pytest.raises(FolderError, match=r"last\.ckpt is damaged, or not ours"):
        fit(training(data, config), BatchData(data, data, 8, 0), config, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_diverged_training_is_named_and_keeps_its_logs(tmp_path):
    """Weights that are not finite end a training at once, and are not what last.ckpt holds."""
    data = training_set(8)
    config = replace(SHORT, epochs=50, lr=1e30, warmup=0)
    with pytest.raises(ValueError, match=rf"training in {tmp_path} with lr = 1e\+30 has diverged: network\."):
        fit(training(data, config), BatchData(data, data, 8, 0), config, tmp_path)
    assert list((tmp_path / "csv").iterdir())
    assert not (tmp_path / "last.ckpt").exists()


def test_the_last_epoch_is_validated(tmp_path):
    """Though it is no multiple of check_every."""
    data = training_set(8)
    config = replace(SHORT, epochs=3, check_every=2)
    fit(training(data, config), BatchData(data, data, 8, 0), config, tmp_path)
    assert [row["epoch"] for row in logged(tmp_path) if row.get("val/total")] == ["1", "2"]


def test_training_says_nothing_and_leaves_the_generators_alone(tmp_path, capfd, recwarn):
    """No remarks on standard error, no warnings, and torch's own generator as it was."""
    data = training_set(8)
    module = training(data)
    before, handler = torch.get_rng_state(), signal.getsignal(signal.SIGTERM)
    fit(module, BatchData(data, data, 8, 0), SHORT, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert [str(w.message) for w in recwarn] == []
    assert capfd.readouterr().err == ""


def test_an_interrupt_is_the_callers(tmp_path):
    """Lightning would end the process; SIGTERM goes to whoever had asked for it."""
    data = training_set(8)
    kill = lightning.pytorch.callbacks.LambdaCallback(
        on_train_batch_start=lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(training(data), BatchData(data, data, 8, 0), SHORT, tmp_path, callbacks=[kill])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_seed_decides_the_order():
    data = training_set(16)
    loaders = [BatchData(data, data, 4, seed).train_dataloader() for seed in (0, 1)]
    batches = [[b.conditions[:, 0].tolist() for b in loader] for loader in loaders]
    assert batches[0] != batches[1]
    assert sorted(x for b in batches[0] for x in b) == sorted(x for b in batches[1] for x in b)


def test_a_batch_is_shared_by_all_processes(monkeypatch):
    """Two processes take half of each batch: the training is the same on any number of devices."""
    data = BatchData(training_set(16), training_set(4), 8, 0)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(BatchData, "_place", lambda _, rank=rank: (2, rank))
        parts.append([b.conditions[:, 0].tolist() for b in data.train_dataloader()])
    assert [len(b) for part in parts for b in part] == [4, 4, 4, 4]
    monkeypatch.undo()
    for together, halves in zip(data.train_dataloader(), zip(*parts, strict=True), strict=True):
        assert sorted(together.conditions[:, 0].tolist()) == sorted(halves[0] + halves[1])


def _fit_in_two(folder: Path) -> None:
    config = FitConfig(epochs=1, batch_size=8, warmup=2, cooldown=1, ema=0.5, devices=2)
    data = training_set()
    fit(training(data, config), BatchData(data, data, 8, 0), config, folder)


if __name__ == "__main__":
    _fit_in_two(Path(sys.argv[1]))
