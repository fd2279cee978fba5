"""Print our figures for the 10,000 crystals of DiffCSP and of DiffCSP++ beside the published ones."""

from pathlib import Path

import tyro

from autoperi.data.reading import read_structures
from evaluation.facts.distribution import density, wasserstein
from evaluation.facts.reference import ReferenceSettings, load_reference
from evaluation.metrics.coverage import CoverageSettings, coverage_report
from evaluation.metrics.validity import smact_valid, structural_validity

NAMES = ("structural %", "compositional %", "W density", "W elements", "COV-R %", "COV-P %")
PUBLISHED = {  # arXiv:2309.04475; validity arXiv:2402.03992, the rest by SymmCD's authors, arXiv:2502.03638
    "diffcsp_mp20": (100.0, 83.25, 0.3502, 0.3398, 99.71, 99.76),
    "diffcsp_pp_mp20": (99.9, 85.1, 0.12, 0.33, 99.72, 99.61),
}


def main(data_dir: Path, samples: int = 0, reference_samples: int | None = None) -> None:
    """Validity of all, distances of the first 1,000 valid, coverage of a draw of ``samples`` (0: none)."""
    test = load_reference("mp_20/test", ReferenceSettings(data_dir))
    for name, published in PUBLISHED.items():
        read = read_structures(data_dir / "peers" / f"{name}.npz")
        passed = [(structural_validity(s), smact_valid(s.composition)) for s in read.structures]
        valid = [s for s, both in zip(read.structures, passed, strict=True) if all(both)][:1000]
        ours = [100 * sum(one) / (len(passed) + len(read.failures)) for one in zip(*passed, strict=True)]
        ours.append(wasserstein([density(s) for s in valid], test.table["density"]))
        ours.append(wasserstein([len(s.composition) for s in valid], test.table["n_elements"]))
        if samples:
            how = CoverageSettings(None, samples, reference_samples)
            found = coverage_report(read, test, how)[1][:2]
            ours += [100 * metric.value for metric in found]
            print(f"{found[0].protocol}; {found[0].note}")
        for what, value, theirs in zip(NAMES, ours, published, strict=False):
            print(f"{name} ({len(passed)}) {what}: ours {value:.4g}, published {theirs:g}")


if __name__ == "__main__":
    tyro.cli(main)
