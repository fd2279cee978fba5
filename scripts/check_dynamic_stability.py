"""Which share of crystals has no imaginary phonon, of each of several files or folders.

Run: python scripts/check_dynamic_stability.py found samples --n 50 --out runs/phonons
n of each, at random, are relaxed with symmetry kept until no force exceeds 0.005 eV/Å; what does not settle
counts as unstable. A run that was interrupted goes on with the crystals that are left.
"""

from pathlib import Path

import numpy as np
import torch
import tyro
from pymatgen.core import Structure
from rich.progress import track

from evaluation import read_structures
from evaluation.metric import mean_metric
from evaluation.options import PotentialName
from evaluation.relaxation.batch import BatchSettings, relax_all
from evaluation.relaxation.journal import append, read_journal
from evaluation.settings import potential
from evaluation.stability.phonons import PhononSettings, least_frequency


def main(
    paths: tyro.conf.Positional[tuple[Path, ...]],
    out: Path,
    n: int = 50,
    seed: int = 0,
    by: PotentialName = "chgnet",
) -> None:
    """A line for each."""
    torch.set_num_threads(1)
    settings, relaxer = PhononSettings(), potential(by)
    how = BatchSettings(settings.relaxation, relaxer=relaxer)
    out.mkdir(parents=True, exist_ok=True)
    journal = out / f"phonons-{by}.jsonl"
    known = {record["key"]: record["least"] for record in read_journal(journal)}
    print(settings)
    for path in paths:
        samples = read_structures(path, n, seed).samples
        records = list(relax_all(samples, how, out / "relaxed.jsonl"))
        for record in track([r for r in records if r["key"] not in known], description=path.name):
            least = float("-inf")
            if not record["error"] and record["converged"]:
                least = least_frequency(Structure.from_dict(record["relaxed"]), relaxer, settings)
            known[record["key"]] = least
            append(journal, {"key": record["key"], "id": record["id"], "least": least})
        found = np.array([known[record["key"]] for record in records])
        share = mean_metric("stable", np.array(list(map(settings.stable, found))), "crystals", str(settings))
        told = f"{share.value:.1%} [{share.low:.0%}, {share.high:.0%}] of {len(found)}"
        print(f"{path}: {told}, {np.isinf(found).sum()} did not settle", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
