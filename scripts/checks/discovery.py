"""What a campaign is worth: hits by the judge among its crystals, beside cheaper ways to the same gap.

Run: python scripts/checks/discovery.py --draws 500 --gaps 0.5 1.3 2.5 4.0 --out runs/discovery
Each way draws as many crystals and passes them through the same stages: valid, unique, likely stable, new,
relaxed, within 0.05 eV/atom by CHGNet. Unasked: drawn without a target, none chosen by it. Steered: drawn for
it by guidance alone. Asked: genes chosen by their chance to have it too, as `sample` does. Filter: drawn
without, chosen by the guide, before and after relaxation. Campaign: asked, and chosen by the guide. Exchange:
elements of training crystals exchanged for like ones, chosen as in Filter. Shuffled: the hits that the
crystals of the campaigns for the other gaps have in this window. What is found is kept in --out.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro

import autoperi
import property_models
from autoperi.crystals.crystal import Crystal
from autoperi.crystals.labels import Window
from autoperi.crystals.symmetry import SymmetriseError, symmetrise
from autoperi.data.files import read_crystals, write_crystals
from autoperi.discovery.campaign import Campaign
from autoperi.discovery.campaign.stages import stages
from autoperi.generator import SampleConfig
from evaluation.facts.baselines import draw_baseline
from evaluation.facts.reference import load_reference
from evaluation.metric import mean_metric
from property_models.uses.screen import Predictor

ANY = Window(-np.inf, np.inf)
WAYS = {
    "unasked": (SampleConfig(guidance=0.0), False),
    "steered": (SampleConfig(guidance=2.0, likely=0.0), False),
    "asked": (SampleConfig(), False),
    "filter": (SampleConfig(guidance=0.0), True),
    "campaign": (SampleConfig(), True),
    "exchange": (None, True),
}
"""How crystals are drawn (None: not by the generator; guidance 0: no target); whether the guide chooses."""


def main(
    out: Path,
    draws: int = 500,
    gaps: tuple[float, ...] = (0.5, 1.3, 2.5, 4.0),
    seed: int = 0,
) -> None:
    """A row for each way and gap; an interrupted run goes on."""
    torch.set_num_threads(1)
    windows = {gap: Window(max(gap - 0.3, 0.0), gap + 0.3, None, "eV") for gap in gaps}
    found: dict[tuple[float, str], list[Crystal]] = {}
    seconds: dict[tuple[float, str], float] = {}
    for gap, window in windows.items():
        for way, (config, chosen) in WAYS.items():
            folder = out / (way if way == "unasked" else f"{way}-{gap:g}")
            if not (folder / "run.json").exists():
                began = time.process_time()
                drawn = _drawn(window, draws, config, seed) if config else _exchanged(draws, seed)
                crystals = _through(drawn, window if chosen else ANY)
                write_crystals(crystals, folder, {"seconds": time.process_time() - began})
            found[gap, way] = read_crystals(folder)
            seconds[gap, way] = json.loads((folder / "run.json").read_text())["seconds"]
            print(f"{folder}: {len(found[gap, way])} found, {seconds[gap, way]:.0f} s of a core", flush=True)
    for gap in gaps:
        others = [c for other in gaps if other != gap for c in found[other, "campaign"]]
        found[gap, "shuffled"], seconds[gap, "shuffled"] = others, float("nan")
    rows = [_figures(*key, found[key], windows[key[0]], seconds[key]) for key in sorted(found)]
    table = pd.DataFrame(rows)
    table.to_csv(out / "discovery.csv", index=False)
    print(table.round(3).to_string(index=False))


def _drawn(window: Window, n: int, config: SampleConfig, seed: int) -> Sequence[Crystal]:
    asked = {"band_gap": window} if config.guidance else {}
    return autoperi.load("mp_20").sample(n, seed, conditions=asked, config=replace(config, novel=True))


def _exchanged(n: int, seed: int) -> list[Crystal]:
    """Training crystals with other elements, symmetrised."""
    crystals = []
    drawn = draw_baseline("ion substitution", load_reference("mp_20"), n, seed)
    for k, structure in enumerate(drawn.structures):
        try:
            crystals.append(replace(symmetrise(structure), id=f"{k:06d}"))
        except SymmetriseError:
            continue
    return crystals


def _through(crystals: Sequence[Crystal], window: Window) -> list[Crystal]:
    """Those that come through all stages."""
    windows = (("band_gap", window),)
    left = list(crystals)
    for stage in stages(Campaign(Predictor(("e_above_hull", "band_gap"), windows=windows), windows=windows)):
        left = stage.keep(left) if left else []
    return left


def _figures(
    gap: float, way: str, crystals: Sequence[Crystal], window: Window, seconds: float
) -> dict[str, object]:
    """What the judge says of crystals."""
    row: dict[str, object] = {"gap": gap, "way": way, "found": len(crystals)}
    if not crystals:
        return row
    judge = property_models.load("band_gap", "judge")
    values = judge.predict(crystals)["value"].to_numpy(float)
    hits = window.hits(values)
    hit = mean_metric("hit_rate", hits, "crystals", str(window))
    return row | {
        "hits": hit.value,
        "low": hit.low,
        "high": hit.high,
        "expected": float(judge.chances(crystals, [window]).mean()),
        "mae": float(np.abs(values - gap).mean()),
        "metals": float((values < 0.05).mean()),
        "systems": len({frozenset(c.species.tolist()) for c in crystals}) / len(crystals),
        "seconds_a_hit": seconds / max(1, int(hits.sum())),
    }


if __name__ == "__main__":
    tyro.cli(main)
