"""Which share of crystals has no imaginary phonon, of each of several files or folders.

Run: python scripts/checks/dynamic_stability.py found samples --n 50 --out runs/phonons
n of each, at random, are relaxed with symmetry kept until no force exceeds 0.005 eV/Å; what does not settle
counts as unstable. Beside it: the share that has none on a mesh of interpolated wave vectors either. A run
that was interrupted goes on with the crystals that are left.
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
from evaluation.stability.phonons import PhononSettings, spectrum


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
    known = {r["key"]: r for r in read_journal(journal) if r["how"] == str(settings)}
    print(settings)
    for path in paths:
        samples = read_structures(path, n, seed).samples
        records = list(relax_all(samples, how, out / "relaxed.jsonl"))
        for record in track([r for r in records if r["key"] not in known], description=path.name):
            found = {"key": record["key"], "how": str(settings), "least": -np.inf, "interpolated": -np.inf}
            if not record["error"] and record["converged"]:
                phonons = spectrum(Structure.from_dict(record["relaxed"]), relaxer, settings)
                found |= {"least": phonons.decisive, "interpolated": phonons.interpolated}
            known[record["key"]] = found
            append(journal, found)
        told = []
        for column in ("least", "interpolated"):
            least = np.array([known[record["key"]][column] for record in records])
            stable = np.array(list(map(settings.stable, least)))
            share = mean_metric("stable", stable, "crystals", str(settings))
            told.append(f"{share.value:.1%} [{share.low:.0%}, {share.high:.0%}]")
        unsettled = sum(np.isinf(known[record["key"]]["least"]) for record in records)
        print(
            f"{path}: {told[0]} of {len(records)}, {unsettled} did not settle; interpolated: {told[1]}",
            flush=True,
        )


if __name__ == "__main__":
    tyro.cli(main)
