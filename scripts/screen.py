"""Screen crystals with a property model: those it knows enough about, best first.

Run: python scripts/screen.py --path samples --checkpoint runs/toughness/checkpoint --low 1 --high 2
"""

from pathlib import Path

import tyro
from rich import print as show

from property_models.uses.screen import predict_path


def main(path: Path, checkpoint: Path, low: float, high: float, out: Path = Path("screened.csv")) -> None:
    """Keep the crystals whose value surely lies in a range: its 90% interval does, and it is no outlier."""
    screened = predict_path(path, checkpoint=checkpoint)
    for name, where, reason in screened.failures:
        print(f"left out: {name} ({where}): {reason}")
    (target, *_) = screened.models
    table = screened.table
    value, half = table[target], 1.645 * table[f"{target}_uncertainty"]
    sure = (value - half >= low) & (value + half <= high) & ~table[f"{target}_out_of_domain"]
    likely = table[value.between(low, high)]
    show(f"{len(table)} crystals, {len(likely)} predicted in [{low}, {high}], {sure.sum()} of them surely")
    found = table.loc[sure].sort_values(by=f"{target}_uncertainty")
    found.to_csv(out, index=False)
    show(found.head(10))


if __name__ == "__main__":
    tyro.cli(main)
