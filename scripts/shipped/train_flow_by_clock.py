"""Train the flow for so many minutes: one file in, weights and curves out, the cool-down by the clock.

For a machine with a GPU that is lent for minutes: workers make the paths, the device builds graphs, and
nothing is read once training has begun. ``autoperi train`` does the same in epochs and can be resumed.

Prepare:  python scripts/shipped/train_flow_by_clock.py prepare --out runs/flow.pt
Train:    python scripts/shipped/train_flow_by_clock.py train --data runs/flow.pt --minutes 8 --out runs/flow
Assemble: python scripts/shipped/train_flow_by_clock.py assemble --trained runs/flow --out runs/mp_20
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO, cast

import torch
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, RandomSampler

import autoperi
from autoperi.data.dataset import load_dataset
from autoperi.flow.loss import Passage, passage, passage_loss
from autoperi.flow.relatives import Relatives
from autoperi.flow.velocity import VelocityConfig, VelocityNetwork
from autoperi.generator import save
from autoperi.networks.autoencoder import Encoder
from autoperi.networks.checkpoint import half_precision
from autoperi.networks.condition import drop_conditions
from autoperi.networks.config import build
from autoperi.networks.embedding import LatticeScale
from autoperi.networks.orbit_network import OrbitNetwork
from autoperi.training.kin import Kin
from autoperi.training.stages import TrainingSet

Batch = tuple[Passage, Tensor]
"""Crystals on their way, and their conditions."""


def prepare(out: Path, checkpoint: str = "mp_20", data: str = "mp_20", n: int | None = None) -> None:
    """Crystals, labels, latents and relatives of train and of 1,000 of val, and the velocity, in one file."""
    generator = autoperi.load(checkpoint)
    flow, conditions = generator.flow, generator.config.conditions
    train = load_dataset(data, "train", fill_hull=True)[:n]
    relatives = Relatives.from_crystals(train)
    content: dict[str, Any] = {"conditions": conditions}
    for name, network in (("encoder", flow.autoencoder.encoder), ("velocity", flow.velocity)):
        content[name] = (network.config, network.state_dict())
    for name, part in (("train", train), ("val", load_dataset(data, "val", fill_hull=True)[:1000])):
        kin = Kin.of(part, relatives, themselves=name == "train")
        content[name] = replace(TrainingSet.from_dataset(part, conditions), kin=kin)
        share = float(kin.distance.isfinite().any(1).double().mean())
        print(f"{name}: {len(part)} crystals, {100 * share:.1f}% with a relative described as they are")
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, out)


def train(
    data: Path,
    out: Path,
    minutes: float,
    anew: bool = False,
    width: int | None = None,
    vectors: int | None = None,
    layers: int | None = None,
    batch_size: int = 512,
    lr: float = 1.5e-3,
    cooldown: float = 0.45,
    ema: float = 0.999,
    seed: int = 0,
    workers: int = 7,
) -> None:
    """Train until the minutes are over; writes ``velocity.safetensors``, ``log.jsonl`` and ``settings.json``.

    Args:
        data: what ``prepare`` wrote.
        out: folder.
        minutes: by the clock, everything included.
        anew: begin with new weights; else those of the file are carried on, new layers first.
        width: scalar channels of the trunk; as in the file where not given, and so the next two.
        vectors: vector channels.
        layers: rounds of message passing.
        batch_size: crystals per step.
        lr: of AdamW, after 300 steps of warm-up.
        cooldown: share of the time in which it falls to nothing, linearly.
        ema: decay of the averaged weights, which are kept.
        seed: of everything.
        workers: processes that make batches.
    """
    begun = time.monotonic()
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in locals().items() if k != "begun"}
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    content = torch.load(data, weights_only=False)
    encoder = Encoder(content["encoder"][0])
    older = VelocityNetwork(content["velocity"][0], content["conditions"])
    encoder.load_state_dict(content["encoder"][1])
    older.load_state_dict(content["velocity"][1])
    encoder.to(device).eval()
    seen, held = (content[name].encoded(encoder) for name in ("train", "val"))
    asked = {"width": width, "vectors": vectors, "layers": layers}
    sizes = replace(older.config.network, **{name: value for name, value in asked.items() if value})
    config = replace(older.config, network=sizes)
    network = VelocityNetwork(config, content["conditions"])
    network.scale.load_state_dict(older.scale.state_dict())
    if not anew:
        carry_on(network, older)
    assert isinstance(network.trunk, OrbitNetwork)
    network.trunk.mixed = True
    network.to(device).train()
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(ema))
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.01, fused=device.type == "cuda")
    held_out = fixed_batches(held, older.scale)
    log = (out / "log.jsonl").open("w")
    step, told, sums, tick = 0, time.monotonic(), {}, time.monotonic()
    for crystals, conditions in batches(seen, older.scale, batch_size, seed, workers):
        spent = (time.monotonic() - begun) / (60 * minutes)
        if spent >= 1:
            break
        factor = min(1.0, (step + 1) / 300, max(1e-3, (1 - spent) / cooldown))
        for group in optimizer.param_groups:
            group["lr"] = lr * factor
        terms = passage_loss(network, crystals.to(device), conditions.to(device))
        optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), 1.0))
        if math.isfinite(norm):
            optimizer.step()
            averaged.update_parameters(network)
        step += 1
        for name, value in [*terms.items(), ("norm", torch.tensor(norm))]:
            sums.setdefault(name, []).append(value.detach())
        now = time.monotonic()
        if now - told > 30 or step == 10:
            row = {"step": step, "epoch": step * batch_size / len(seen), "lr": lr * factor}
            row |= {
                "minutes": (now - begun) / 60,
                "crystals_per_s": len(sums["total"]) * batch_size / (now - tick),
            }
            row |= {f"train/{k}": float(torch.stack(v).float().cpu().nanmean()) for k, v in sums.items()}
            row |= judged(averaged, held_out, device)
            write(log, row)
            told, sums, tick = now, {}, time.monotonic()
    write(log, {"step": step, **judged(averaged, held_out, device)})
    weights = {name: weight.contiguous().cpu() for name, weight in half_precision(averaged.module).items()}
    save_file(weights, out / "velocity.safetensors")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    about = {**settings, "config": asdict(config), "steps": step, "device": name}
    (out / "settings.json").write_text(json.dumps(about, indent=1) + "\n")


def write(log: TextIO, row: dict[str, float]) -> None:
    """One line of the curve, for the file and for whoever watches."""
    log.write(json.dumps({k: round(v, 5) for k, v in row.items()}) + "\n")
    log.flush()
    print(" ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)


def carry_on(network: VelocityNetwork, older: VelocityNetwork) -> None:
    """Weights of a network of fewer layers: they come last, those before say nothing as yet.

    Raises:
        ValueError: fewer layers than before, or other widths.
    """
    trunk, before = network.trunk, older.trunk
    assert isinstance(trunk, OrbitNetwork)
    assert isinstance(before, OrbitNetwork)
    new = trunk.config.layers - before.config.layers
    if new < 0 or trunk.config != replace(before.config, layers=trunk.config.layers):
        raise ValueError(
            f"expected more layers at most: got {trunk.config} after {before.config}; add --anew"
        )
    state = network.state_dict()
    for name, weight in older.state_dict().items():
        parts = name.split(".")
        if parts[1:2] and parts[1] in ("messages", "updates", "crystals") and parts[0] == "trunk":
            name = ".".join([*parts[:2], str(int(parts[2]) + new), *parts[3:]])
        state[name] = weight
    network.load_state_dict(state)
    with torch.no_grad():
        for k in range(new):
            parts = (trunk.messages[k], trunk.updates[k], trunk.crystals[k])
            for name, parameter in nn.ModuleList(parts).named_parameters():
                if name.startswith(("0.out.", "1.out.", "2.update.2.")):
                    parameter.zero_()


def made(part: TrainingSet, scale: LatticeScale, generator: torch.Generator | None = None) -> Batch:
    """Crystals on their way, with conditions of which some are hidden."""
    h, starts = part.begun(generator)
    way = passage(part.crystals, h, scale, generator, starts)
    return way, drop_conditions(part.conditions, generator)


def batches(part: TrainingSet, scale: LatticeScale, size: int, seed: int, workers: int) -> Iterator[Batch]:
    """Without end, shuffled."""
    torch.multiprocessing.set_sharing_strategy("file_system")
    order = RandomSampler(range(len(part)), generator=torch.Generator().manual_seed(seed))
    loader = DataLoader(
        cast(Dataset[int], range(len(part))),
        batch_size=size,
        sampler=order,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        collate_fn=lambda rows: made(part.select(torch.tensor(rows)), scale),
        worker_init_fn=lambda _: torch.set_num_threads(1),
    )
    while True:
        yield from loader


@torch.no_grad()
def fixed_batches(part: TrainingSet, scale: LatticeScale) -> list[Batch]:
    """The held-out crystals at times and from noise that stay the same."""
    parts = torch.arange(len(part)).split(250)
    return [made(part.select(rows), scale, torch.Generator().manual_seed(i)) for i, rows in enumerate(parts)]


@torch.no_grad()
def judged(averaged: AveragedModel, held_out: list[Batch], device: torch.device) -> dict[str, float]:
    """Held-out loss of the averaged weights."""
    network, sums = cast(VelocityNetwork, averaged.module.eval()), {}
    for crystals, conditions in held_out:
        for name, value in passage_loss(network, crystals.to(device), conditions.to(device)).items():
            sums[f"val/{name}"] = sums.get(f"val/{name}", 0.0) + float(value) / len(held_out)
    return sums


def assemble(trained: Path, out: Path, checkpoint: str = "mp_20") -> None:
    """A checkpoint with the trained velocity in place of its own."""
    settings = json.loads((trained / "settings.json").read_text())
    generator = autoperi.load(checkpoint)
    config = build(VelocityConfig, settings["config"])
    velocity = VelocityNetwork(config, generator.config.conditions)
    velocity.load_state_dict(load_file(trained / "velocity.safetensors"))
    generator.flow.velocity = velocity
    generator.config = replace(generator.config, velocity=config)
    flow = {name: value for name, value in settings.items() if name not in ("config", "data", "out")}
    print(save(generator, out, {**generator.about, "flow by the clock": flow}))


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"prepare": prepare, "train": train, "assemble": assemble})
