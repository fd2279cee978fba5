"""What a campaign is worth: hits by the judge among its crystals, beside cheaper ways to the same target.

Run: python scripts/check_discovery.py --draws 500 --gaps 0.5 1.3 2.5 4.0 --out runs/discovery
Each row draws as many crystals and passes them through the same stages: valid, unique, new, relaxed and
within 0.05 eV/atom by CHGNet. Unasked: drawn without a target, none chosen by it. Asked: drawn for it,
none chosen. Filter: drawn without, chosen by the guide, before and after relaxation. Campaign: both.
Exchange: elements of training crystals exchanged for like ones, chosen as in Filter. Shuffled: the hits that
the crystals of the campaigns for the other targets have in this window.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from autoperi.discovery.campaign import Campaign
from autoperi.discovery.campaign.stages import stages
from autoperi.generator import SampleConfig
from evaluation.facts.baselines import draw_baseline
from evaluation.facts.reference import load_reference
from evaluation.metric import mean_metric
from property_models.uses.screen import Predictor

JUDGE = property_models.load("band_gap", "judge")
ANY = Window(-np.inf, np.inf)


@dataclass(frozen=True)
class Way:
    """A way to crystals with a gap.

    Attributes:
        draw: so many, for a window.
        choose: whether the guide chooses them by it.
    """

    draw: Callable[[Window, int], Sequence[Crystal]]
    choose: bool


def main(
    out: Path,
    draws: int = 500,
    gaps: tuple[float, ...] = (0.5, 1.3, 2.5, 4.0),
    guidance: float = 2.0,
    seed: int = 0,
) -> None:
    """A row for each way and gap."""
    torch.set_num_threads(1)
    generator = autoperi.load("mp_20")

    def drawn(window: Window, n: int, strength: float) -> Sequence[Crystal]:
        config = SampleConfig(guidance=strength, novel=True)
        asked = {"band_gap": window} if strength else {}
        return generator.sample(n, seed, conditions=asked, config=config)

    ways = {
        "unasked": Way(lambda window, n: drawn(window, n, 0.0), False),
        "asked": Way(lambda window, n: drawn(window, n, guidance), False),
        "filter": Way(lambda window, n: drawn(window, n, 0.0), True),
        "campaign": Way(lambda window, n: drawn(window, n, guidance), True),
        "exchange": Way(lambda _, n: _exchanged(n, seed), True),
    }
    windows = {gap: Window(max(gap - 0.3, 0.0), gap + 0.3, None, "eV") for gap in gaps}
    found: dict[tuple[float, str], Sequence[Crystal]] = {}
    rows = []
    out.mkdir(parents=True, exist_ok=True)
    for gap, window in windows.items():
        for name, way in ways.items():
            began = time.process_time()
            found[gap, name] = _through(way, window, draws)
            seconds = time.process_time() - began
            rows.append({"gap": gap, "way": name, **_figures(found[gap, name], window, draws, seconds)})
            pd.DataFrame(rows).to_csv(out / "discovery.csv", index=False)
            print(
                pd.DataFrame(rows).round(3).tail(1).to_string(index=False, header=len(rows) == 1), flush=True
            )
    for gap, window in windows.items():
        others = [crystal for other in gaps if other != gap for crystal in found[other, "campaign"]]
        rows.append({"gap": gap, "way": "shuffled", **_figures(others, window, draws, float("nan"))})
    pd.DataFrame(rows).to_csv(out / "discovery.csv", index=False)
    print(pd.DataFrame(rows).round(3).to_string(index=False))


def _through(way: Way, window: Window, draws: int) -> list[Crystal]:
    """The crystals of a way that come through all stages."""
    windows = (("band_gap", window if way.choose else ANY),)
    campaign = Campaign(Predictor(("e_above_hull", "band_gap"), windows=windows), windows=windows)
    crystals = list(way.draw(window, draws))
    for stage in stages(campaign):
        crystals = stage.keep(crystals) if crystals else []
    return crystals


def _exchanged(n: int, seed: int) -> list[Crystal]:
    """Training crystals with other elements, symmetrised."""
    crystals = []
    for k, structure in enumerate(
        draw_baseline("ion substitution", load_reference("mp_20"), n, seed).structures
    ):
        try:
            crystals.append(replace(symmetrise(structure), id=f"{k:06d}"))
        except SymmetriseError:
            continue
    return crystals


def _figures(
    crystals: Sequence[Crystal], window: Window, draws: int, seconds: float
) -> dict[str, float | None]:
    """What the judge says of crystals."""
    table = JUDGE.predict(list(crystals))
    values = table["value"].to_numpy(float)
    hit = mean_metric("hit_rate", window.hits(values), "crystals", str(window))
    chance = JUDGE.chances(list(crystals), [window]).mean() if crystals else float("nan")
    systems = {frozenset(crystal.species.tolist()) for crystal in crystals}
    return {
        "draws": draws,
        "found": len(crystals),
        "hits": hit.value,
        "low": hit.low,
        "high": hit.high,
        "expected": float(chance),
        "mae": float(np.abs(values - (window.low + window.high) / 2).mean()) if crystals else float("nan"),
        "metals": float((values < 0.05).mean()) if crystals else float("nan"),
        "systems": len(systems),
        "seconds_a_hit": seconds / max(1, int(window.hits(values).sum())),
    }


if __name__ == "__main__":
    tyro.cli(main)
