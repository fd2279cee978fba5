"""How often optimise reaches a band gap by the judge, from n crystals of MP-20 test with a gap above 0.2 eV.

Run: python scripts/checks/optimise.py --n 50 --seed 0
Goals: 1.5 eV above the gap that the guide predicts, of every other gap beyond 2.5 eV below it. Reached by the
guide, and hit by the judge (1, else 0), is what lies within a tenth of the goal. Beside it: geometry alone,
that row of a plain scan of single substitutions of which the guide is surest, and the ceiling: what the judge
says of all crystals of MP-20 test whose true gap lies there, in the mean of the goals.
"""

import numpy as np
import torch
import tyro

import property_models
from autoperi.crystals.crystal import Crystal
from autoperi.crystals.symmetry import as_found
from autoperi.data.dataset import load_dataset
from autoperi.discovery.seeded import Goal, Means, NothingLedError, foretold_by, likeliest, optimised
from autoperi.generator import load
from property_models.physics.descent import Descent, shipped_descent
from property_models.potentials import distilled
from property_models.uses.aim import Aim
from property_models.uses.screen import Predictor
from property_models.uses.substitution import exchanged, substitution_scan, substitutions


def main(n: int = 50, seed: int = 0, steps: int = 10) -> None:
    """Print every walk, and the shares."""
    torch.set_num_threads(1)
    test = load_dataset("mp_20", "test")
    order = np.random.default_rng(seed).permutation(len(test)).tolist()
    guide, judge = (property_models.load("band_gap", family) for family in ("guide", "judge"))
    rows: dict[str, list] = {"with exchange": [], "geometry alone": [], "plain scan": []}
    generator, ceilings = load("mp_20"), []
    gaps = test.labels["band_gap"]
    insulators = np.flatnonzero(gaps > 0)
    judged = judge.predict([test[i] for i in insulators.tolist()])["value"].to_numpy()
    chosen = [i for i in order if gaps[i] > 0.2][:n]
    for number, crystal in enumerate(test[i] for i in chosen):
        gap = guide.predict([crystal])["value"].item()
        goal = Goal.of("band_gap", gap - 1.5 if gap > 2.5 and number % 2 else gap + 1.5)
        lead = Descent(Aim(guide.fast(), distilled.load(), goal.value, goal.tolerance), steps)
        predict = Predictor(("band_gap",), windows=(("band_gap", goal.window()),))
        foretell, relax = foretold_by(generator, goal), shipped_descent()
        by = [Means(predict, relax, lead, way, foretell) for way in (exchanged, None)]
        ceilings.append(goal.window().hits(judged[goal.window().hits(gaps[insulators])]).mean())
        scan = substitution_scan(crystal, [guide], windows={"band_gap": goal.window()})
        best = likeliest(scan, goal)
        plain = substitutions(crystal)[best[0] - 1][1] if best else None
        found = [_led(crystal, goal, means) for means in by]
        for name, one in zip(rows, [*found, plain], strict=True):
            there = one is not None and (one is plain or goal.reached(one))
            value = judge.predict([one or crystal])["value"].item()
            hit = there and abs(value - goal.value) <= goal.tolerance
            rows[name].append((there, hit, one is None or as_found(one).space_group == crystal.space_group))
        told = ", ".join(f"{name} {own[-1][0]:d} {own[-1][1]:d}" for name, own in rows.items())
        print(f"{crystal.id} {crystal.formula} {gap:.2f} to {goal.value:.2f}: {told}", flush=True)
    for name, told in rows.items():
        reached, hits, groups = np.mean(told, axis=0)
        print(f"{name}: n {len(told)}, guide {reached:.0%}, judge {hits:.0%}, groups {groups:.1%}")
    print(f"ceiling: {np.mean(ceilings):.0%}")


def _led(crystal: Crystal, goal: Goal, means: Means) -> Crystal | None:
    """The best on the way, if anything on it has the gene."""
    try:
        return optimised(crystal, goal, means)[0]
    except NothingLedError:
        return None


if __name__ == "__main__":
    tyro.cli(main)
