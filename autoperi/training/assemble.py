"""From trained parts to a checkpoint that says how its weights came about."""

import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from autoperi.data.cache import versions
from autoperi.data.dataset import CrystalDataset
from autoperi.flow.relatives import Relatives
from autoperi.generator import CrystalGenerator, save
from autoperi.genes.empirical import EmpiricalGenes
from autoperi.training.model_card import Trained, model_card
from autoperi.training.recipe import FITTED, Recipe, Stage

_AGREE = 1e-3
"""Spreads by which the lattice scales of decoder and velocity may differ: float32 and machines, not data."""


def assemble(
    recipe: Recipe,
    out: Path,
    weights: Mapping[Stage, Mapping[str, Tensor]],
    train: CrystalDataset,
    start: CrystalGenerator | None,
) -> Path:
    """Write ``out/checkpoint`` with its card; returns the folder.

    Raises:
        ValueError: parts whose lattice scales were fitted on different data, or a part that has diverged.
    """
    generator = CrystalGenerator(recipe.generator)
    for stage in FITTED:
        part_of(generator, stage).load_state_dict(weights[stage])
    for name in ("stability", "targets"):
        critic = getattr(generator, name)
        if critic and start:
            critic.load_state_dict(getattr(start, name).state_dict())
    refuse_other_scales(generator)
    generator.geometry.put(Relatives.from_crystals(train).state_dict())
    generator.empirical.put(EmpiricalGenes.from_crystals(train, recipe.generator.conditions).state_dict())
    origin, folder = provenance(train), out / "checkpoint"
    about: dict[str, Any] = {"recipe": asdict(recipe), **origin}
    if start is not None:
        kept = [stage for stage in FITTED if recipe.fit(stage).epochs == 0]
        about["start"] = {
            "checkpoint": recipe.start,
            "sha256": start.sha256,
            "kept": kept,
            "about": start.about,
        }
    save(generator, folder, about)
    parts = [
        Trained(
            name=stage,
            parameters=sum(p.numel() for p in part_of(generator, stage).parameters()),
            fit=recipe.fit(stage),
            folder=out / stage,
        )
        for stage in FITTED
    ]
    begun = f"`{recipe.start}` (sha256 {start.sha256})" if start else None
    (folder / "MODEL_CARD.md").write_text(model_card(out.name, origin, begun, parts))
    return folder


def part_of(generator: CrystalGenerator, stage: Stage) -> nn.Module:
    """The network that a stage fits."""
    parts: dict[str, nn.Module] = {
        "autoencoder": generator.flow.autoencoder,
        "genes": generator.gene_network,
        "critic": generator.critic,
        "flow": generator.flow.velocity,
    }
    return parts[stage]


def refuse_other_scales(generator: CrystalGenerator) -> None:
    """Raise ValueError where z means one thing to the decoder and another to the velocity."""
    decoder, velocity = generator.flow.autoencoder.decoder.scale, generator.flow.velocity.scale
    apart = ((decoder.mean - velocity.mean) / decoder.spread).abs().max()
    apart = max(float(apart), float((decoder.spread / velocity.spread).log().abs().max()))
    if not apart < _AGREE:
        raise ValueError(
            f"expected one scale of lattice coordinates in autoencoder and flow: they are {apart:.2g} "
            "spreads apart, fitted on different data; train the flow again after this autoencoder"
        )


def provenance(train: CrystalDataset) -> dict[str, str]:
    """What a checkpoint must say of where it comes from: data, its hash, versions, commit."""
    made_with = versions("autoperi-gnn", "torch", "lightning", "e3nn")
    return {
        "data": train.name,
        "crystals": str(len(train)),
        "data sha256": train.content_hash(),
        "versions": ", ".join(f"{name} {version}" for name, version in made_with.items()),
        "commit": commit(),
    }


def commit() -> str:
    """The git commit of this code, and whether files differ from it; says so where it is no checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return "none: an installed package"
    git = ("git", "-C", str(root))
    try:
        head, changed = (
            subprocess.run([*git, *asked], capture_output=True, text=True, check=True).stdout.strip()
            for asked in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown: {error}"
    return f"{head}, with changes" if changed else head
