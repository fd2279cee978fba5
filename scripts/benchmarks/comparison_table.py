"""The table of a benchmark as the documents print it: one row a set, headline figures in per cent.

Run: python scripts/benchmarks/comparison_table.py bench/comparison.json
"""

import json
from pathlib import Path
from typing import Annotated

import tyro

from evaluation.report.page import table_cell

_COLUMNS = {
    "structural_validity": "struct.",
    "smact_smact14": "SMACT",
    "uniqueness": "unique",
    "novelty_duplicate": "duplicate",
    "novelty_substitution": "subst.",
    "novelty_known_gene": "known gene",
    "novelty_new_gene": "new gene",
    "valid_unique_novel": "v.u.n.",
    "wasserstein_density": "W(ρ)",
    "wasserstein_n_elements": "W(n_el)",
    "space_group_jensen_shannon": "JSD(group)",
    "p1_share_loose": "P1",
    "new_gene_share": "new by name",
}


def main(comparison: Annotated[Path, tyro.conf.Positional]) -> None:
    """Print the measured rows with their number of crystals; baselines are in italics."""
    print("|", " | ".join(["", "n", *_COLUMNS.values()]), "|\n" + "|---" * (len(_COLUMNS) + 2) + "|")
    for row in json.loads(comparison.read_text())["rows"]:
        if row["kind"] == "published" or row["error"]:
            continue
        name = table_cell(row["name"])
        cells = [f"*{name}*" if row["kind"] == "baseline" else name, str(row["readable"])]
        for metric in _COLUMNS:
            value = row["metrics"].get(metric, {}).get("value")
            share = not metric.startswith(("wasserstein", "space"))
            cells.append("" if value is None else f"{100 * value:.1f}" if share else f"{value:.3g}")
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    tyro.cli(main)
