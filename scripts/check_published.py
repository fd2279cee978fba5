"""Print our figures for the 10,000 crystals of DiffCSP and of DiffCSP++ beside the published ones."""

from pathlib import Path

import numpy as np
import tyro
from rich.progress import track

from evaluation.coverage import CoverageSettings, coverage_report
from evaluation.distribution import density, wasserstein
from evaluation.readers import read_structures
from evaluation.reference import ReferenceSettings, load_reference
from evaluation.validity import smact_valid, structural_validity

PUBLISHED = {  # arXiv:2309.04475 table 3 and arXiv:2402.03992 table 3, both against the MP-20 test split
    "diffcsp_mp20": {
        "struct": 100.0,
        "comp": 83.25,
        "density": 0.3502,
        "n_el": 0.3398,
        "R": 99.71,
        "P": 99.76,
    },
    "diffcsp_pp_mp20": {
        "struct": 99.94,
        "comp": 85.12,
        "density": 0.2351,
        "n_el": 0.3749,
        "R": 99.73,
        "P": 99.59,
    },
}


def main(data_dir: Path, samples: int = 0, reference_samples: int | None = None, workers: int = 1) -> None:
    """Validity and distances of all crystals; coverage on a draw of ``samples``, none for 0."""
    test = load_reference("mp_20/test", ReferenceSettings(data_dir, workers=workers))
    for name, published in PUBLISHED.items():
        read = read_structures(data_dir / "peers" / f"{name}.npz", workers=workers)
        crystals = [s for s in track(read.structures, name) if structural_validity(s)]
        allowed = [s for s in crystals if smact_valid(s.composition)]
        total = len(read.structures) + len(read.failures)
        both = [allowed[k] for k in np.random.default_rng(0).choice(len(allowed), 1000, replace=False)]
        ours = {"struct": 100 * len(crystals) / total}
        ours["comp"] = 100 * sum(smact_valid(s.composition) for s in read.structures) / total
        ours["density"] = wasserstein(np.array([density(s) for s in both]), test.table["density"].to_numpy())
        elements = np.array([len(s.composition) for s in both])
        ours["n_el"] = wasserstein(elements, test.table["n_elements"].to_numpy())
        if samples:
            settings = CoverageSettings(samples=samples, reference_samples=reference_samples)
            found = {m.name: m for m in coverage_report(read, test, settings, workers=workers)[1]}
            ours |= {"R": 100 * found["cov_recall"].value, "P": 100 * found["cov_precision"].value}
            print(found["cov_recall"].protocol, found["cov_recall"].note, sep="\n")
        print(
            name, *(f"{key}: ours {value:.4g}, published {published[key]:g}" for key, value in ours.items())
        )


if __name__ == "__main__":
    tyro.cli(main)
