"""Write into the shipped property models what they have been shown: elements and nearest neighbours.

Run: python scripts/measure_domains.py
For those trained before a training did this itself; networks, calibration and provenance stay as they are.
"""

import torch
import tyro
from rich import print as show
from safetensors.torch import load_file

from autoperi.networks.checkpoint import restore, write_checkpoint
from property_models.model import PRETRAINED
from property_models.networks.ensemble import Ensemble, EnsembleConfig
from property_models.networks.targets import half_of
from property_models.training.fit_ensemble import LabelledGraphs
from property_models.training.shipped import shipped_splits


def main() -> None:
    """Each on the half of its training set that it was trained on."""
    torch.set_num_threads(1)
    for folder in sorted(path.parent for path in PRETRAINED.glob("*/config.json")):
        ensemble, content = restore(folder, EnsembleConfig, Ensemble)
        config = ensemble.config
        half = "first" if "half: first" in content["about"]["data"] else "second"
        train = shipped_splits(config.network.targets).train
        train = train.select(half_of([crystal.formula for crystal in train], half).nonzero()[0])
        labelled = LabelledGraphs.from_dataset(train, config.network)
        expected = int(content["about"]["data"].split(", ")[1].split()[0])
        if len(labelled) != expected:
            raise ValueError(f"expected the {expected} training crystals of {folder}: got {len(labelled)}")
        ensemble.domain.learn(labelled.graphs, labelled.labels.isfinite())
        weights = load_file(folder / "model.safetensors")
        weights |= ensemble.domain.state_dict(prefix="domain.")
        digest = write_checkpoint(folder, weights, config, content["about"])
        seen = int(ensemble.domain.get_buffer("seen").any(0).sum())
        show(f"{folder.name}: {seen} elements in {len(labelled)} crystals, sha256 {digest}")


if __name__ == "__main__":
    tyro.cli(main)
