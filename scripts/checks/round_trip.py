"""Check that gene and free coordinates rebuild the crystals of a data set and keep their space group."""

import tyro
from moyopy import Cell, MoyoDataset
from pymatgen.analysis.structure_matcher import StructureMatcher
from rich.progress import track

from autoperi.data.dataset import load_dataset
from autoperi.data.reading import iterate_rows, parse_row


def main(source: str, first: int = 0, last: int | None = None) -> None:
    """Symmetrise and rebuild every crystal of a file or folder: rows ``first`` to ``last``."""
    crystals = {c.id: c for c in load_dataset(source, None)}
    matcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)
    matched = same_group = total = 0
    for row in track(list(iterate_rows(source))[first:last], "Comparing"):
        total += 1
        if row.id not in crystals:
            print(f"{row.id}: not symmetrised")
            continue
        rebuilt = crystals[row.id].to_structure()
        cell = Cell(
            rebuilt.lattice.matrix.tolist(), rebuilt.frac_coords.tolist(), list(rebuilt.atomic_numbers)
        )
        number, expected = MoyoDataset(cell, symprec=0.01).number, crystals[row.id].space_group
        match = matcher.fit(parse_row(row), rebuilt)
        matched, same_group = matched + match, same_group + (number == expected)
        if not match or number != expected:
            print(f"{row.id}: match {match}, space group {number}, gene {expected}")
    print(
        f"{total} crystals: {matched} rebuilt ({matched / total:.2%}), {same_group} in the gene's space group"
    )


if __name__ == "__main__":
    tyro.cli(main)
