"""How good shipped property models are on held-out crystals, how fast, how far out they find other crystals.

Run: python scripts/checks/predictions.py --other data/wbm/wbm_val_10k.csv.gz
"""

import time
from pathlib import Path

import torch
import tyro
from rich import print as show

import property_models
from autoperi.data.dataset import load_dataset
from property_models.graph.site_graph import dataset_graph
from property_models.networks.ensemble import figures
from property_models.training.fit_ensemble import LabelledGraphs
from property_models.training.shipped import shipped_splits


def main(
    targets: tuple[str, ...] = ("formation_energy",), family: str = "guide", other: str = "", workers: int = 2
) -> None:
    """``other`` is a table of crystals from elsewhere; its rows should lie further out than those of test."""
    torch.set_num_threads(1)
    for target in targets:
        model = property_models.load(target, family)
        network = model.ensemble.config.network
        test = shipped_splits(network.targets).test
        labelled = LabelledGraphs.from_dataset(test, network, model.ensemble.targets)
        for how, used in (("all networks", model), ("the first alone", model.fast())):
            found = figures(used.ensemble, labelled.graphs, labelled.labels)[target]
            words = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
            began = time.perf_counter()
            used.predict(list(test), workers=workers)
            rate = len(test) / (time.perf_counter() - began)
            show(f"{target} ({family}), {how}: {words}")
            show(f"  {rate:.0f} crystals/s, from crystals to values, {workers} threads")
        if other:
            graphs = dataset_graph(load_dataset(Path(other), None), network.cutoff, network.nearest)
            near, far = (model.ensemble.predict(g).distance.numpy() for g in (labelled.graphs, graphs))
            beyond = (far[:, None] > near).mean()
            show(f"  latent distance {near.mean():.2f}, {far.mean():.2f} elsewhere: further in {beyond:.0%}")


if __name__ == "__main__":
    tyro.cli(main)
