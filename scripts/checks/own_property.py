"""Do crystals have a property that the generator was taught from a few hundred labels? By a judge.

Run: python scripts/checks/own_property.py --table aflow.csv.gz --split split_bulk_modulus --out runs/own
The table has a column cif and one of the property; ``--split`` names a column whose rows ``train`` are used.
Beside it: nothing asked, and the same asked of a generator that was taught shuffled labels. The judge is the
shipped one of the property, or that of ``--judge``, which ``autoperi train-property`` makes of other rows.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from scipy.stats import binomtest

import autoperi
import property_models
from autoperi.crystals.crystal import Crystal
from autoperi.crystals.labels import Window
from autoperi.generator import SampleConfig
from autoperi.training.own_condition import add_conditions
from property_models.model import PropertyModel


def main(
    out: Path,
    table: Path,
    condition: str = "bulk_modulus[GPa]",
    asked: str = "200:",
    split: str | None = None,
    judge: Path | None = None,
    labels: int = 400,
    n: int = 200,
    seed: int = 0,
    guidance: tuple[float, ...] = (1.0, 2.0),
) -> None:
    """Teach, draw n crystals each, judge, and print shares of hits with 95% Wilson intervals."""
    torch.set_num_threads(1)
    name = condition.partition("[")[0]
    rows = pd.read_csv(table).dropna(subset=[name])
    rows = (rows[rows[split] == "train"] if split else rows)[["material_id", name, "cif"]]
    rows = rows.sample(labels, random_state=seed)
    shuffled = np.random.default_rng(seed).permutation(rows[name].to_numpy())
    model = property_models.load(judge) if judge else property_models.load(name, "judge")
    window, config = Window.of(asked), SampleConfig(workers=2)
    print(f"{labels} labels, of which {window.hits(rows[name].to_numpy()).mean():.1%} are {window}")
    told("nothing asked", autoperi.load("mp_20").sample(n, seed, config=config), model, window)
    for kind, values in (("labels", rows[name]), ("shuffled labels", shuffled)):
        folder = out / kind.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        rows.assign(**{name: values}).to_csv(folder / "mine.csv", index=False)
        added = add_conditions("mp_20", [condition], folder / "mine.csv", folder, seed)
        print(f"{kind}: {added.about['held out']}; minutes: {added.about['minutes']}")
        generator = autoperi.load(added.checkpoint)
        for strength in guidance:
            own = replace(config, guidance=strength)
            drawn = generator.sample(n, seed, conditions={name: asked}, config=own)
            told(f"{kind}, guidance {strength:g}", drawn, model, window)


def told(kind: str, crystals: Sequence[Crystal], model: PropertyModel, window: Window) -> None:
    """One line of the table."""
    found = model.predict(list(crystals))
    values = found["value"].to_numpy()
    hits = window.hits(values)
    low, high = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    print(
        f"{kind:28s} n {len(hits)}: {hits.mean():6.1%} [{low:.1%}, {high:.1%}], "
        f"median {np.median(values):.0f}, out of domain {found['out_of_domain'].mean():.0%}, "
        f"{len({c.formula for c in crystals})} formulas, "
        f"{np.mean([c.n_sites for c in crystals]):.1f} sites",
        flush=True,
    )


if __name__ == "__main__":
    tyro.cli(main)
